//! Floods on the cable alongside hundreds of real flows, most of them idle.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use pomguard_tests::{
    daemon::{Connection, Daemon, LISTED, LISTED_OUT, Lab, PEER, PEER6, SERVER, SERVER6, UNLISTED},
    faults::{
        PacketCounter, Pair, THE_PEER, THE_SERVER, THE_STRANGER, TrafficGenerator, frames, report, times,
    },
    packet::{eth, ether, flag},
    random::Random,
};

/// The number of flows that the server has opened, half of them over IPv6.
const OUTBOUND: usize = 1_000;
/// The number of flows that others have opened, half of them over IPv6.
const INBOUND: usize = 200;
/// Packets a second of each flood.
const RATE: u32 = 40_000;
/// The number of source addresses of a flood, which alternate.
const SOURCES: usize = 4_096;

/// Opens this number of idle connections between the machines, half of them over IPv6.
fn idle(lab: &Lab, count: usize, outbound: bool) -> Vec<Connection> {
    let from = if outbound { &lab.server } else { &lab.peer };
    (0..count)
        .map(|number| match (outbound, number % 2) {
            (true, 0) => Connection::open(from, PEER, LISTED_OUT),
            (true, _) => Connection::open(from, PEER6, LISTED_OUT),
            (false, 0) => Connection::open(from, SERVER, LISTED),
            (false, _) => Connection::open(from, SERVER6, LISTED),
        })
        .collect()
}

/// Returns a random address that no machine has.
fn nobody(random: &mut Random) -> Pair {
    let word = random.word();
    let v4 = Ipv4Addr::from_bits(0xc612_0000 | word as u32 & 0x1_ffff);
    (v4, Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(word)))
}

#[test]
fn flows_outlive_floods_at_open_and_closed_ports() {
    let name = "flows_outlive_floods_at_open_and_closed_ports";
    let Some(lab) = Lab::new(name) else { return };
    let seconds = times("POMGUARD_FAULT_FLOOD", 10);
    // A port that everybody may open, like a portal's.
    lab.write_site(&format!(
        "[[allow]]\nname = \"portal\"\nfrom = [\"0.0.0.0/0\", \"::/0\"]\nto = [\"server\"]\nports = \"{UNLISTED}\"\n\
         protocol = \"tcp\"\nanywhere = true\n"
    ));
    let _daemon = Daemon::start(&lab);
    let mut connections = idle(&lab, OUTBOUND, true);
    connections.extend(idle(&lab, INBOUND, false));
    let before = lab.stats();
    let mut random = Random(1);
    let mut flood = |flags, port, per_source: usize| -> Vec<Vec<u8>> {
        let syn = |from, to| vec![eth().ip(from, to).tcp(5_000, port).flags(flags)];
        let made = frames(&lab.stranger, &lab.server, syn);
        (0..SOURCES / per_source).flat_map(|_| made(nobody(&mut random), THE_SERVER)).collect()
    };
    let syns = flood(flag::SYN, UNLISTED, 2);
    let denied =
        [flood(flag::SYN, LISTED, 4), flood(flag::ACK, LISTED, 4), flood(flag::RST, 8_080, 4)].concat();
    let datagrams = frames(&lab.stranger, &lab.server, |from, to| vec![eth().ip(from, to).udp(5_000, 53)]);
    let denied = [denied, datagrams(THE_STRANGER, THE_SERVER)].concat();
    let mut arrived = PacketCounter::new(&lab.server, THE_STRANGER, None);
    let offers = [
        TrafficGenerator::start(&lab.stranger, syns, RATE),
        TrafficGenerator::start(&lab.stranger, denied, RATE),
    ];

    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let mut handshakes = 0;
    while Instant::now() < until {
        assert!(Connection::open(&lab.peer, SERVER, LISTED).answers(), "FL-01: one more may connect");
        assert!(Connection::open(&lab.server, PEER6, LISTED_OUT).answers(), "FL-01: so may we");
        handshakes += 2;
        thread::sleep(Duration::from_millis(10));
    }
    let offered: Vec<u64> = offers.into_iter().map(TrafficGenerator::stop).collect();
    let lost = connections.iter_mut().filter_map(|it| (!it.answers()).then_some(())).count();
    assert_eq!(lost, 0, "FL-01, FL-03: of {} flows", connections.len());
    let after = lab.stats();
    assert_eq!(arrived.heard(), 0, "FL-03: of the stranger's datagrams");
    assert!(after.row("site/portal", "inbound", "packets") > before.row("site/portal", "inbound", "packets"));
    for known in ["source-known", "port-known", "no-flow-known", "client-port", "flow-table-full"] {
        assert_eq!(after.reason(known, "inbound", "drop"), 0, "{known}: {after}");
    }
    assert_eq!(after.total("outbound", "dropped"), 0, "{after}");
    report(&format!(
        "{seconds} s of floods: {} SYNs of {SOURCES} sources at an open port, {} packets at closed ones: 0 of {} idle \
         flows lost, {handshakes} of {handshakes} handshakes done",
        offered[0],
        offered[1],
        connections.len()
    ));
}

#[test]
fn flows_outlive_forged_resets_and_ends() {
    let Some(lab) = Lab::new("flows_outlive_forged_resets_and_ends") else { return };
    let seconds = times("POMGUARD_FAULT_FLOOD", 10);
    let _daemon = Daemon::start(&lab);
    let mut outbound = idle(&lab, 64, true);
    let mut inbound = idle(&lab, 64, false);
    // A forger who does not see the sequence numbers guesses them.
    let mut random = Random(1);
    let mut forged = Vec::new();
    for (connection, from, to) in outbound
        .iter()
        .map(|it| (it, it.peer().port(), it.local().port()))
        .chain(inbound.iter().map(|it| (it, it.local().port(), it.peer().port())))
    {
        for flags in [flag::RST, flag::FIN | flag::ACK, flag::RST | flag::ACK] {
            let segment = frames(&lab.stranger, &lab.server, |source, destination| {
                vec![eth().ip(source, destination).tcp(from, to).flags(flags)]
            })(THE_PEER, THE_SERVER);
            let v6 = usize::from(connection.peer().is_ipv6());
            let mut frame = segment[v6].clone();
            // Offset of sequence and acknowledgement number, after the link header, the network header and
            // the two ports.
            let sequence = if v6 == 1 { 58 } else { 38 };
            frame[sequence..sequence + 8].copy_from_slice(&random.word().to_be_bytes());
            forged.push(frame);
        }
    }
    let generator = TrafficGenerator::start(&lab.stranger, forged, RATE);
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let mut words = 0_usize;
    while Instant::now() < until {
        for connection in outbound.iter_mut().chain(&mut inbound) {
            assert!(connection.answers(), "FL-13: after {words} words");
            words += 1;
        }
    }
    let offered = generator.stop();
    let all = outbound.len() + inbound.len();
    let lost = outbound.iter_mut().chain(&mut inbound).filter_map(|it| (!it.answers()).then_some(())).count();
    assert_eq!(lost, 0, "FL-13: of {all} flows");
    report(&format!("{offered} forged resets and ends: 0 of {all} flows lost ({words} words)"));
}

#[test]
fn flows_outlive_floods_of_link_packets_and_icmp_errors() {
    let name = "flows_outlive_floods_of_link_packets_and_icmp_errors";
    let Some(lab) = Lab::new(name) else { return };
    let seconds = times("POMGUARD_FAULT_FLOOD", 5);
    let _daemon = Daemon::start(&lab);
    let mut connections = idle(&lab, 64, true);
    // FL-08, IC-22: errors that quote a live flow. "Host unreachable" is a hint, and ends no flow.
    let errors = connections.iter().filter_map(|it| {
        let (ours, theirs) = (it.local().port(), it.peer().port());
        let made = frames(&lab.stranger, &lab.server, |_, host| {
            let (router, to, kind, code): (IpAddr, IpAddr, u8, u8) = match host {
                IpAddr::V4(_) => (THE_STRANGER.0.into(), PEER.into(), 3, 1),
                IpAddr::V6(_) => (THE_STRANGER.1.into(), PEER6.into(), 1, 3),
            };
            let quoted = eth().ip(host, to).tcp(ours, theirs).quoted();
            vec![eth().ip(router, host).icmp(kind, code).payload(&quoted)]
        })(THE_STRANGER, THE_SERVER);
        made.into_iter().nth(usize::from(it.peer().is_ipv6()))
    });
    let errors: Vec<_> = errors.collect();
    // L2-03: malformed ARP, which the stack ignores, so that only the filter is tested.
    let arp = vec![eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 46]).build()];
    let offers = [
        TrafficGenerator::start(&lab.stranger, errors, RATE),
        TrafficGenerator::start(&lab.stranger, arp, RATE),
    ];
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let mut words = 0_usize;
    while Instant::now() < until {
        for connection in &mut connections {
            assert!(connection.answers(), "FL-08, IC-22, L2-03: after {words} words");
            words += 1;
        }
        assert!(Connection::open(&lab.server, PEER6, LISTED_OUT).answers(), "and one more");
    }
    let offered: Vec<u64> = offers.into_iter().map(TrafficGenerator::stop).collect();
    let after = lab.stats();
    let (related, arp) =
        (after.reason("icmp-related", "inbound", "pass"), after.reason("arp", "inbound", "pass"));
    let limited = after.reason("rate-limited", "inbound", "drop");
    assert!(limited > 0 && related > 0 && arp > 0, "{limited} {related} {arp}: {after}");
    // The default rates for one second, and for a second that has begun, on each processor.
    let most = |rate: u64| {
        rate * (seconds as u64 + 2) * thread::available_parallelism().map_or(1, |it| it.get() as u64)
    };
    assert!(related <= most(1_000) && arp <= most(10_000), "{related} {arp}: {after}");
    assert_eq!(after.total("outbound", "dropped"), 0, "{after}");
    report(&format!(
        "{seconds} s of floods: {} errors about {} flows, {} ARP packets: {limited} too many, 0 flows lost \
         ({words} words)",
        offered[0],
        connections.len(),
        offered[1]
    ));
}

#[test]
fn fl_16_attaching_during_a_flood_leaves_the_link_working() {
    let name = "fl_16_attaching_during_a_flood_leaves_the_link_working";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let made = frames(&lab.peer, &lab.server, |from, to| {
        vec![eth().ip(from, to).udp(5_000, 53), eth().ip(from, to).tcp(5_000, 8_080).flags(flag::RST)]
    })(THE_STRANGER, THE_SERVER);
    // As many packets as the machine can send.
    let offers = [0, 1].map(|_| TrafficGenerator::start(&lab.peer, made.clone(), u32::MAX));
    let mut judged = 0;
    for round in 1..=3 {
        let daemon = Daemon::start(&lab);
        assert_eq!(lab.stats().attached(), ["native"], "FL-16: round {round}");
        for (address, port) in [(IpAddr::from(SERVER), LISTED), (SERVER6.into(), LISTED)] {
            assert!(Connection::open(&lab.peer, address, port).answers(), "FL-16: round {round}");
        }
        assert!(Connection::open(&lab.server, PEER, LISTED_OUT).answers(), "FL-16: round {round}");
        let mut arrived = PacketCounter::new(&lab.server, THE_STRANGER, None);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(arrived.heard(), 0, "FL-16: round {round}");
        judged += lab.stats().total("inbound", "dropped");
        assert!(daemon.stop().success());
        assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    }
    let offered: u64 = offers.into_iter().map(TrafficGenerator::stop).sum();
    report(&format!(
        "attached three times under a flood: {offered} offered, {judged} dropped while attached, 0 delivered"
    ));
}
