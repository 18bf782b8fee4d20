//! The ordinary packet, which is settled in one go: that it is, since only its cost would show otherwise.

use pomguard_common::Direction::{self, Inbound, Outbound};
use pomguard_tests::{
    packet::{
        Packet, eth,
        flag::{ACK, FIN, PSH, RST, SYN, URG},
    },
    reference::{self, Places},
    twin::Twin,
};

/// Ordinary packets of one family, in an order in which each finds the conversation that it goes on with.
fn ordinary(places: &Places) -> Vec<(&'static str, Direction, Packet)> {
    let (host, stranger) = (places.host, places.stranger);
    let allowed = eth().ip(stranger, host).tcp(40_000, 443);
    let question = eth().ip(places.resolver, host).udp(40_000, 53).payload(&[0; 12]);
    let ask = eth().ip(host, places.database).tcp(40_000, 5_432);
    let names = eth().ip(host, stranger).udp(40_000, 53).payload(&[0; 12]);
    vec![
        ("an allowed SYN", Inbound, allowed.clone()),
        ("one with options and data", Inbound, allowed.clone().options(&[1; 40]).payload(&[0; 9])),
        ("an allowed segment", Inbound, allowed.clone().flags(ACK | PSH)),
        ("an allowed end", Inbound, allowed.clone().flags(FIN | ACK)),
        ("an allowed reset", Inbound, allowed.clone().flags(RST)),
        ("a padded one", Inbound, allowed.clone().pad(&[0; 6])),
        ("its answer", Outbound, allowed.clone().mirrored().flags(SYN | ACK)),
        ("its data", Outbound, allowed.mirrored().flags(ACK | URG).payload(&[0; 900])),
        ("a SYN to a port that nobody serves", Inbound, eth().ip(stranger, host).tcp(40_000, 8_080)),
        ("a SYN from a stranger", Inbound, eth().ip(stranger, host).tcp(40_000, 22)),
        ("a stray segment", Inbound, eth().ip(stranger, host).tcp(40_000, 8_080).flags(ACK)),
        ("an allowed datagram", Inbound, question.clone()),
        ("its answer", Outbound, question.mirrored()),
        ("one that nobody serves", Inbound, eth().ip(stranger, host).udp(40_000, 54).payload(&[0; 12])),
        ("the answer to a SYN of ours", Inbound, ask.clone().mirrored().flags(SYN | ACK)),
        ("what we send on it", Outbound, ask.flags(ACK)),
        ("the answer to a datagram of ours", Inbound, names.clone().mirrored()),
        ("what follows it", Outbound, names),
    ]
}

#[test]
fn the_ordinary_packet_is_settled_in_one_go() {
    for places in Places::both() {
        let mut twin = Twin::new(reference::policy()).expect("the policy compiles");
        let openings = [
            eth().ip(places.host, places.database).tcp(40_000, 5_432),
            eth().ip(places.host, places.stranger).udp(40_000, 53).payload(&[0; 12]),
        ];
        for opening in openings {
            let settled = twin.settles(Outbound, &opening.build()).expect("the image opens");
            assert!(!settled, "what opens a conversation goes the general way");
            twin.judge(Outbound, &opening.build()).expect("both ways agree");
        }
        for (says, direction, packet) in ordinary(&places) {
            let frame = packet.build();
            assert!(twin.settles(direction, &frame).expect("the image opens"), "{says}, {places:?}");
            twin.judge(direction, &frame).expect("both ways agree");
        }
    }
}
