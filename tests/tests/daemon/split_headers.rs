//! Outbound packets whose headers do not lie together in the kernel's memory.

use std::net::IpAddr;

use pomguard_tests::{
    daemon::{Daemon, INTERFACE, LISTED, Lab, PEER, PEER6, SERVER, SERVER6, Settings, Wire, opens},
    packet::{eth, flag::ACK},
};

/// A packet longer than a page: the kernel splits no shorter one.
const LONG: usize = 5_000;

#[test]
fn headers_that_are_split_are_read_as_if_they_were_not() {
    let Some(lab) = Lab::with_one_cable("headers_that_are_split_are_read_as_if_they_were_not") else {
        return;
    };
    for machine in [&lab.server, &lab.peer] {
        machine.link(INTERFACE).set_mtu(9_000).unwrap();
    }
    lab.write_settings(&Settings { attach: "generic", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED) && opens(&lab.peer, IpAddr::from(SERVER6), LISTED));
    let mac = |machine: &pomguard_netlab::Namespace| machine.link(INTERFACE).state().unwrap().mac.unwrap();
    let bare = || eth().from(mac(&lab.server)).to(mac(&lab.peer));
    let replies = [bare().ipv4(SERVER, PEER), bare().ipv6(SERVER6, PEER6)]
        .map(|packet| packet.tcp(LISTED, 40_000).flags(ACK).payload(&[7; LONG]).build());
    let wire = Wire::of(&lab.server);
    // Every length of the linear part from the link header on, over both shapes of headers.
    for reply in &replies {
        for linear in 14..80 {
            let before = lab.stats();
            wire.send_split(reply, linear);
            let stats = lab.stats();
            let more = |name, verdict| {
                stats.reason(name, "outbound", verdict) - before.reason(name, "outbound", verdict)
            };
            assert_eq!(more("truncated", "drop"), 0, "{linear} bytes together: {stats}");
            assert!(more("peer-flow", "pass") >= 1, "{linear} bytes together: {stats}");
        }
    }
    assert!(daemon.stop().success());
}
