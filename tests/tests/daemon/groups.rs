//! A multicast group that a process of the server has joined.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    thread,
    time::Duration,
};

use pomguard_common::protocol::IGMP;
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, Lab, PEER, SERVER, Stats},
    faults::Sender,
    packet::{eth, extension},
};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
/// Link-local address of a router.
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);

/// Computes the Internet checksum of a message.
fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

/// Returns queries to all groups that require an answer within a tenth of a second.
fn queries() -> [Vec<u8>; 2] {
    let mut igmp = [0x11, 1, 0, 0, 0, 0, 0, 0];
    let checksum = sum(&igmp);
    igmp[2..4].copy_from_slice(&checksum);
    let v4 = eth()
        .to([1, 0, 0x5e, 0, 0, 1])
        .ipv4(PEER, Ipv4Addr::new(224, 0, 0, 1))
        .ip_options(&[0x94, 4, 0, 0])
        .hops(1)
        .protocol(IGMP)
        .payload(&igmp);
    let v6 = eth()
        .to([0x33, 0x33, 0, 0, 0, 1])
        .ipv6(ROUTER6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))
        .hops(1)
        .ext_header(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0])
        .icmp(130, 0)
        .rest(100 << 16)
        .payload(&[0; 16]);
    [v4.build(), v6.build()]
}

#[test]
fn ud_08_group_queries_reach_a_member_and_its_reports_leave() {
    let name = "ud_08_group_queries_reach_a_member_and_its_reports_leave";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let _daemon = Daemon::start(&lab);
    let passed = |stats: &Stats, direction| stats.reason("group-membership", direction, "pass");
    let until = |what: &str, so: &dyn Fn(&Stats) -> bool| {
        for _ in 0..250 {
            let stats = lab.stats();
            if so(&stats) {
                return stats;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("never: {what}: {}", lab.stats())
    };
    let index = lab.server.link(INTERFACE).index().unwrap();
    let before = lab.stats();
    let joined = lab.server.run(|| {
        let (v4, v6) = (UdpSocket::bind(("0.0.0.0", 0)).unwrap(), UdpSocket::bind(("::", 0)).unwrap());
        v4.join_multicast_v4(&GROUP, &SERVER).unwrap();
        v6.join_multicast_v6(&GROUP6, index).unwrap();
        (v4, v6)
    });
    let _joined = joined.unwrap();
    let mut reported = until("reports of having joined", &|stats| {
        passed(stats, "outbound") >= passed(&before, "outbound") + 2
    });
    let sender = Sender::at(&lab.peer);
    for query in queries() {
        assert!(sender.send(&query), "nothing guards the peer");
        let (asked, message) = (passed(&reported, "inbound"), passed(&reported, "outbound"));
        reported = until("a report to a query", &|stats| {
            passed(stats, "inbound") > asked && passed(stats, "outbound") > message
        });
    }
    assert_eq!(reported.drops("inbound"), [], "{reported}");
    assert_eq!(reported.drops("outbound"), [], "{reported}");
}
