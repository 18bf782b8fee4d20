//! Two policies that alternate, and a test with traffic that determines which of them is in force.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{PacketCounter, Sender, THE_PEER, THE_SERVER, frames};
use crate::{daemon::Lab, packet::eth};

/// One of two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Lets the peer reach port 20001.
    One,
    /// Lets the peer reach port 20002 instead.
    Other,
}

impl Policy {
    /// Returns the other policy.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::One => Self::Other,
            Self::Other => Self::One,
        }
    }

    /// Returns the port that only this policy allows.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::One => 20_001,
            Self::Other => 20_002,
        }
    }

    /// Writes the policy as the laboratory's site file.
    pub fn write(self, lab: &Lab) {
        let rows = [("turn", self.port()), ("both", BOTH)].map(|(name, port)| {
            format!(
                "[[allow]]\nname = \"{name}\"\nfrom = [\"10.77.0.2\", \"fd00:77::2\"]\nto = [\"server\"]\n\
                 ports = \"{port}\"\nprotocol = \"udp\"\n"
            )
        });
        lab.write_site(&rows.concat());
    }
}

/// A port that both policies allow.
pub const BOTH: u16 = 20_000;
/// A port that neither policy allows.
pub const NEITHER: u16 = 20_003;

/// The longest time that a packet may take across a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends one packet to each of four ports and counts the arrivals.
#[derive(Debug)]
pub struct Touchstone {
    sender: Sender,
    rounds: Vec<Vec<Vec<u8>>>,
    ears: [PacketCounter; 4],
    heard: [u64; 4],
}

/// The ports in the order of sending. When the packet to the last port has arrived, the packets to the others
/// had their chance.
const PORTS: [u16; 4] = [Policy::One.port(), Policy::Other.port(), NEITHER, BOTH];

impl Touchstone {
    /// Sends from the peer to the server.
    pub fn new(lab: &Lab) -> Self {
        let counter = |port| PacketCounter::new(&lab.server, THE_PEER, Some(port));
        let packets = |from, to| PORTS.map(|port| eth().ip(from, to).udp(40_002, port)).into();
        let all = frames(&lab.peer, &lab.server, packets)(THE_PEER, THE_SERVER);
        let rounds = all.chunks(PORTS.len()).map(<[_]>::to_vec).collect();
        Self { sender: Sender::at(&lab.peer), rounds, ears: PORTS.map(counter), heard: [0; 4] }
    }

    /// Returns the policy in force, judged by the packets that arrive over IPv4 and over IPv6.
    ///
    /// # Panics
    /// If the arrivals match neither policy exactly.
    pub fn which(&mut self, when: &str) -> Policy {
        let found: Vec<_> = (0..self.rounds.len()).map(|round| self.arrived(round, when)).collect();
        match found[..] {
            [[true, false, false, true], [true, false, false, true]] => Policy::One,
            [[false, true, false, true], [false, true, false, true]] => Policy::Other,
            _ => panic!("{when}: arrived at {PORTS:?}, IPv4 and IPv6: {found:?}"),
        }
    }

    fn arrived(&mut self, round: usize, when: &str) -> [bool; 4] {
        for frame in &self.rounds[round] {
            assert!(self.sender.send(frame), "nothing guards the peer");
        }
        let until = Instant::now() + PATIENCE;
        let before = self.heard;
        while self.heard[3] == before[3] {
            assert!(Instant::now() < until, "{when}: not even what both policies allow arrives");
            thread::sleep(Duration::from_micros(200));
            self.heard[3] = self.ears[3].heard();
        }
        for (heard, counter) in self.heard.iter_mut().zip(&mut self.ears) {
            *heard = counter.heard();
        }
        [0, 1, 2, 3].map(|port| self.heard[port] > before[port])
    }
}
