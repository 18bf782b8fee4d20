//! A damaged image: no forbidden packet passes, and a packet whose row is missing is counted as an internal
//! fault.

use pomguard::policy::Mode;
use pomguard_common::{Direction, image::SECTIONS, reason::Reason};
use pomguard_tests::{
    harness::Subject as _,
    host_datapath::HostDatapath,
    packet::{
        Packet, eth,
        flag::{ACK, SYN},
    },
    reference::{self, Places},
};

fn whole() -> HostDatapath {
    let mut policy = reference::policy();
    (policy.inbound, policy.outbound) = (Mode::Enforce, Mode::Enforce);
    HostDatapath::new(policy).expect("the policy compiles")
}

/// Returns packets that no row allows, whichever part of the image is present.
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
fn truncated_image_passes_nothing_forbidden() {
    for places in Places::both() {
        let forbidden: Vec<_> =
            forbidden(&places).into_iter().map(|(direction, packet)| (direction, packet.build())).collect();
        let mut datapath = whole();
        for left in (SECTIONS as usize..=datapath.lines()).rev() {
            datapath.lose_all_but(left);
            for (direction, frame) in &forbidden {
                let effect = datapath.judge(*direction, frame).expect("both ways agree");
                assert!(!effect.passes(), "{left} lines left, {}: {effect:?} {frame:02x?}", direction.name());
            }
        }
    }
}

#[test]
fn failed_row_lookup_is_internal_and_no_miss() {
    for places in Places::both() {
        let allowed = [
            (Direction::Inbound, eth().ip(places.stranger, places.host).tcp(40_000, 443)),
            (Direction::Inbound, eth().ip(places.office, places.host).tcp(40_000, 22).flags(ACK)),
            (Direction::Outbound, eth().ip(places.host, places.database).tcp(40_000, 5_432)),
            (Direction::Outbound, eth().ip(places.host, places.stranger).udp(40_000, 53)),
        ];
        for (direction, packet) in allowed {
            let (mut datapath, frame) = (whole(), packet.build());
            let mut left = datapath.lines();
            let effect = loop {
                let effect = datapath.judge(direction, &frame).expect("both ways agree");
                if effect.reason != Reason::Row {
                    break effect;
                }
                datapath.forget().expect("time goes by");
                left -= 1;
                datapath.lose_all_but(left);
            };
            assert_eq!(effect.reason, Reason::Internal, "{left} lines left: {packet:?}");
            assert!(!effect.passes());
        }
    }
}
