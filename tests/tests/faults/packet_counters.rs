//! A test of the packet counter that other tests use: it counts every packet that its filter names, and no
//! other.

use pomguard_tests::{
    daemon::{Daemon, LISTED, Lab, UNLISTED},
    faults::{PacketCounter, Sender, THE_PEER, THE_SERVER, THE_STRANGER, frames},
    packet::{eth, flag},
};

#[test]
fn packet_counter_counts_what_an_open_server_gets_only() {
    let name = "packet_counter_counts_what_an_open_server_gets_only";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let packets = |from, to| {
        // Nobody answers a reset, so the machines add no packets of their own.
        let tcp = |port| eth().ip(from, to).tcp(40_000, port).flags(flag::RST);
        let udp = |port| eth().ip(from, to).udp(40_000, port).payload(b"?");
        vec![tcp(LISTED), tcp(UNLISTED), udp(UNLISTED), eth().ip(from, to).icmp(8, 0)]
    };
    let sender = Sender::at(&lab.peer);
    let send = |lab: &Lab, from| {
        for frame in frames(&lab.peer, &lab.server, packets)(from, THE_SERVER) {
            assert!(sender.send(&frame), "nothing guards the peer");
        }
    };
    let mut any = PacketCounter::new(&lab.server, THE_STRANGER, None);
    let mut one = PacketCounter::new(&lab.server, THE_STRANGER, Some(UNLISTED));
    let mut peer = PacketCounter::new(&lab.server, THE_PEER, Some(LISTED));
    let hear = |any: &mut PacketCounter, one: &mut PacketCounter, peer: &mut PacketCounter| {
        [any.heard(), one.heard(), peer.heard()]
    };

    send(&lab, THE_STRANGER);
    assert_eq!(hear(&mut any, &mut one, &mut peer), [6, 4, 0], "TCP and UDP, IPv4 and IPv6, of the stranger");
    send(&lab, THE_PEER);
    assert_eq!(hear(&mut any, &mut one, &mut peer), [6, 4, 2], "and of the peer at one port");

    let _daemon = Daemon::start(&lab);
    send(&lab, THE_STRANGER);
    send(&lab, THE_PEER);
    assert_eq!(
        hear(&mut any, &mut one, &mut peer),
        [6, 4, 4],
        "guarded: what the peer may, and nothing else"
    );
}
