//! Every packet is counted once, as passed or dropped.

use std::{
    env, fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use pomguard::policy::Direction;
use pomguard_netlab::Namespace;
use pomguard_tests::{
    daemon::{
        Claim, Connection, Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, PEER, SERVER, SERVER6, STRANGER,
        Settings, Stats, UNLISTED, Wire, is_shut, opens,
    },
    packet::eth,
    random::{Random, Stream},
};

/// Returns the packets that the interface sent, by the kernel's count. Packets for which the other end had no
/// room are not included.
fn sent(from: &Namespace) -> u64 {
    let table = from.run(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{INTERFACE}:")));
    // Eight numbers about received packets, then bytes and packets sent.
    line.and_then(|line| line.split_whitespace().nth(9)).unwrap().parse().unwrap()
}

/// Returns the packets that the peer and the server sent, and pomguard's counters, at a moment without
/// traffic.
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

    let mut connection = Connection::open(&lab.peer, SERVER, LISTED);
    for _ in 0..50 {
        assert!(connection.carries(&vec![7; 20_000], Duration::from_secs(5)));
    }
    assert!(opens(&lab.peer, SERVER6, LISTED) && opens(&lab.server, PEER, LISTED_OUT));
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && is_shut(&lab.server, PEER, UNLISTED));
    let socket = lab.peer.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for port in 1_000..1_500 {
        socket.send_to(b"scan", (SERVER, port)).unwrap();
        lab.claim((STRANGER, 1_024), (SERVER, port), Claim::Ack);
    }
    drop(connection);

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

/// Sends mixed frames, their number from `POMGUARD_ACCOUNT_PACKETS`. Every frame that the cable carries must
/// be counted once, under one reason.
fn mixed_packets_are_accounted_for(test: &str, attach: &'static str) {
    const FRAMES: usize = 20_000;
    const BATCH: usize = 32;
    let Some(lab) = Lab::with_one_cable(test) else { return };
    let asked = env::var("POMGUARD_ACCOUNT_PACKETS").ok();
    let packets: usize = asked.map_or(500_000, |text| text.parse().unwrap());
    let seed = 2026;
    lab.write_settings(&Settings { attach, ..Settings::default() });
    // The destination MAC address of the frames, so that the server's stack accepts what pomguard passes, and
    // answers.
    lab.server.link(INTERFACE).set_mac([2, 0, 0, 0, 0, 2]).unwrap();
    let _daemon = Daemon::start(&lab);
    let wire = Wire::of(&lab.peer);
    let mut stream = Stream::new(Random(seed));
    let mut frames: Vec<Vec<u8>> = Vec::new();
    while frames.len() < FRAMES {
        let frame = stream.frame(Direction::Inbound);
        // The lengths that a cable carries.
        if (15..1_500).contains(&frame.len()) {
            frames.push(frame);
        }
    }
    // Some frames are allowed: the server's stack answers, and the answers are counted outbound.
    for (at, port) in (0..FRAMES).step_by(10).zip((1_024..).cycle()) {
        frames[at] = eth().ipv4(PEER, SERVER).tcp(port, LISTED).build();
    }
    let (peer_before, server_before, before) = at_rest(&lab);
    let begun = Instant::now();
    let mut offered = 0;
    for batch in frames.chunks(BATCH).cycle() {
        if offered >= packets {
            break;
        }
        wire.send_all(batch);
        offered += batch.len();
    }
    let took = begun.elapsed();
    let (peer_after, server_after, after) = at_rest(&lab);
    let grown = |direction, field| after.total(direction, field) - before.total(direction, field);
    let carried = peer_after - peer_before;
    println!(
        "{test}: {offered} offered (seed {seed}, {took:.1?}), {carried} carried; inbound seen {}, passed {}, \
         dropped {}; outbound passed {}, left {}",
        grown("inbound", "seen"),
        grown("inbound", "passed"),
        grown("inbound", "dropped"),
        grown("outbound", "passed"),
        server_after - server_before,
    );
    assert_eq!(grown("inbound", "seen"), carried, "{after}");
    assert!(carried as usize > packets / 2, "the cable carries most of it");
    assert_eq!(grown("outbound", "passed"), server_after - server_before, "{after}");
    for direction in ["inbound", "outbound"] {
        let (passed, dropped) = (grown(direction, "passed"), grown(direction, "dropped"));
        assert_eq!(grown(direction, "seen"), passed + dropped, "{direction}: {after}");
        let (were, are) = (before.judged(direction), after.judged(direction));
        assert_eq!(are - were, passed + dropped, "{direction}: by reason: {after}");
    }
    assert!(grown("inbound", "passed") > 0 && grown("inbound", "dropped") > 0, "the load is mixed: {after}");
    assert!(grown("outbound", "passed") > 0, "the server answers: {after}");
}

#[test]
fn mixed_packets_are_accounted_for_one_by_one() {
    mixed_packets_are_accounted_for("mixed_packets_are_accounted_for_one_by_one", "native");
}

#[test]
fn mixed_packets_are_accounted_for_where_the_driver_has_no_xdp() {
    mixed_packets_are_accounted_for("mixed_packets_are_accounted_for_where_the_driver_has_no_xdp", "generic");
}
