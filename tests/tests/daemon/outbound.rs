//! Connections that the server opens: only answers to them come in.

use std::{net::UdpSocket, time::Duration};

use pomguard_tests::daemon::{
    Claim, Connection, Daemon, LISTED, LISTED_OUT, Lab, PEER, PEER6, SERVER, SERVER6, STRANGER, Settings,
    UNLISTED, is_shut, opens, pings,
};

#[test]
fn what_answers_a_flow_that_nobody_opened_is_dropped() {
    let Some(lab) = Lab::new("what_answers_a_flow_that_nobody_opened_is_dropped") else { return };
    let _daemon = Daemon::start(&lab);
    let mut asked = Connection::open(&lab.server, PEER, LISTED_OUT);
    assert!(asked.answers(), "a listed destination answers");
    for (claims, claim) in [Claim::SynAck, Claim::Ack].into_iter().enumerate() {
        lab.claim((PEER, LISTED_OUT), (SERVER, 40_000), claim);
        lab.claim((STRANGER, LISTED_OUT), (SERVER, 40_000), claim);
        let stats = lab.stats();
        let expected = claims as u64 + 1;
        assert_eq!(
            stats.reason("no-flow-known", "inbound", "drop"),
            expected,
            "{claim:?} from the peer: {stats}"
        );
        assert_eq!(stats.reason("no-flow", "inbound", "drop"), expected, "{claim:?} from nobody: {stats}");
    }
    assert!(asked.answers(), "the flow goes on");
}

#[test]
fn udp_question_is_answered_from_the_asked_port_only() {
    let Some(lab) = Lab::new("udp_question_is_answered_from_the_asked_port_only") else {
        return;
    };
    lab.write_site(
        "[[allow]]\nname = \"names\"\nfrom = [\"server\"]\nto = [\"10.77.0.2\"]\nports = \"53\"\nprotocol = \"udp\"\n",
    );
    let _daemon = Daemon::start(&lab);
    let bind = |namespace: &pomguard_netlab::Namespace, port: u16| {
        let socket = namespace.run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    };
    let (asking, names, other) = (bind(&lab.server, 0), bind(&lab.peer, 53), bind(&lab.peer, 5_353));
    asking.send_to(b"who?", (PEER, 53)).unwrap();
    let mut heard = [0; 16];
    let (_, asker) = names.recv_from(&mut heard).unwrap();
    // Sends the false answer first: only the true answer may arrive.
    other.send_to(b"false", asker).unwrap();
    names.send_to(b"true", asker).unwrap();
    let (length, from) = asking.recv_from(&mut heard).unwrap();
    assert_eq!((&heard[..length], from.port()), (&b"true"[..], 53));
    let stats = lab.stats();
    assert_eq!(stats.total("inbound", "dropped"), 1, "the false answer, and nothing else: {stats}");
    assert_eq!(stats.row("site/names", "outbound", "connections"), 1, "{stats}");
}

#[test]
fn echo_requests_that_track_lets_leave_get_their_replies() {
    let Some(lab) = Lab::new("echo_requests_that_track_lets_leave_get_their_replies") else { return };
    lab.write_settings(&Settings { outbound: "track", ..Settings::default() });
    let _daemon = Daemon::start(&lab);
    assert!(pings(&lab.server, PEER), "over IPv4");
    assert!(pings(&lab.server, PEER6), "over IPv6");
    assert!(!pings(&lab.stranger, SERVER), "no row lists echo requests over IPv4");
    assert!(pings(&lab.stranger, SERVER6), "over IPv6 they are not to be dropped (RFC 4890)");
}

#[test]
fn basic_neighbours_find_each_other_from_a_cold_cache() {
    let Some(lab) = Lab::new("basic_neighbours_find_each_other_from_a_cold_cache") else { return };
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.server, PEER, LISTED_OUT), "the server asks first, IPv4");
    assert!(opens(&lab.server, PEER6, LISTED_OUT), "the server asks first, IPv6");
    // The stranger's address resolution is answered, too, whatever happens to its other packets.
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED) && is_shut(&lab.stranger, SERVER6, UNLISTED));
    let stats = lab.stats();
    for direction in ["inbound", "outbound"] {
        for reason in ["arp", "neighbour-discovery"] {
            assert!(stats.reason(reason, direction, "pass") > 0, "{direction} {reason}: {stats}");
        }
    }
    assert!(stats.reason("port", "inbound", "drop") > 0, "the stranger found the server: {stats}");
}

#[test]
fn the_peer_asks_first_from_a_cold_cache() {
    let Some(lab) = Lab::new("the_peer_asks_first_from_a_cold_cache") else { return };
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER6, LISTED), "IPv6");
    assert!(opens(&lab.peer, SERVER, LISTED), "IPv4");
}
