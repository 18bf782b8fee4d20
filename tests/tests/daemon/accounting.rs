//! Every packet is counted, once, as passed or dropped.

use std::{fs, net::UdpSocket, thread, time::Duration};

use pomguard_netlab::Namespace;
use pomguard_tests::daemon::{
    Claim, Conversation, Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, PEER, SERVER, SERVER6, STRANGER, Stats,
    UNLISTED, is_shut, opens,
};

/// Packets that the interface sent, by the kernel's count.
fn sent(from: &Namespace) -> u64 {
    let table = from.run(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{INTERFACE}:")));
    // Eight numbers of what was received, then bytes and packets of what was sent.
    line.and_then(|line| line.split_whitespace().nth(9)).unwrap().parse().unwrap()
}

/// What the peer and the server sent, and what pomguard counted, at a moment when nothing moves.
fn at_rest(lab: &Lab) -> (u64, u64, Stats) {
    for _ in 0..100 {
        let before = (sent(&lab.peer), sent(&lab.server));
        let stats = lab.stats();
        thread::sleep(Duration::from_millis(50));
        if before == (sent(&lab.peer), sent(&lab.server)) {
            return (before.0, before.1, stats);
        }
    }
    panic!("the cable never comes to rest");
}

#[test]
fn packets_sent_are_packets_seen_are_packets_passed_and_dropped() {
    let Some(lab) = Lab::with_one_cable("packets_sent_are_packets_seen_are_packets_passed_and_dropped")
    else {
        return;
    };
    let _daemon = Daemon::start(&lab);
    let (peer_before, server_before, before) = at_rest(&lab);

    let mut conversation = Conversation::open(&lab.peer, SERVER, LISTED);
    for _ in 0..50 {
        assert!(conversation.carries(&vec![7; 20_000], Duration::from_secs(5)));
    }
    assert!(opens(&lab.peer, SERVER6, LISTED) && opens(&lab.server, PEER, LISTED_OUT));
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && is_shut(&lab.server, PEER, UNLISTED));
    let socket = lab.peer.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for port in 1_000..1_500 {
        socket.send_to(b"scan", (SERVER, port)).unwrap();
        lab.claim((STRANGER, 1_024), (SERVER, port), Claim::Ack);
    }
    drop(conversation);

    let (peer_after, server_after, after) = at_rest(&lab);
    let grown = |direction, field| after.total(direction, field) - before.total(direction, field);
    assert_eq!(grown("inbound", "seen"), peer_after - peer_before, "what the peer sent was seen: {after}");
    assert_eq!(grown("outbound", "passed"), server_after - server_before, "what passed left: {after}");
    for direction in ["inbound", "outbound"] {
        let (passed, dropped) = (grown(direction, "passed"), grown(direction, "dropped"));
        assert_eq!(grown(direction, "seen"), passed + dropped, "{direction}: {after}");
        assert!(passed > 0 && dropped > 0, "{direction}: the load is mixed: {after}");
    }
    assert!(grown("inbound", "dropped") >= 1_000, "{after}");
}
