//! A guarded server under load, and the assertions that must hold under this load.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pomguard_netlab::Namespace;

use super::{Fared, Flows, PacketCounter, TrafficGenerator};
use crate::{
    daemon::{INTERFACE, LISTED, Lab, PEER, PEER6, SERVER, SERVER6, STRANGER, STRANGER6, Stats, UNLISTED},
    packet::{Packet, eth, flag},
};

/// An address of each family.
pub type Pair = (Ipv4Addr, Ipv6Addr);

/// The addresses of the server.
pub const THE_SERVER: Pair = (SERVER, SERVER6);
/// The addresses of the machine that the site file knows.
pub const THE_PEER: Pair = (PEER, PEER6);
/// The addresses of the machine that the site file does not know.
pub const THE_STRANGER: Pair = (STRANGER, STRANGER6);

/// The only expected reasons for drops, by direction: the reasons of the denied packets that the load sends.
const EXPECTED: [(&str, &[&str]); 2] =
    [("inbound", &["port", "source", "no-flow", "port-known"]), ("outbound", &["destination"])];

/// A constant stream of denied packets (from a stranger to listed and unlisted ports, from the known peer to
/// unlisted ports, from the server to the stranger), and a number of allowed flows.
#[derive(Debug)]
pub struct Load {
    flows: Flows,
    offers: Vec<TrafficGenerator>,
    ears: Vec<(&'static str, PacketCounter)>,
    before: Stats,
}

/// The result of a load.
#[derive(Debug)]
pub struct LoadResult {
    /// Denied packets that were sent.
    pub offered: u64,
    /// Denied packets that a program judged.
    pub dropped: u64,
    /// Denied packets that reached a machine's stack.
    pub delivered: u64,
    /// Results of the allowed flows.
    pub fared: Fared,
}

impl Load {
    /// Starts a load on a guarded server: `flows` flows, and about `per_second` denied packets a second in
    /// all, of which the stranger sends three fifths and the peer and the server one fifth each.
    pub fn start(lab: &Lab, flows: usize, per_second: u32) -> Self {
        let flows = Flows::open(lab, flows);
        let before = lab.stats();
        let ears = vec![
            ("the stranger's at the server", PacketCounter::new(&lab.server, THE_STRANGER, None)),
            ("the peer's at an unlisted port", PacketCounter::new(&lab.server, THE_PEER, Some(UNLISTED))),
            ("the server's at the stranger", PacketCounter::new(&lab.stranger, THE_SERVER, None)),
        ];
        let stranger = frames(&lab.stranger, &lab.server, |from, to| {
            let tcp = |port, flags| eth().ip(from, to).tcp(40_000, port).flags(flags);
            let syns = [LISTED, UNLISTED, 22].map(|port| tcp(port, flag::SYN));
            let claims = [flag::ACK, flag::SYN | flag::ACK, flag::FIN | flag::ACK, flag::RST]
                .map(|it| tcp(LISTED, it));
            let datagrams =
                [LISTED, UNLISTED, 53].map(|port| eth().ip(from, to).udp(40_000, port).payload(b"?"));
            syns.into_iter().chain(claims).chain(datagrams).collect()
        });
        let opening = |from, to| {
            let syn = eth().ip(from, to).tcp(40_001, UNLISTED).flags(flag::SYN);
            vec![syn, eth().ip(from, to).udp(40_001, UNLISTED).payload(b"?")]
        };
        let offers = vec![
            TrafficGenerator::start(&lab.stranger, stranger(THE_STRANGER, THE_SERVER), per_second * 3 / 5),
            TrafficGenerator::start(
                &lab.peer,
                frames(&lab.peer, &lab.server, opening)(THE_PEER, THE_SERVER),
                per_second / 5,
            ),
            TrafficGenerator::start(
                &lab.server,
                frames(&lab.server, &lab.stranger, opening)(THE_SERVER, THE_STRANGER),
                per_second / 5,
            ),
        ];
        Self { flows, offers, ears, before }
    }

    /// Asserts that no denied packet has got through until now.
    pub fn assert_none_delivered(&mut self, when: &str) {
        for (whose, counter) in &mut self.ears {
            assert_eq!(counter.heard(), 0, "{when}: denied packets got through, {whose}");
        }
    }

    /// Ends the load. Asserts that no allowed packet was dropped: packets were dropped only for the expected
    /// reasons.
    pub fn finish(mut self, lab: &Lab, when: &str) -> LoadResult {
        let offered = self.offers.drain(..).map(TrafficGenerator::stop).sum();
        let stats = lab.stats();
        stats.assert_not_behind(&self.before);
        let mut dropped = 0;
        for (direction, expected) in EXPECTED {
            for (reason, packets) in stats.drops(direction) {
                assert!(
                    expected.contains(&reason.as_str()),
                    "{when}: {packets} dropped, {direction} {reason}: {stats}"
                );
            }
            dropped += stats.total(direction, "dropped") - self.before.total(direction, "dropped");
        }
        let delivered = self.ears.iter_mut().map(|(_, counter)| counter.heard()).sum();
        LoadResult { offered, dropped, delivered, fared: self.flows.close() }
    }
}

impl LoadResult {
    /// Asserts that no denied packet was delivered and no flow was lost. Returns a report with the counts.
    pub fn assert_none_delivered_none_lost(&self) -> String {
        let Self { offered, dropped, delivered, fared } = self;
        assert_eq!(*delivered, 0, "denied packets delivered, of {offered}");
        assert!(
            fared.lost.is_empty(),
            "{} of {} flows lost: {:?}",
            fared.lost.len(),
            fared.flows,
            fared.lost
        );
        assert!(fared.words > fared.flows as u64, "the flows were used: {} words", fared.words);
        assert!(*dropped > 0, "none of {offered} was judged");
        format!(
            "0 denied delivered of {offered} offered, 0 of {} flows lost ({} words)",
            fared.flows, fared.words
        )
    }
}

/// Writes packets between two machines as frames, over both families.
pub fn frames(
    from: &Namespace,
    to: &Namespace,
    packets: impl Fn(IpAddr, IpAddr) -> Vec<Packet>,
) -> impl Fn(Pair, Pair) -> Vec<Vec<u8>> {
    let mac = |machine: &Namespace| machine.link(INTERFACE).state().unwrap().mac.unwrap();
    let (near, far) = (mac(from), mac(to));
    move |source, destination| {
        let v4 = packets(source.0.into(), destination.0.into());
        let v6 = packets(source.1.into(), destination.1.into());
        v4.into_iter().chain(v6).map(|packet| packet.from(near).to(far).build()).collect()
    }
}
