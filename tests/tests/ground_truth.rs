//! A stock Linux host answers many shapes of packets. With pomguard no peer that is not allowed gets an
//! answer, whatever the shape. The tests use a real listener at a port that no row lists, first without
//! pomguard, then with pomguard.

#![expect(clippy::unwrap_used, reason = "a panic keeps the place where it happened")]

use std::{
    collections::HashSet,
    fs,
    net::{Ipv6Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use pomguard_tests::{
    daemon::{Daemon, INTERFACE, LISTED, Lab, PEER, PEER6, SERVER, SERVER6, Settings, UNLISTED, Wire},
    packet::eth,
    random::Random,
    shapes::{Doors, Shape, shapes},
};

/// The MAC addresses that [`eth`] uses.
const STATIONS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
/// A port without a listener.
const CLOSED: u16 = UNLISTED + 1;
/// The number of shapes with several oddities, per family.
const MIXED: usize = 300;
const SEED: u64 = 2026;

/// Returns every shape, for IPv4 and IPv6.
fn all_shapes() -> Vec<Shape> {
    let doors = |from, to| Doors { from, to, open: UNLISTED, closed: CLOSED };
    let mut random = Random(SEED);
    let mut all = shapes(doors(PEER.into(), SERVER.into()), 20_000, &mut random, MIXED);
    all.extend(shapes(doors(PEER6.into(), SERVER6.into()), 40_000, &mut random, MIXED));
    all
}

/// Sets fixed MAC addresses and neighbours, so that no address resolution occurs between question and answer.
fn introduce(lab: &Lab) {
    let (peer, server) = (lab.peer.link(INTERFACE), lab.server.link(INTERFACE));
    peer.set_mac(STATIONS.0).unwrap();
    server.set_mac(STATIONS.1).unwrap();
    for address in [PEER.into(), PEER6.into()] {
        server.add_neighbour(address, STATIONS.0).unwrap();
    }
    for address in [SERVER.into(), SERVER6.into()] {
        peer.add_neighbour(address, STATIONS.1).unwrap();
    }
    // A host that limits the rate of its ICMP errors would seem not to answer.
    lab.server.set_sysctl("net/ipv4/icmp_ratelimit", "0").unwrap();
    lab.server.set_sysctl("net/ipv6/icmp/ratelimit", "0").unwrap();
    lab.server.set_sysctl("net/ipv4/icmp_msgs_per_sec", "100000").unwrap_or_default();
}

/// Answers every UDP datagram to the unlisted port.
fn answer_udp(lab: &Lab) {
    let socket = lab.server.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, UNLISTED))).unwrap().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// Returns true if a frame is an IP packet of the server that does not belong to the link's services.
fn is_answer(frame: &[u8]) -> bool {
    let from_server = frame.get(6..12) == Some(&STATIONS.1[..]);
    let neighbours = frame.get(12..14) == Some(&[0x86, 0xdd])
        && frame.get(20) == Some(&58)
        && matches!(frame.get(54), Some(130..=137 | 143));
    from_server && matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd])) && !neighbours
}

/// Returns true if a frame contains the mark of a shape.
fn shows(frame: &[u8], mark: u16) -> bool {
    frame[14..].windows(2).any(|two| two == mark.to_be_bytes())
}

/// Returns an own address of the server whose third group equals the EtherType of IPv4, and whose last bytes
/// equal the beginning of an IPv4 header. A packet from this address to a group, without an Ethernet header,
/// begins like a frame that carries UDP to the server itself. `id` is free.
fn spelling(id: u16) -> Ipv6Addr {
    let total = 26 + TWIN_PAYLOAD;
    Ipv6Addr::new(0xfd00, 0x77, 0x0800, 0x4500, total, id, 0x4000, 0x4011)
}

/// Number of bytes after the IPv6 header of such a packet: a UDP checksum and its data.
const TWIN_PAYLOAD: u16 = 20;
/// The destination MAC address of the frame: the first bytes of that IPv6 header.
const TWIN_STATION: [u8; 6] = [0x60, 0, 0, 0, 0, TWIN_PAYLOAD as u8];

/// Returns the forged twin of the server's own multicast, and the server's address in it. Without an Ethernet
/// header the bytes are IPv6 from that address to a group; with an Ethernet header they are UDP from the peer
/// to an unlisted port.
fn datapath(mark: u16) -> (Ipv6Addr, Vec<u8>) {
    let [from, to] = [PEER, SERVER].map(|address| address.octets());
    // The header's checksum is at the position where the group address begins.
    let found = (0..=u16::MAX).find_map(|id| {
        let own = spelling(id);
        let header = [&own.octets()[6..], &[0, 0], &from, &to].concat();
        let sum: u32 = header.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        (sum >> 8 == 0xff).then_some((own, sum))
    });
    let (own, sum) = found.unwrap();
    let mut frame = TWIN_STATION.to_vec();
    frame.extend([17, 64]);
    frame.extend(own.octets());
    frame.extend(sum.to_be_bytes());
    frame.extend([from, to].concat());
    frame.extend([mark, UNLISTED, 6 + TWIN_PAYLOAD].map(u16::to_be_bytes).concat());
    frame.extend([0; TWIN_PAYLOAD as usize]);
    (own, frame)
}

/// Returns true if the server answers a shape within a time.
fn is_answered(wire: &Wire, shape: &Shape, patience: Duration) -> bool {
    for frame in &shape.frames {
        wire.send(frame);
    }
    let until = Instant::now() + patience;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if wire.next(left).is_some_and(|frame| is_answer(&frame) && shows(&frame, shape.mark)) {
            return true;
        }
    }
    false
}

fn nobody_is_answered(test: &str, attach: &'static str) {
    let Some(lab) = Lab::with_one_cable(test) else { return };
    introduce(&lab);
    answer_udp(&lab);
    let wire = Wire::of(&lab.peer);
    let shapes = all_shapes();
    let answered: HashSet<u16> = shapes
        .iter()
        .filter(|shape| is_answered(&wire, shape, Duration::from_millis(25)))
        .map(|shape| shape.mark)
        .collect();
    println!("{test}: the stock host answers {} of {} shapes (seed {SEED})", answered.len(), shapes.len());
    assert!(answered.len() > 300, "the host is deaf, or the shapes are");

    lab.write_settings(&Settings { attach, ..Settings::default() });
    let _daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attached(), [attach]);
    let before = lab.stats().total("inbound", "dropped");
    for shape in &shapes {
        for frame in &shape.frames {
            wire.send(frame);
        }
    }
    let plain = Shape {
        name: "a SYN to a listed port".to_owned(),
        mark: 60_000,
        frames: vec![eth().ipv4(PEER, SERVER).tcp(60_000, LISTED).build()],
    };
    let mut heard = Vec::new();
    let until = Instant::now() + Duration::from_secs(2);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        heard.extend(wire.next(left).filter(|frame| is_answer(frame)));
    }
    let message: Vec<&str> = shapes
        .iter()
        .filter(|shape| heard.iter().any(|frame| shows(frame, shape.mark)))
        .map(|shape| shape.name.as_str())
        .collect();
    println!("{test}: with pomguard ({attach}) it answers {}", heard.len());
    assert!(heard.is_empty(), "answers with pomguard in force, maybe to {message:?}: {heard:02x?}");
    let frames: usize = shapes.iter().map(|shape| shape.frames.len()).sum();
    let dropped = lab.stats().total("inbound", "dropped") - before;
    assert!(dropped >= frames as u64, "{dropped} of {frames} frames were dropped: {}", lab.stats());
    assert!(is_answered(&wire, &plain, Duration::from_secs(5)), "{}: the wire is dead", plain.name);
}

#[test]
fn no_packet_shape_gets_an_answer_from_an_unlisted_port() {
    nobody_is_answered("no_packet_shape_gets_an_answer_from_an_unlisted_port", "native");
}

#[test]
fn nor_does_it_where_the_driver_has_no_xdp() {
    nobody_is_answered("nor_does_it_where_the_driver_has_no_xdp", "generic");
}

/// Case f08: in generic mode XDP sees the host's own multicast without an Ethernet header.
#[test]
fn f08_the_forged_twin_of_own_multicast_gets_no_answer() {
    const MARK: u16 = 40_404;
    let name = "f08_the_forged_twin_of_own_multicast_gets_no_answer";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    introduce(&lab);
    answer_udp(&lab);
    let (own, frame) = datapath(MARK);
    let server = lab.server.link(INTERFACE);
    server.set_mac(TWIN_STATION).unwrap();
    server.add_address(ipnet::IpNet::new(own.into(), 64).unwrap()).unwrap();
    let wire = Wire::of(&lab.peer);
    let is_answered = |patience: Duration| {
        wire.send(&frame);
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let heard = wire.next(left);
            if heard.is_some_and(|it| it[6..12] == TWIN_STATION && it[12..14] == [8, 0] && shows(&it, MARK)) {
                return true;
            }
        }
        false
    };
    assert!(is_answered(Duration::from_secs(2)), "the stock host does not answer: the twin is none");

    let site = fs::read_to_string(lab.site()).unwrap();
    fs::write(lab.site(), site.replacen("\"fd00:77::1\"", &format!("\"fd00:77::1\", \"{own}\""), 1)).unwrap();
    for attach in ["generic", "native"] {
        lab.write_settings(&Settings { attach, ..Settings::default() });
        let daemon = Daemon::start(&lab);
        assert_eq!(lab.stats().attached(), [attach]);
        let before = lab.stats();
        assert!(!is_answered(Duration::from_millis(500)), "{attach}: {}", lab.stats());
        let stats = lab.stats();
        assert_eq!(
            stats.total("inbound", "dropped") - before.total("inbound", "dropped"),
            1,
            "{attach}: {stats}"
        );
        assert_eq!(stats.reason("own-multicast", "inbound", "pass"), 0, "{attach}: {stats}");
        assert!(daemon.stop().success());
        assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    }
}
