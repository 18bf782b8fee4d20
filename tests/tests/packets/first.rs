//! Flows from before the first start of pomguard. `tests/daemon/seeding.rs` tests them with a daemon in the
//! kernel; these tests check that the decision code knows them.

use pomguard::policy::{Mode, Policy};
use pomguard_common::{Direction, decide::NO_ROW, reason::Reason};
use pomguard_tests::{
    harness::{Effect, Subject as _},
    host_datapath::HostDatapath,
    packet::{
        Packet, eth,
        flag::{ACK, SYN},
    },
    reference::{self, Places},
};

#[test]
fn a_flow_of_the_first_policy_is_judged_by_the_next_one() {
    for places in Places::both() {
        let policy = reference::policy();
        let mut datapath = HostDatapath::new(policy.clone()).expect("the policy compiles");
        let ask = eth().ip(places.host, places.database).tcp(40_000, 5_432);
        let answer = ask.clone().mirrored().flags(ACK);
        let reason = |datapath: &mut HostDatapath, direction, packet: &Packet| {
            datapath.judge(direction, &packet.build()).expect("both ways agree").reason
        };
        assert_eq!(reason(&mut datapath, Direction::Outbound, &ask), Reason::Row);
        assert_eq!(reason(&mut datapath, Direction::Inbound, &answer), Reason::OwnFlow);
        datapath.enforce(Policy { rows: Vec::new(), ..policy }).expect("the policy compiles");
        assert_eq!(reason(&mut datapath, Direction::Inbound, &answer), Reason::NoFlowKnown);
    }
}

#[test]
fn grandfathered_flow_goes_on_and_opens_nothing() {
    for places in Places::both() {
        let mut policy = reference::policy();
        (policy.inbound, policy.outbound) = (Mode::Enforce, Mode::Enforce);
        let mut datapath = HostDatapath::new(policy.clone()).expect("the policy compiles");
        let ours = eth().ip(places.host, places.stranger).tcp(40_000, 8_080).flags(ACK);
        let theirs = ours.clone().mirrored();
        let comes_to = |datapath: &mut HostDatapath, direction, packet: &Packet, reason| {
            let effect = datapath.judge(direction, &packet.build()).expect("both ways agree");
            let want = Effect { row: NO_ROW, ..Effect::of(reason) };
            assert_eq!(effect, want, "{} {packet:?}", direction.name());
        };
        comes_to(&mut datapath, Direction::Inbound, &theirs, Reason::NoFlow);
        datapath.was_there_first(&ours.build()).expect("there is room");
        for _ in 0..2 {
            comes_to(&mut datapath, Direction::Inbound, &theirs, Reason::OwnFlow);
            comes_to(&mut datapath, Direction::Outbound, &ours, Reason::OwnFlow);
            // No policy has judged the flow, and none will.
            datapath.enforce(policy.clone()).expect("the policy compiles");
        }
        comes_to(&mut datapath, Direction::Outbound, &ours.clone().flags(SYN), Reason::Destination);
        datapath.forget().expect("time goes by");
        comes_to(&mut datapath, Direction::Inbound, &theirs, Reason::NoFlow);
    }
}
