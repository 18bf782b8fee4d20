//! Fragmented datagrams, reassembled by a real stack behind a guarded interface.

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use pomguard_common::protocol::{ICMPV6, UDP};
use pomguard_tests::{
    daemon::{Daemon, Lab, PEER6, SERVER6, STRANGER6},
    faults::{Sender, THE_PEER, THE_SERVER, frames},
    packet::eth,
};

/// The port at which the server answers.
const PORT: u16 = 5_300;
/// The row that allows the port.
const ROW: &str = "[[allow]]\nname = \"questions\"\nfrom = [\"10.77.0.2\", \"fd00:77::2\"]\nto = [\"server\"]\n\
                   ports = \"5300\"\nprotocol = \"udp\"\n";

/// The order in which the fragments of a datagram are sent.
#[derive(Clone, Copy, Debug)]
enum Order {
    Plain,
    Twice,
    /// With a different fragment that overlaps the end of the first and the beginning of the second.
    Overlapping,
}

/// Returns a datagram of 64 bytes of `content` in three fragments, for IPv4 and IPv6.
fn datagram(lab: &Lab, content: u8, order: Order) -> [Vec<Vec<u8>>; 2] {
    let id = u32::from(content);
    let pieces = frames(&lab.peer, &lab.server, |from, to| {
        let pieces = eth().ip(from, to).udp(40_000, PORT).payload(&[content; 64]).cut(id, &[24, 48]);
        match order {
            Order::Plain => pieces,
            Order::Twice => pieces.into_iter().flat_map(|piece| [piece.clone(), piece]).collect(),
            Order::Overlapping => {
                let other = eth().ip(from, to).protocol(UDP).fragment(id, 16, true).payload(&[9; 16]);
                [&pieces[..1], &[other], &pieces[1..]].concat()
            }
        }
    });
    let mut v4 = pieces(THE_PEER, THE_SERVER);
    let v6 = v4.split_off(v4.len() / 2);
    [v4, v6]
}

/// FR-01, FR-07, FR-08.
#[test]
fn fragmented_datagram_arrives_once_and_overlaps_do_not() {
    let name = "fragmented_datagram_arrives_once_and_overlaps_do_not";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    lab.write_site(ROW);
    let _daemon = Daemon::start(&lab);
    let socket = lab.server.run(|| UdpSocket::bind(("::", PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sender = Sender::at(&lab.peer);
    for family in [0, 1] {
        let send = |content: u8, order| {
            for frame in &datagram(&lab, content, order)[family] {
                assert!(sender.send(frame), "nothing guards the peer");
            }
        };
        let hear = |content: u8, what: &str| {
            let mut heard = [0; 256];
            let (length, _) = socket.recv_from(&mut heard).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(heard[..length], [content; 64], "{what}, family {family}");
        };
        send(1, Order::Plain);
        hear(1, "FR-01: pieces in order");
        send(2, Order::Twice);
        hear(2, "FR-07: each piece twice");
        send(3, Order::Overlapping);
        send(4, Order::Plain);
        hear(4, "FR-08: after one whose pieces overlap, which the host throws away");
    }
    let stats = lab.stats();
    assert_eq!(stats.drops("inbound"), [], "{stats}");
    // The four datagrams in turn, in each family: first fragments, then later fragments.
    assert_eq!(stats.row("site/questions", "inbound", "packets"), 2 * (1 + 2 + 1 + 1), "{stats}");
    assert_eq!(stats.reason("fragment", "inbound", "pass"), 2 * (2 + 4 + 3 + 2), "{stats}");
}

/// Returns the bytes of incomplete IPv6 datagrams in the server's stack.
fn reassembly_memory(lab: &Lab) -> u64 {
    let text = lab.server.run(|| fs::read_to_string("/proc/thread-self/net/sockstat6")).unwrap().unwrap();
    let line = text.lines().find(|line| line.starts_with("FRAG6:")).unwrap();
    line.split(' ').next_back().unwrap().parse().unwrap()
}

/// Case f12: later fragments after the first fragment of an echo request passed without any rate limit.
#[test]
fn fl_19_a_stranger_reserves_no_reassembly_memory() {
    const DATAGRAMS: u32 = 400;
    let name = "fl_19_a_stranger_reserves_no_reassembly_memory";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    lab.write_site(ROW);
    let stations = [&lab.peer, &lab.server].map(|at| at.link("eth0").state().unwrap().mac.unwrap());
    let ping = |id: u32, offset: u16| {
        let piece = eth().from(stations[0]).to(stations[1]).ip(STRANGER6.into(), SERVER6.into());
        let piece = piece.fragment(id, offset, true);
        match offset {
            0 => piece.icmp(128, 0).rest(1).payload(&[7; 1_224]).build(),
            _ => piece.protocol(ICMPV6).payload(&[7; 1_232]).build(),
        }
    };
    let sender = Sender::at(&lab.peer);
    let flood = |ids: std::ops::Range<u32>| {
        for id in ids {
            for number in 0..6 {
                assert!(sender.send(&ping(id, 1_232 * number)), "nothing guards the peer");
            }
        }
    };
    // Without a guard the host itself stores the fragments, which shows that the test measures the right
    // value. The first ones may be lost until the interface is up.
    let until = Instant::now() + Duration::from_secs(10);
    for round in 0.. {
        flood(10 * round..10 * (round + 1));
        thread::sleep(Duration::from_millis(50));
        if reassembly_memory(&lab) > 10 * 6 * 1_232 {
            break;
        }
        assert!(Instant::now() < until, "{} bytes for ten datagrams", reassembly_memory(&lab));
    }
    let unguarded = reassembly_memory(&lab);
    let _daemon = Daemon::start(&lab);
    let socket = lab.server.run(|| UdpSocket::bind((SERVER6, PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    flood(10_000..10_000 + DATAGRAMS);
    let guarded = reassembly_memory(&lab);
    assert!(guarded <= unguarded, "{guarded} bytes after the flood, {unguarded} before: {}", lab.stats());
    let asker = lab.peer.run(|| UdpSocket::bind((PEER6, 0))).unwrap().unwrap();
    for number in 0..10_u8 {
        asker.send_to(&[number; 4_000], (SERVER6, PORT)).unwrap();
        let mut heard = [0; 8_000];
        let length = socket.recv(&mut heard).expect("an allowed datagram in fragments arrives");
        assert_eq!(heard[..length], [number; 4_000]);
    }
    let stats = lab.stats();
    assert_eq!(stats.reason("icmp-type", "inbound", "drop"), u64::from(DATAGRAMS), "{stats}");
    assert_eq!(stats.reason("fragment-unknown", "inbound", "drop"), 5 * u64::from(DATAGRAMS), "{stats}");
}
