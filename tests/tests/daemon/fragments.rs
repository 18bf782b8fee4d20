//! Datagrams in pieces, put together by a real stack behind a guarded interface.

use std::{net::UdpSocket, time::Duration};

use pomguard_common::protocol::UDP;
use pomguard_tests::{
    daemon::{Daemon, Lab},
    faults::{Sender, THE_PEER, THE_SERVER, frames},
    packet::eth,
};

/// Where the server answers questions, and the row for it.
const PORT: u16 = 5_300;
const ROW: &str = "[[allow]]\nname = \"questions\"\nfrom = [\"10.77.0.2\", \"fd00:77::2\"]\nto = [\"server\"]\n\
                   ports = \"5300\"\nprotocol = \"udp\"\n";

/// In what order the pieces of a datagram are sent.
#[derive(Clone, Copy, Debug)]
enum Order {
    Plain,
    Twice,
    /// With one over the end of the first and the beginning of the second, unlike both.
    Overlapping,
}

/// A datagram of 64 bytes of `content` in three pieces, IPv4 and IPv6.
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
fn a_datagram_in_pieces_arrives_once_and_one_whose_pieces_overlap_does_not() {
    let name = "a_datagram_in_pieces_arrives_once_and_one_whose_pieces_overlap_does_not";
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
            let (length, _) = socket.recv_from(&mut heard).unwrap_or_else(|fault| panic!("{what}: {fault}"));
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
    // Of each family, for each of the four datagrams in turn: first pieces, then later ones.
    assert_eq!(stats.row("site/questions", "inbound", "packets"), 2 * (1 + 2 + 1 + 1), "{stats}");
    assert_eq!(stats.reason("fragment", "inbound", "pass"), 2 * (2 + 4 + 3 + 2), "{stats}");
}
