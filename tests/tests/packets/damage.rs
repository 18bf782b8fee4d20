//! An image that is not whole: closed, and named.

use pomguard::policy::Mode;
use pomguard_common::{Direction, image::SECTIONS, reason::Reason};
use pomguard_tests::{
    harness::Subject as _,
    packet::{
        Packet, eth,
        flag::{ACK, SYN},
    },
    reference::{self, Places},
    twin::Twin,
};

fn whole() -> Twin {
    let mut policy = reference::policy();
    (policy.inbound, policy.outbound) = (Mode::Enforce, Mode::Enforce);
    Twin::new(policy).expect("the policy compiles")
}

/// What no row allows, whichever part of the image is there.
fn forbidden(places: &Places) -> Vec<(Direction, Packet)> {
    let from = |port| eth().ip(places.stranger, places.host).tcp(40_000, port);
    let to = |port| eth().ip(places.host, places.stranger).tcp(40_000, port);
    vec![
        (Direction::Inbound, from(22)),
        (Direction::Inbound, from(22).flags(ACK)),
        (Direction::Inbound, from(8_080)),
        (Direction::Inbound, from(443).flags(SYN | ACK)),
        (Direction::Inbound, eth().ip(places.stranger, places.host).udp(40_000, 53)),
        (Direction::Outbound, to(5_432)),
        (Direction::Outbound, to(8_080).flags(ACK)),
        (Direction::Outbound, from(22).mirrored().flags(SYN | ACK)),
    ]
}

#[test]
fn whatever_end_of_the_image_is_missing_nothing_forbidden_passes() {
    for places in Places::both() {
        let forbidden: Vec<_> =
            forbidden(&places).into_iter().map(|(direction, packet)| (direction, packet.build())).collect();
        let mut twin = whole();
        for left in (SECTIONS as usize..=twin.lines()).rev() {
            twin.lose_all_but(left);
            for (direction, frame) in &forbidden {
                let effect = twin.judge(*direction, frame).expect("both ways agree");
                assert!(!effect.passes(), "{left} lines left, {}: {effect:?} {frame:02x?}", direction.name());
            }
        }
    }
}

#[test]
fn a_row_that_cannot_be_looked_up_is_an_internal_fault_and_no_missing_permission() {
    for places in Places::both() {
        let allowed = [
            (Direction::Inbound, eth().ip(places.stranger, places.host).tcp(40_000, 443)),
            (Direction::Inbound, eth().ip(places.office, places.host).tcp(40_000, 22).flags(ACK)),
            (Direction::Outbound, eth().ip(places.host, places.database).tcp(40_000, 5_432)),
            (Direction::Outbound, eth().ip(places.host, places.stranger).udp(40_000, 53)),
        ];
        for (direction, packet) in allowed {
            let (mut twin, frame) = (whole(), packet.build());
            let mut left = twin.lines();
            let effect = loop {
                let effect = twin.judge(direction, &frame).expect("both ways agree");
                if effect.reason != Reason::Row {
                    break effect;
                }
                twin.forget().expect("time goes by");
                left -= 1;
                twin.lose_all_but(left);
            };
            assert_eq!(effect.reason, Reason::Internal, "{left} lines left: {packet:?}");
            assert!(!effect.passes());
        }
    }
}
