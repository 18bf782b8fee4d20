//! Packets that only test the programs: judged like any other, but for all that would be left of them.

use pomguard::policy::Direction;
use pomguard_common::{
    Direction::{Inbound, Outbound},
    reason::Reason,
};
use pomguard_tests::{
    beside::Beside,
    harness::{Effect, Subject as _},
    packet::{
        Packet, eth, ether,
        flag::{ACK, SYN},
    },
    reference::{self, Places},
    twin::Twin,
};

fn judged(twin: &mut Twin, direction: Direction, packet: &Packet) -> Effect {
    twin.judge(direction, &packet.build()).expect("the frame runs")
}

#[test]
fn a_self_test_meets_no_rate_and_uses_none_up() {
    let mut policy = reference::policy();
    policy.packets.rates.neighbours = 4;
    let mut twin = Twin::new(policy).expect("the policy compiles");
    let arp = eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 28]);
    twin.self_test(true);
    for _ in 0..20 {
        assert_eq!(judged(&mut twin, Inbound, &arp), Effect::of(Reason::Arp));
    }
    twin.self_test(false);
    assert_eq!(judged(&mut twin, Inbound, &arp), Effect::of(Reason::Arp), "the rate is as it was");
    assert_eq!(judged(&mut twin, Inbound, &arp), Effect::of(Reason::RateLimited));
    twin.self_test(true);
    assert_eq!(judged(&mut twin, Inbound, &arp), Effect::of(Reason::Arp), "traffic has used it up");
}

#[test]
fn a_self_test_leaves_no_flow_no_fragment_and_no_row() {
    for places in Places::both() {
        let Places { host, resolver, database, stranger, .. } = places;
        let mut twin = Twin::new(reference::policy()).expect("the policy compiles");
        let syn = eth().ip(host, database).tcp(40_000, 5_432);
        let answer = syn.clone().mirrored().flags(SYN | ACK);
        let first = eth().ip(resolver, host).fragment(7, 0, true).udp(40_000, 53).payload(&[1; 16]);
        let later = eth().ip(resolver, host).fragment(7, 24, false).protocol(17).payload(&[2; 16]);
        twin.self_test(true);
        assert_eq!(judged(&mut twin, Outbound, &syn).reason, Reason::Row);
        assert_eq!(judged(&mut twin, Outbound, &syn).row, pomguard_common::decide::NO_ROW);
        assert!(!judged(&mut twin, Outbound, &syn).enters);
        assert_eq!(judged(&mut twin, Inbound, &first), Effect::of(Reason::Row));
        let denied = eth().ip(stranger, host).tcp(40_000, 22);
        assert_eq!(judged(&mut twin, Inbound, &denied), Effect::of(Reason::Source));
        twin.self_test(false);
        assert_eq!(judged(&mut twin, Inbound, &answer), Effect::of(Reason::NoFlowKnown));
        assert_eq!(judged(&mut twin, Inbound, &later), Effect::of(Reason::FragmentUnknown));
        assert!(judged(&mut twin, Outbound, &syn).enters, "the first that counts");
    }
}

#[test]
fn a_self_test_without_a_policy_counts_under_no_row() {
    let mut policy = reference::policy();
    policy.rows.iter_mut().for_each(|row| row.failsafe = true);
    let Places { host, office, .. } = Places::v4();
    let call = eth().ip(office, host).tcp(40_000, 22);
    let mut twin = Twin::new(policy).expect("the policy compiles");
    twin.hold(&Beside { no_policy: true, ..Beside::default() }).expect("it holds");
    assert!(judged(&mut twin, Inbound, &call).row != pomguard_common::decide::NO_ROW);
    twin.self_test(true);
    assert_eq!(judged(&mut twin, Inbound, &call), Effect::of(Reason::Failsafe));
}
