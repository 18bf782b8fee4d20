//! FL-17: a week of a busy server, on a simulated clock. The server opens connections, which are closed in
//! every way and by every side, asks for names and keeps idle pools, while strangers forge segments of its
//! peers.
//!
//! Two conditions must hold all the time: no packet of an open connection is dropped, and the number of
//! entries that yield to nothing is about the number of open connections.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::Ipv4Addr,
};

use pomguard_common::{
    Direction::{Inbound, Outbound},
    flow::Key,
    image::Family,
    protocol::TCP,
};
use pomguard_tests::{
    harness::{Effect, Subject as _},
    host_datapath::HostDatapath,
    packet::{
        eth,
        flag::{ACK, FIN, PSH, RST, SYN},
    },
    random::Random,
    reference,
};

use crate::case::AGE;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const DATABASE: u16 = 5_432;
/// Seconds of a step of the clock.
const STEP: u32 = 10;
/// Steps between two checks of the table. A real daemon sweeps about once a step.
const LOOK: u32 = 18;
/// Seconds for which a socket stays in TIME-WAIT.
const TIME_WAIT: u32 = 60;
/// Seconds within which the daemon has removed the flow of a connection that ended silently.
const GONE: u32 = 60 + 3 * LOOK * STEP;
const HOUR: u32 = 3_600;
const DAY: u32 = 24 * HOUR;

/// The last byte of the peer's address, and the port of this host.
type Endpoints = (u8, u16);

/// The sender of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}
use Side::{Ours, Theirs};

/// The state of the host's socket after the last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The socket is gone at once.
    Gone,
    /// The socket stays in TIME-WAIT.
    TimeWait,
    /// The socket is gone, and no segment has shown it.
    Silent,
}

/// A connection: its segments, each with the seconds after the segment before, and the end of its socket.
struct Script {
    segments: Vec<(u32, Side, u8)>,
    end: End,
}

impl Script {
    /// Makes a connection of `length` seconds, which is opened and closed in one of the ways of TCP.
    fn new(random: &mut Random, length: u32) -> Self {
        const OPEN: [(u32, Side, u8); 3] = [(0, Ours, SYN), (0, Theirs, SYN | ACK), (0, Ours, ACK)];
        let fin = FIN | ACK;
        let talk = [(0, Ours, ACK | PSH), (0, Theirs, ACK), (length, Theirs, ACK | PSH), (0, Ours, ACK)];
        let ours_first = [(0, Ours, fin), (0, Theirs, ACK), (0, Theirs, fin), (0, Ours, ACK)];
        let theirs_first = [(0, Theirs, fin), (0, Ours, ACK), (STEP, Ours, fin), (0, Theirs, ACK)];
        let (close, end): (Vec<_>, _) = match random.below(16) {
            0..=4 => (ours_first.to_vec(), End::TimeWait),
            5..=8 => (theirs_first.to_vec(), End::Gone),
            9 => (vec![(0, Ours, fin), (0, Theirs, fin), (0, Ours, ACK), (0, Theirs, ACK)], End::TimeWait),
            // The last acknowledgement is lost, and the FIN before it is repeated.
            10 => ([&ours_first[..], &[(STEP, Theirs, fin), (0, Ours, ACK)]].concat(), End::TimeWait),
            11 => (
                [&theirs_first[..3], &[(STEP, Ours, fin), (2 * STEP, Ours, fin), (0, Theirs, ACK)]].concat(),
                End::Gone,
            ),
            // Half-closed: the answer takes hours.
            12 => {
                let mut close = vec![(0, Ours, fin), (0, Theirs, ACK)];
                close.extend([(HOUR, Theirs, ACK | PSH), (0, Ours, ACK)].repeat(3));
                close.extend([(0, Theirs, fin), (0, Ours, ACK)]);
                (close, End::TimeWait)
            }
            13 => (vec![(0, Ours, RST | ACK)], End::Gone),
            14 => (vec![(0, Theirs, RST)], End::Silent),
            // The peer has vanished: repeated segments are not answered, until the host gives up.
            _ => (
                [STEP, STEP, 30, 60, 120, 120, 120].map(|wait| (wait, Ours, ACK | PSH)).to_vec(),
                End::Silent,
            ),
        };
        match random.below(40) {
            0 => Self { segments: vec![(0, Ours, SYN), (0, Theirs, RST | ACK)], end: End::Gone },
            1 => {
                let waits = [0, STEP, STEP, STEP, 20, 30, 60];
                Self { segments: waits.map(|wait| (wait, Ours, SYN)).to_vec(), end: End::Gone }
            }
            2 => {
                let again = [(0, Ours, SYN), (STEP, Ours, SYN), (0, Theirs, SYN | ACK), (0, Ours, ACK)];
                Self { segments: [&again[..], &talk, &close].concat(), end }
            }
            _ => Self { segments: [&OPEN[..], &talk, &close].concat(), end },
        }
    }

    /// Makes a connection of a pool: idle between keepalive probes, for `length` seconds in all.
    fn pooled(random: &mut Random, length: u32) -> Self {
        let mut segments = vec![(0, Ours, SYN), (0, Theirs, SYN | ACK), (0, Ours, ACK)];
        for _ in 0..length / (2 * HOUR) {
            let (asks, answers) = if random.once_in(2) { (Ours, Theirs) } else { (Theirs, Ours) };
            segments.extend([(2 * HOUR, asks, ACK), (0, answers, ACK)]);
        }
        segments.push((0, Ours, RST));
        Self { segments, end: End::Gone }
    }
}

/// One running connection.
struct Connection {
    ends: Endpoints,
    script: Script,
    next: usize,
}

/// The server and its clock.
struct Server {
    datapath: HostDatapath,
    random: Random,
    now: u32,
    /// Frames: TCP out, TCP in, a query, and its answer.
    frames: [Vec<u8>; 4],
    running: Vec<Connection>,
    due: BinaryHeap<Reverse<(u32, usize)>>,
    /// The connection that has a socket at these ends, and the end of TIME-WAIT for sockets in that state.
    sockets: HashMap<Endpoints, (usize, Option<u32>)>,
    /// The times at which sockets ended without any segment that shows it.
    silent: Vec<u32>,
    /// Ends of connections that have ended, to be used again.
    ended: Vec<Endpoints>,
    packets: u64,
    daemon: bool,
}

const SOURCE: usize = 26;
const SOURCE_PORT: usize = 34;
const FLAGS: usize = 47;

impl Server {
    fn new(daemon: bool) -> Self {
        let database = Ipv4Addr::new(10, 9, 2, 0);
        let out = eth().ipv4(HOST, database).tcp(1, DATABASE);
        let query = eth().ipv4(HOST, Ipv4Addr::new(10, 9, 2, 1)).udp(1, 53).payload(&[7; 20]);
        let frames = [out.build(), out.mirrored().build(), query.build(), query.mirrored().build()];
        Self {
            datapath: HostDatapath::new(reference::policy()).expect("the policy compiles"),
            random: Random(17),
            now: 0,
            frames,
            running: Vec::new(),
            due: BinaryHeap::new(),
            sockets: HashMap::new(),
            silent: Vec::new(),
            ended: Vec::new(),
            packets: 0,
            daemon,
        }
    }

    fn judge(&mut self, side: Side, frame: usize) -> Effect {
        self.packets += 1;
        let direction = if side == Ours { Outbound } else { Inbound };
        self.datapath.judge(direction, &self.frames[frame]).expect("both ways agree")
    }

    /// Judges a segment, in the name of either end.
    fn segment(&mut self, (peer, port): Endpoints, side: Side, flags: u8) -> Effect {
        let at = usize::from(side == Theirs);
        let frame = &mut self.frames[at];
        let (address, local) =
            if side == Ours { (SOURCE + 4, SOURCE_PORT) } else { (SOURCE, SOURCE_PORT + 2) };
        frame[address + 3] = peer;
        frame[local..local + 2].copy_from_slice(&port.to_be_bytes());
        frame[FLAGS] = flags;
        self.judge(side, at)
    }

    /// Sends a query for a name, and in most cases its answer.
    fn asks(&mut self) {
        let port = 1_024 + self.random.below(60_000) as u16;
        self.frames[2][SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
        self.frames[3][SOURCE_PORT + 2..SOURCE_PORT + 4].copy_from_slice(&port.to_be_bytes());
        let asked = self.judge(Ours, 2);
        assert!(asked.passes(), "a query at {}: {asked:?}", self.now);
        if !self.random.once_in(8) {
            let answer = self.judge(Theirs, 3);
            assert!(answer.passes(), "the answer at {}: {answer:?}", self.now);
        }
    }

    /// Returns ends that no connection has: fresh ones, or the ends of a connection that has just ended.
    fn ends(&mut self) -> Endpoints {
        loop {
            let again = self.random.once_in(4).then(|| self.ended.pop()).flatten();
            let fresh = (1 + self.random.below(40) as u8, 32_768 + self.random.below(28_000) as u16);
            let ends = again.unwrap_or(fresh);
            if self.sockets.get(&ends).is_none_or(|(_, until)| until.is_some()) {
                return ends;
            }
        }
    }

    fn start(&mut self, script: Script) {
        let ends = self.ends();
        let number = self.running.len();
        self.sockets.insert(ends, (number, None));
        self.running.push(Connection { ends, script, next: 0 });
        self.due.push(Reverse((self.now, number)));
    }

    /// Runs a connection up to its next wait.
    fn run(&mut self, number: usize) {
        loop {
            let Connection { ends, script, next } = &self.running[number];
            let (ends, at) = (*ends, *next);
            let (_, side, flags) = script.segments[at];
            let effect = self.segment(ends, side, flags);
            assert!(effect.passes(), "{side:?} {flags:#08b} of {ends:?} at {}: {effect:?}", self.now);
            // A stranger who guesses the ends sends segments in the peer's name, which the host ignores.
            if self.random.once_in(50) && at >= 2 && flags & (FIN | RST) == 0 {
                self.segment(ends, Theirs, RST);
                let ignored = self.segment(ends, Theirs, ACK);
                assert!(ignored.passes(), "after a forged reset of {ends:?} at {}: {ignored:?}", self.now);
                self.segment(ends, Theirs, RST);
                if self.daemon {
                    // The forged FIN causes an acknowledgement, and no FIN.
                    self.segment(ends, Theirs, FIN | ACK);
                    let ignored = self.segment(ends, Ours, ACK);
                    assert!(ignored.passes(), "after a forged FIN of {ends:?} at {}: {ignored:?}", self.now);
                }
            }
            self.running[number].next += 1;
            match self.running[number].script.segments.get(at + 1) {
                Some((0, ..)) => {}
                Some((wait, ..)) => return self.due.push(Reverse((self.now + wait, number))),
                None => return self.end(number),
            }
        }
    }

    fn end(&mut self, number: usize) {
        let Connection { ends, script, .. } = &mut self.running[number];
        script.segments = Vec::new();
        let (ends, end) = (*ends, script.end);
        match end {
            End::TimeWait => drop(self.sockets.insert(ends, (number, Some(self.now + TIME_WAIT)))),
            End::Gone | End::Silent => drop(self.sockets.remove(&ends)),
        }
        if end == End::Silent {
            self.silent.push(self.now);
        }
        self.ended.push(ends);
    }

    /// Lets time pass until `end`, with this number of connections and queries a second.
    fn lives(&mut self, end: u32, connections: f64, queries: f64) {
        let (mut owed, mut asked) = (0.0, 0.0);
        while self.now < end {
            owed += connections * f64::from(STEP);
            asked += queries * f64::from(STEP);
            while owed >= 1.0 {
                owed -= 1.0;
                let length = STEP * self.random.below(12) as u32;
                let script = Script::new(&mut self.random, length);
                self.start(script);
            }
            while asked >= 1.0 {
                asked -= 1.0;
                self.asks();
            }
            while let Some(Reverse((at, number))) = self.due.peek().copied()
                && at <= self.now
            {
                self.due.pop();
                self.run(number);
            }
            self.datapath.wait(STEP).expect("time goes by");
            self.now += STEP;
            if self.now.is_multiple_of(LOOK * STEP) {
                self.look();
            }
        }
    }

    /// Checks the table, with the daemon's sweep if there is a daemon.
    fn look(&mut self) {
        let now = self.now;
        self.sockets.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        let forgotten = if self.daemon { GONE } else { AGE + 5 * 60 };
        self.silent.retain(|at| at + forgotten > now);
        let socket = |key: &Key| {
            let (peer, port) = ((key.0[2] >> 32) as u8, (key.0[4] >> 48) as u16);
            if self.daemon { self.socket((peer, port)) } else { Some(false) }
        };
        let firm = self.datapath.sweep(socket);
        let open = self.sockets.values().filter(|(_, until)| until.is_none()).count();
        let allowed = open + self.silent.len();
        assert!(
            firm <= allowed,
            "at {now}: {firm} entries make no room; {open} open, {allowed} with those just gone"
        );
        // The most recently ended connections are tried again; all of them would need too much memory.
        let old = self.ended.len().saturating_sub(1_000);
        self.ended.drain(..old);
    }

    /// Returns `None` if there is no socket with these ends, and otherwise true if the socket has seen at
    /// most one FIN.
    fn socket(&self, ends: Endpoints) -> Option<bool> {
        let (number, until) = self.sockets.get(&ends)?;
        let Connection { script, next, .. } = &self.running[*number];
        let past = script.segments.get(..*next).unwrap_or_default();
        let ended = |of| past.iter().any(|(_, side, flags)| *side == of && flags & FIN != 0);
        Some(until.is_none() && !(ended(Ours) && ended(Theirs)))
    }

    /// Starts a pool of connections that only send keepalive probes.
    fn pool(&mut self, size: usize, length: u32) {
        for _ in 0..size {
            let script = Script::pooled(&mut self.random, length);
            self.start(script);
        }
    }
}

/// Returns the programs' key of a connection, which [`Server::look`] reads.
fn key((peer, port): Endpoints) -> Key {
    let address = |address: Ipv4Addr| [address.to_bits(), 0, 0, 0];
    Key::new(Family::V4, TCP, &address(HOST), port, &address(Ipv4Addr::new(10, 9, 2, peer)), DATABASE)
}

#[test]
fn fl_17_a_busy_week_cuts_nothing_and_leaves_nothing_behind() {
    let probe = key((7, 40_000));
    assert_eq!(((probe.0[2] >> 32) as u8, (probe.0[4] >> 48) as u16), (7, 40_000));
    let mut server = Server::new(true);
    server.pool(200, 7 * DAY);
    for day in 0..7 {
        let start = day * DAY;
        server.lives(start + 8 * HOUR, 0.1, 0.2);
        server.lives(start + 18 * HOUR, 1.5, 3.0);
        // The hour in which reports are made.
        server.lives(start + 19 * HOUR, 12.0, 20.0);
        server.lives(start + DAY, 0.1, 0.2);
    }
    println!("{} connections, {} packets", server.running.len(), server.packets);
    assert!(server.running.len() > 600_000, "{}", server.running.len());
}

/// The same without a daemon: only flows that ended silently stay until their age ends.
#[test]
fn fl_17_a_busy_day_without_a_daemon_cuts_nothing() {
    let mut server = Server::new(false);
    server.pool(200, DAY);
    server.lives(8 * HOUR, 2.0, 4.0);
    server.lives(10 * HOUR, 26.0, 40.0);
    server.lives(DAY, 0.5, 1.0);
    println!("{} connections, {} packets", server.running.len(), server.packets);
}
