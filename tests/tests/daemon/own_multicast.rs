//! Multicast datagrams that a host sends to a group and receives itself, because it is a member.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use pomguard_tests::{
    daemon::{Daemon, INTERFACE, Lab, SERVER, SERVER6, Settings},
    faults::Sender,
    packet::eth,
};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 0x77);
const PORT: u16 = 4_446;
/// The number of datagrams to each group.
const EACH: u64 = 5;

/// Opens the server's socket in each group, and a socket to send from.
fn members(lab: &Lab) -> [(UdpSocket, UdpSocket, SocketAddr); 2] {
    let index = lab.server.link(INTERFACE).index().unwrap();
    lab.server
        .run(|| {
            let (heard, said) =
                (UdpSocket::bind((GROUP, PORT)).unwrap(), UdpSocket::bind((SERVER, 0)).unwrap());
            heard.join_multicast_v4(&GROUP, &SERVER).unwrap();
            let heard6 = UdpSocket::bind((GROUP6, PORT)).unwrap();
            heard6.join_multicast_v6(&GROUP6, index).unwrap();
            let said6 = UdpSocket::bind((SERVER6, 0)).unwrap();
            let to6 = std::net::SocketAddrV6::new(GROUP6, PORT, 0, index);
            [(heard, said, (GROUP, PORT).into()), (heard6, said6, to6.into())]
        })
        .unwrap()
}

/// Returns the number of datagrams to each group that the server sends and receives itself.
fn hears(members: &[(UdpSocket, UdpSocket, SocketAddr); 2]) -> [u64; 2] {
    [0, 1].map(|family| {
        let (heard, said, to) = &members[family];
        heard.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let hear = |_: &u64| {
            said.send_to(b"hello", to).unwrap();
            heard.recv(&mut [0; 16]).is_ok()
        };
        (0..EACH).filter(hear).count() as u64
    })
}

/// Returns the bytes of the server's own datagrams as frames of the wire.
fn twins() -> [Vec<u8>; 2] {
    [(IpAddr::from(SERVER), IpAddr::from(GROUP)), (SERVER6.into(), GROUP6.into())]
        .map(|(from, to)| eth().ip(from, to).udp(40_000, PORT).payload(b"forged").bare().build())
}

fn lab(test: &str, attach: &'static str) -> Option<Lab> {
    let lab = Lab::with_one_cable(test)?;
    lab.write_settings(&Settings { attach, outbound: "track", ..Settings::default() });
    Some(lab)
}

#[test]
fn f08_own_multicast_comes_back_in_generic_mode() {
    let Some(lab) = lab("f08_own_multicast_comes_back_in_generic_mode", "generic") else { return };
    let members = members(&lab);
    let daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attached(), ["generic"]);
    assert_eq!(hears(&members), [EACH, EACH], "{}", lab.stats());
    let stats = lab.stats();
    assert!(stats.reason("own-multicast", "inbound", "pass") >= 2 * EACH, "{stats}");
    // A frame of the wire with the same bytes passes the program, and nobody receives it.
    let (sender, before) = (Sender::at(&lab.peer), stats.reason("own-multicast", "inbound", "pass"));
    for datapath in twins() {
        assert!(sender.send(&datapath), "nothing guards the peer");
    }
    for (heard, ..) in &members {
        assert!(heard.recv(&mut [0; 16]).is_err(), "a member heard the twin");
    }
    assert_eq!(lab.stats().reason("own-multicast", "inbound", "pass") - before, 2, "{}", lab.stats());

    // A bridge would forward the frame, so at a bridge port no packet counts as the host's own.
    assert!(daemon.stop().success());
    let bridge = lab.server.add_bridge("br9").unwrap();
    lab.server.link(INTERFACE).attach_to(&bridge).unwrap();
    let _daemon = Daemon::start(&lab);
    let of = |name, verdict| lab.stats().reason(name, "inbound", verdict);
    let before = [of("own-multicast", "pass"), of("ethertype", "drop")];
    for datapath in twins() {
        assert!(sender.send(&datapath), "nothing guards the peer");
    }
    assert_eq!([of("own-multicast", "pass") - before[0], of("ethertype", "drop") - before[1]], [0, 2]);
}

#[test]
fn f08_in_native_mode_the_twin_is_dropped() {
    let Some(lab) = lab("f08_in_native_mode_the_twin_is_dropped", "native") else { return };
    let members = members(&lab);
    let _daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attached(), ["native"]);
    assert_eq!(hears(&members), [EACH, EACH], "{}", lab.stats());
    let sender = Sender::at(&lab.peer);
    for datapath in twins() {
        assert!(sender.send(&datapath), "nothing guards the peer");
    }
    let stats = lab.stats();
    assert_eq!(stats.reason("own-multicast", "inbound", "pass"), 0, "{stats}");
    assert_eq!(stats.reason("ethertype", "inbound", "drop"), 2, "{stats}");
}
