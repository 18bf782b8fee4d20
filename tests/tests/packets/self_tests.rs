//! Packets that only test the programs: judged like any other, but without any lasting effect.

use pomguard::policy::Direction;
use pomguard_common::{
    Direction::{Inbound, Outbound},
    reason::Reason,
};
use pomguard_tests::{
    control_state::ControlState,
    harness::{Effect, Subject as _},
    host_datapath::HostDatapath,
    packet::{
        Packet, eth, ether,
        flag::{ACK, SYN},
    },
    reference::{self, Places},
};

fn judged(datapath: &mut HostDatapath, direction: Direction, packet: &Packet) -> Effect {
    datapath.judge(direction, &packet.build()).expect("the frame runs")
}

#[test]
fn a_self_test_meets_no_rate_and_uses_none_up() {
    let mut policy = reference::policy();
    policy.packets.rates.neighbours = 4;
    let mut datapath = HostDatapath::new(policy).expect("the policy compiles");
    let arp = eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 28]);
    datapath.self_test(true);
    for _ in 0..20 {
        assert_eq!(judged(&mut datapath, Inbound, &arp), Effect::of(Reason::Arp));
    }
    datapath.self_test(false);
    assert_eq!(judged(&mut datapath, Inbound, &arp), Effect::of(Reason::Arp), "the rate is as it was");
    assert_eq!(judged(&mut datapath, Inbound, &arp), Effect::of(Reason::RateLimited));
    datapath.self_test(true);
    assert_eq!(judged(&mut datapath, Inbound, &arp), Effect::of(Reason::Arp), "traffic has used it up");
}

#[test]
fn a_self_test_leaves_no_flow_no_fragment_and_no_row() {
    for places in Places::both() {
        let Places { host, resolver, database, stranger, .. } = places;
        let mut datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
        let syn = eth().ip(host, database).tcp(40_000, 5_432);
        let answer = syn.clone().mirrored().flags(SYN | ACK);
        let first = eth().ip(resolver, host).fragment(7, 0, true).udp(40_000, 53).payload(&[1; 16]);
        let later = eth().ip(resolver, host).fragment(7, 24, false).protocol(17).payload(&[2; 16]);
        datapath.self_test(true);
        assert_eq!(judged(&mut datapath, Outbound, &syn).reason, Reason::Row);
        assert_eq!(judged(&mut datapath, Outbound, &syn).row, pomguard_common::decide::NO_ROW);
        assert!(!judged(&mut datapath, Outbound, &syn).enters);
        assert_eq!(judged(&mut datapath, Inbound, &first), Effect::of(Reason::Row));
        let denied = eth().ip(stranger, host).tcp(40_000, 22);
        assert_eq!(judged(&mut datapath, Inbound, &denied), Effect::of(Reason::Source));
        datapath.self_test(false);
        assert_eq!(judged(&mut datapath, Inbound, &answer), Effect::of(Reason::NoFlowKnown));
        assert_eq!(judged(&mut datapath, Inbound, &later), Effect::of(Reason::FragmentUnknown));
        assert!(judged(&mut datapath, Outbound, &syn).enters, "the first that counts");
    }
}

#[test]
fn a_self_test_without_a_policy_counts_under_no_row() {
    let mut policy = reference::policy();
    policy.rows.iter_mut().for_each(|row| row.failsafe = true);
    let Places { host, office, .. } = Places::v4();
    let call = eth().ip(office, host).tcp(40_000, 22);
    let mut datapath = HostDatapath::new(policy).expect("the policy compiles");
    datapath.hold(&ControlState { no_policy: true, ..ControlState::default() }).expect("it holds");
    assert!(judged(&mut datapath, Inbound, &call).row != pomguard_common::decide::NO_ROW);
    datapath.self_test(true);
    assert_eq!(judged(&mut datapath, Inbound, &call), Effect::of(Reason::Failsafe));
}
