//! Packets larger than a frame: packets that the stack hands over unsegmented, and links with a large MTU.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use pomguard_tests::daemon::{
    Connection, Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, PEER, PEER6, SERVER, SERVER6, Settings, Stats,
    UNLISTED, is_shut, opens,
};

/// Bytes in one write.
const CHUNK: usize = 64_000;
const CHUNKS: usize = 16;
/// Length of the Ethernet, IPv4 and TCP headers with timestamps, in bytes.
const HEADERS_V4: u64 = 14 + 20 + 32;
/// Length of the Ethernet, IPv6 and TCP headers with timestamps, in bytes.
const HEADERS_V6: u64 = 14 + 40 + 32;
/// The largest frame at an MTU of 1,500 bytes.
const FRAME: u64 = 1_514;

fn carries_all(connection: &mut Connection) {
    let words = vec![7; CHUNK];
    for _ in 0..CHUNKS {
        assert!(connection.carries(&words, Duration::from_secs(20)));
    }
}

/// IP-14.
#[test]
fn large_outbound_packet_is_judged_once_with_all_its_bytes() {
    let name = "large_outbound_packet_is_judged_once_with_all_its_bytes";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    let _daemon = Daemon::start(&lab);
    for (peer, headers) in [(IpAddr::from(PEER), HEADERS_V4), (PEER6.into(), HEADERS_V6)] {
        let mut connection = Connection::open(&lab.server, peer, LISTED_OUT);
        assert!(connection.answers());
        let of = |stats: &Stats, field| stats.row("pom-4.0/6", "outbound", field);
        let before = lab.stats();
        carries_all(&mut connection);
        let after = lab.stats();
        let [packets, bytes] = ["packets", "bytes"].map(|field| of(&after, field) - of(&before, field));
        assert_eq!(bytes, (CHUNK * CHUNKS) as u64 + packets * headers, "{peer}: {packets} packets");
        assert!(bytes > packets * FRAME, "{peer}: {packets} packets of {bytes} bytes are none that is large");
    }
    assert_eq!(lab.stats().drops("outbound"), []);
}

/// Sends four large datagrams, an allowed and a denied one in each family, and returns the counts by reason.
fn datagrams(lab: &Lab) -> Vec<(&'static str, u64)> {
    let before = lab.stats();
    let socket = lab.server.run(|| UdpSocket::bind(("::", 5_300))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let from = lab.peer.run(|| UdpSocket::bind(("::", 0))).unwrap().unwrap();
    for server in [SERVER.to_ipv6_mapped(), SERVER6] {
        for port in [5_301, 5_300] {
            from.send_to(&[7; 8_000], (server, port)).unwrap();
        }
        let mut heard = [0; 16_000];
        assert_eq!(socket.recv(&mut heard).unwrap(), 8_000, "{server}");
    }
    let after = lab.stats();
    let counted = |(name, verdict)| {
        let of = |stats: &Stats| stats.reason(name, "inbound", verdict);
        (name, of(&after) - of(&before))
    };
    [("row", "pass"), ("fragment", "pass"), ("port-known", "drop"), ("fragment-unknown", "drop")]
        .into_iter()
        .map(counted)
        .collect()
}

/// IP-13: packets from TCP are clones, in many buffers and without headroom; many are larger than a frame.
#[test]
fn generic_mode_judges_like_native_in_any_buffer() {
    let name = "generic_mode_judges_like_native_in_any_buffer";
    let mut found = Vec::new();
    for attach in ["native", "generic"] {
        let Some(lab) = Lab::with_one_cable(name) else { return };
        lab.write_site(
            "[[allow]]\nname = \"questions\"\nfrom = [\"10.77.0.2\", \"fd00:77::2\"]\nto = [\"server\"]\n\
             ports = \"5300\"\nprotocol = \"udp\"\n",
        );
        lab.write_settings(&Settings { attach, ..Settings::default() });
        let _daemon = Daemon::start(&lab);
        assert_eq!(lab.stats().attached(), [attach]);
        found.push(datagrams(&lab));
        for server in [IpAddr::from(SERVER), SERVER6.into()] {
            carries_all(&mut Connection::open(&lab.peer, server, LISTED));
            assert!(is_shut(&lab.peer, server, UNLISTED), "{attach}");
        }
        for peer in [IpAddr::from(PEER), PEER6.into()] {
            carries_all(&mut Connection::open(&lab.server, peer, LISTED_OUT));
            assert!(is_shut(&lab.server, peer, UNLISTED), "{attach}");
        }
        let stats = lab.stats();
        let [packets, bytes] = ["packets", "bytes"].map(|field| stats.row("pom-4.0/15", "inbound", field));
        let large = bytes > packets * FRAME;
        // XDP in the driver disables segmentation at the other end; generic XDP does not.
        assert_eq!(large, attach == "generic", "{attach}: {packets} packets of {bytes} bytes");
        let seen = stats.total("inbound", "seen");
        assert_eq!(seen, stats.total("inbound", "passed") + stats.total("inbound", "dropped"), "{stats}");
    }
    assert_eq!(found[0], found[1], "native, generic");
    let pieces = |reason: &str| found[0].iter().find(|(name, _)| *name == reason).unwrap().1;
    assert!(pieces("fragment") >= 8 && pieces("fragment-unknown") == pieces("fragment"), "{found:?}");
}

/// IP-12, as far as a cable without hardware allows.
#[test]
fn large_frames_are_refused_natively_and_judged_generically() {
    let name = "large_frames_are_refused_natively_and_judged_generically";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    for machine in [&lab.server, &lab.peer] {
        machine.link(INTERFACE).set_mtu(9_000).unwrap();
    }
    lab.write_settings(&Settings { attach: "native", ..Settings::default() });
    let mut daemon = Daemon::spawn(&lab);
    assert_eq!(daemon.wait_end().code(), Some(1), "{}", daemon.log());
    let log = daemon.log();
    assert!(
        log.contains(
            "eth0 does not take native XDP (Numerical result out of range (os error 34): the driver says \"veth: Peer MTU is too large to set XDP\"; `ip link set dev eth0 mtu 1500`"
        ),
        "{log}"
    );
    assert!(lab.xdp_program().is_none(), "nothing is attached");
    lab.write_settings(&Settings::default());
    let daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attached(), ["generic"]);
    assert!(daemon.log().contains("Peer MTU is too large to set XDP"), "told again: {}", daemon.log());
    for server in [IpAddr::from(SERVER), SERVER6.into()] {
        carries_all(&mut Connection::open(&lab.peer, server, LISTED));
        assert!(is_shut(&lab.peer, server, UNLISTED));
    }
    assert!(opens(&lab.server, PEER, LISTED_OUT));
    assert_eq!(lab.stats().reason("truncated", "inbound", "drop"), 0, "every header was read");
}
