//! Suspension and grace period alongside the policy in force.

use pomguard::policy::{Mode, Policy, PortRange};
use pomguard_common::{
    control::{Override, suspension},
    protocol::TCP,
    reason::Reason,
};
use pomguard_tests::{
    control_state::ControlState,
    packet::{
        eth,
        flag::{ACK, FIN, RST, SYN},
    },
    reference::{self, Places},
};

use crate::{
    case::{case, run_under},
    overrides::{A3, complaint, isolated, override_rule, with_failsafe},
};

#[test]
fn isolated_only_failsafe_rows_hold_in_every_mode() {
    for mode in [Mode::Enforce, Mode::Audit] {
        let policy = Policy { inbound: mode, outbound: mode, ..with_failsafe() };
        let mut cases = Vec::new();
        for places in Places::both() {
            let login = eth().ip(places.office, places.host).tcp(40_000, 22);
            let reply = login.clone().mirrored().flags(SYN | ACK);
            let served = eth().ip(places.stranger, places.host).tcp(40_000, 443);
            cases.push(
                case("CF-11", "the way in stays open")
                    .holding(isolated(60))
                    .inbound(&login, Reason::Failsafe)
                    .row("A1")
                    .connects()
                    .outbound(&reply, Reason::PeerFlow)
                    .inbound(&login.clone().flags(FIN | ACK), Reason::Failsafe)
                    .row("A1")
                    .inbound(&complaint(&places, &reply), Reason::IcmpRelated),
            );
            cases.push(
                case("CF-11", "a call is cut, and goes on when it is over")
                    .inbound(&served, Reason::Row)
                    .row("A2")
                    .connects()
                    .holding(isolated(60))
                    .inbound(&served.clone().flags(ACK), Reason::Isolated)
                    .outbound(&served.clone().mirrored().flags(ACK), Reason::Isolated)
                    .inbound(&complaint(&places, &served.clone().mirrored()), Reason::Isolated)
                    .wait(61)
                    .inbound(&served.clone().flags(ACK), Reason::Row)
                    .row("A2")
                    .outbound(&served.clone().mirrored().flags(ACK), Reason::PeerFlow),
            );
            let ask = eth().ip(places.host, places.database).tcp(40_000, 5_432);
            let answer = ask.clone().mirrored().flags(SYN | ACK);
            cases.push(
                case("CF-11", "our own flows wait, too")
                    .outbound(&ask, Reason::Row)
                    .row("E1")
                    .connects()
                    .enters()
                    .holding(isolated(60))
                    .inbound(&answer, Reason::Isolated)
                    .outbound(&ask.clone().flags(ACK), Reason::Isolated)
                    .outbound(&ask.clone().flags(RST), Reason::Isolated)
                    .wait(61)
                    .inbound(&answer, Reason::OwnFlow),
            );
            let marks = Override::EXCEPTION;
            let control_state = ControlState {
                overrides: vec![(override_rule(places.stranger, TCP, 8_080, A3, marks), 600)],
                ..isolated(60)
            };
            cases.push(
                case("CF-11", "an exception does not hold")
                    .holding(control_state)
                    .inbound(&eth().ip(places.stranger, places.host).tcp(40_000, 8_080), Reason::Isolated),
            );
            cases.push(
                case("CF-11", "nor does anything that is wrong with a packet let it through in audit")
                    .holding(isolated(60))
                    .inbound(&login.clone().flags(0), Reason::Isolated)
                    .inbound(&eth().ip(places.host, places.host).tcp(40_000, 22), Reason::Isolated)
                    .outbound(&eth().ip(places.elsewhere, places.office).tcp(22, 40_000), Reason::Isolated),
            );
            let head =
                eth().ip(places.resolver, places.host).fragment(1, 0, true).udp(40_000, 53).payload(&[0; 8]);
            let rest =
                eth().ip(places.resolver, places.host).fragment(1, 16, false).protocol(17).payload(&[0; 8]);
            cases.push(
                case("CF-11", "a train that was under way stops")
                    .inbound(&head, Reason::Row)
                    .row("A3")
                    .holding(isolated(30))
                    .inbound(&rest, Reason::Isolated)
                    .wait(31)
                    .inbound(&rest, Reason::Fragment),
            );
            let head = eth().ip(places.office, places.host).fragment(2, 0, true).tcp(40_000, 22).flags(ACK);
            let head = head.payload(&[0; 4]);
            let rest =
                eth().ip(places.office, places.host).fragment(2, 24, false).protocol(6).payload(&[0; 8]);
            cases.push(
                case("CF-11", "a train of the way in goes on")
                    .holding(isolated(30))
                    .inbound(&head, Reason::Failsafe)
                    .row("A1")
                    .inbound(&rest, Reason::Fragment),
            );
            cases.push(
                case("CF-11", "a train that began before goes on when it begins again")
                    .inbound(&head, Reason::Failsafe)
                    .row("A1")
                    .holding(isolated(30))
                    .inbound(&rest, Reason::Isolated)
                    .inbound(&head, Reason::Failsafe)
                    .row("A1")
                    .inbound(&rest, Reason::Fragment),
            );
        }
        run_under("isolated_only_failsafe_rows_hold_in_every_mode", policy, &cases);
    }
}

#[test]
fn open_drops_nothing_and_counts_what_it_would_have() {
    let open = ControlState { suspension: Some((suspension::BYPASS, 60)), ..ControlState::default() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let denied = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        cases.push(
            case("CF-11", "everything passes until it is over")
                .holding(open.clone())
                .inbound(&denied, Reason::Source)
                .audited()
                .outbound(&denied.clone().mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .audited()
                .inbound(&denied.clone().flags(0), Reason::TcpFlags)
                .audited()
                .outbound(&ask, Reason::Destination)
                .audited()
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::NoFlow)
                .audited()
                .wait(61)
                .inbound(&denied, Reason::Source)
                .inbound(&denied.clone().flags(0), Reason::TcpFlags)
                .outbound(&denied.clone().mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .outbound(&ask, Reason::Destination),
        );
    }
    run_under("open_drops_nothing_and_counts_what_it_would_have", reference::policy(), &cases);
}

#[test]
fn grace_passes_midway_packets_and_judges_openings() {
    let grace = ControlState { grace: Some(60), ..ControlState::default() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let denied = eth().ip(places.stranger, places.host).tcp(40_000, 8_443);
        let midway = denied.clone().flags(ACK);
        cases.push(
            case("LC-01", "a flow that was there before")
                .holding(grace.clone())
                .inbound(&midway, Reason::Grace)
                .outbound(&midway.clone().mirrored(), Reason::Grace)
                .inbound(&midway.clone().flags(FIN | ACK), Reason::Grace)
                .inbound(&denied, Reason::Port)
                .inbound(&denied.clone().flags(SYN | ACK), Reason::NoFlow)
                .outbound(&denied.clone().mirrored(), Reason::Destination)
                .outbound(&denied.clone().mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .inbound(&eth().ip(places.stranger, places.host).udp(40_000, 8_443), Reason::Port)
                .wait(61)
                .inbound(&midway, Reason::NoFlow)
                .outbound(&midway.clone().mirrored(), Reason::UnsolicitedReply),
        );
        cases.push(case("LC-01", "not for us").holding(grace.clone()).inbound(
            &eth().ip(places.stranger, places.elsewhere).tcp(40_000, 8_443).flags(ACK),
            Reason::NotLocal,
        ));
        let known = eth().ip(places.database, places.host).tcp(40_000, 8_443).flags(ACK);
        cases
            .push(case("LC-01", "from a known system").holding(grace.clone()).inbound(&known, Reason::Grace));
    }
    run_under("grace_passes_midway_packets_and_judges_openings", reference::policy(), &cases);
}

#[test]
fn grace_counts_other_packets_and_row_audit_as_without() {
    let grace = ControlState { grace: Some(60), ..ControlState::default() };
    let mut policy = reference::policy();
    policy.rows[0].mode = Mode::Audit;
    policy.rows[2].client_ports = PortRange { first: 1_024, last: 65_535 };
    let mut cases = Vec::new();
    for places in Places::both() {
        let query = eth().ip(places.resolver, places.host).udp(53, 53);
        cases.push(
            case("LC-01", "a datagram from another client port")
                .holding(grace.clone())
                .inbound(&query, Reason::ClientPort),
        );
        let login = eth().ip(places.stranger, places.host).tcp(40_000, 22).flags(ACK);
        cases.push(
            case("LC-01", "what a row in audit lets through")
                .holding(grace.clone())
                .inbound(&login, Reason::NoFlow)
                .audited()
                .outbound(&login.clone().mirrored(), Reason::UnsolicitedReply)
                .audited(),
        );
    }
    run_under("grace_counts_other_packets_and_row_audit_as_without", policy, &cases);
}
