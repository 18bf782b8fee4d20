//! Modes other than enforce: a packet that enforce would drop passes, and is counted under the same reason.

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
        flag::{ACK, SYN},
    },
    reference::{self, Places},
};

use crate::{
    case::{case, run_under},
    overrides::{E1, override_rule},
};

#[test]
fn audit_passes_what_it_would_drop_and_counts_it_apart() {
    let policy = Policy { inbound: Mode::Audit, outbound: Mode::Audit, ..reference::policy() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let denied = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        let allowed = eth().ip(places.stranger, places.host).tcp(40_000, 443);
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        cases.push(
            case("TP-03", "a denied port and its answer")
                .inbound(&denied, Reason::Source)
                .audited()
                .outbound(&denied.clone().mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .audited(),
        );
        cases.push(case("TP-03", "an allowed port").inbound(&allowed, Reason::Row).row("A2").connects());
        let bare = allowed.flags(0);
        cases.push(
            case("TP-08", "no flags")
                .inbound(&bare, Reason::TcpFlags)
                .audited()
                .outbound(&bare.clone().mirrored(), Reason::TcpFlags)
                .audited(),
        );
        cases.push(
            case("TP-02", "our own question that no row lists")
                .outbound(&ask, Reason::Destination)
                .audited()
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::NoFlow)
                .audited()
                .outbound(&ask.clone().flags(ACK), Reason::UnsolicitedReply)
                .audited(),
        );
        let head =
            eth().ip(places.resolver, places.host).fragment(1, 0, true).udp(40_000, 54).payload(&[0; 8]);
        let rest =
            eth().ip(places.resolver, places.host).fragment(1, 16, false).protocol(17).payload(&[0; 8]);
        cases.push(
            case("FR-02", "the pieces of a denied datagram stay together")
                .inbound(&head, Reason::PortKnown)
                .audited()
                .inbound(&rest, Reason::FragmentUnknown)
                .audited(),
        );
    }
    run_under("audit_passes_what_it_would_drop_and_counts_it_apart", policy, &cases);
}

#[test]
fn outbound_audit_cuts_no_answer_where_inbound_enforces() {
    let policy = Policy { outbound: Mode::Audit, ..reference::policy() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        cases.push(
            case("TP-02", "our own question that no row lists")
                .outbound(&ask, Reason::Destination)
                .audited()
                .enters()
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::OwnFlow),
        );
    }
    run_under("outbound_audit_cuts_no_answer_where_inbound_enforces", policy, &cases);
}

#[test]
fn track_remembers_all_that_leaves() {
    let policy = Policy { outbound: Mode::Track, ..reference::policy() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        cases.push(
            case("TP-02", "to a destination that no row lists")
                .outbound(&ask, Reason::Untracked)
                .enters()
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::OwnFlow)
                .outbound(&ask.clone().flags(ACK), Reason::OwnFlow),
        );
        let listed = eth().ip(places.host, places.database).tcp(40_000, 5_432);
        cases.push(
            case("TP-02", "to one that a row lists")
                .outbound(&listed, Reason::Row)
                .row("E1")
                .connects()
                .enters(),
        );
        let denied = eth().ip(places.host, places.stranger).tcp(22, 40_000).flags(SYN | ACK);
        cases.push(
            case("TP-05", "an answer that nothing asked for")
                .outbound(&denied, Reason::UnsolicitedReply)
                .audited(),
        );
    }
    let ours = Places::v6();
    let message = eth().ip(ours.host, ours.office).icmp(138, 1).payload(&[0; 8]);
    cases.push(case("IC-20", "a message that is not discovery's").outbound(&message, Reason::Untracked));
    run_under("track_remembers_all_that_leaves", policy, &cases);
}

#[test]
fn audit_pass_from_our_own_address_opens_nothing_outbound() {
    let policy = Policy { inbound: Mode::Audit, ..reference::policy() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let ours = eth().ip(places.host, places.office);
        let head = ours.clone().fragment(9, 0, true).udp(40_000, 53).payload(&[0; 8]);
        let rest = ours.fragment(9, 16, false).protocol(17).payload(&[0; 8]);
        cases.push(
            case("SP-01", "the first piece comes in, and the next one would leave")
                .inbound(&head, Reason::SpoofedSource)
                .audited()
                .outbound(&rest, Reason::FragmentUnknown),
        );
    }
    run_under("audit_pass_from_our_own_address_opens_nothing_outbound", policy, &cases);
}

#[test]
fn a_failsafe_row_is_counted_as_such() {
    let mut policy = reference::policy();
    policy.rows[0].failsafe = true;
    let mut cases = Vec::new();
    for places in Places::both() {
        let packet = eth().ip(places.office, places.host).tcp(40_000, 22);
        cases.push(case("CF-11", "a login").inbound(&packet, Reason::Failsafe).row("A1").connects());
    }
    run_under("a_failsafe_row_is_counted_as_such", policy, &cases);
}

/// Returns the reference policy in enforce, with all rows but A2 and E2 in audit, and client ports for A1.
fn rows_in_audit() -> Policy {
    let mut policy = reference::policy();
    for row in policy.rows.iter_mut().filter(|row| ["A1", "A3", "E1"].contains(&row.id.0.as_str())) {
        row.mode = Mode::Audit;
    }
    policy.rows[0].client_ports = PortRange { first: 1_024, last: 65_535 };
    policy
}

#[test]
fn inbound_row_in_audit_passes_strangers_and_the_answers() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let login = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        let answer = login.clone().mirrored().flags(SYN | ACK);
        let (kind, code) = if places.is_v6() { (2, 0) } else { (3, 4) };
        let complaint =
            eth().ip(places.elsewhere, places.host).icmp(kind, code).rest(1_400).payload(&answer.quoted());
        cases.push(
            case("TP-03", "a flow of somebody that no row names")
                .inbound(&login, Reason::Source)
                .audited()
                .outbound(&answer, Reason::UnsolicitedReply)
                .audited()
                .inbound(&login.clone().flags(ACK), Reason::NoFlow)
                .audited()
                .outbound(&answer.clone().flags(ACK), Reason::UnsolicitedReply)
                .audited()
                .inbound(&complaint, Reason::IcmpUnrelated)
                .audited(),
        );
        let known = eth().ip(places.resolver, places.host).tcp(40_000, 22);
        cases.push(
            case("TP-03", "of a system that the site knows")
                .inbound(&known, Reason::SourceKnown)
                .audited()
                .outbound(&known.clone().mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .audited(),
        );
        let low = eth().ip(places.office, places.host).tcp(1_023, 22);
        cases.push(
            case("TP-03", "from a client port that the row does not have")
                .inbound(&low, Reason::ClientPort)
                .audited()
                .outbound(&low.clone().mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .audited(),
        );
        let query = eth().ip(places.stranger, places.host).udp(40_000, 53);
        cases.push(
            case("TP-03", "a datagram and its answer, which opens nothing")
                .inbound(&query, Reason::Source)
                .audited()
                .outbound(&query.clone().mirrored(), Reason::UnsolicitedReply)
                .audited()
                .inbound(&query, Reason::Source)
                .audited(),
        );
        let named = eth().ip(places.office, places.host).tcp(40_000, 22);
        cases.push(
            case("TP-01", "whom the row names is counted under it")
                .inbound(&named, Reason::Row)
                .row("A1")
                .connects()
                .outbound(&named.clone().mirrored().flags(SYN | ACK), Reason::PeerFlow),
        );
    }
    run_under("inbound_row_in_audit_passes_strangers_and_the_answers", rows_in_audit(), &cases);
}

#[test]
fn outbound_row_in_audit_passes_strangers_and_their_answers() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 5_432);
        cases.push(
            case("TP-02", "a flow with somebody that no row names")
                .outbound(&ask, Reason::Destination)
                .audited()
                .enters()
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::OwnFlow)
                .outbound(&ask.clone().flags(ACK), Reason::OwnFlow)
                .inbound(&ask.clone().mirrored().flags(ACK), Reason::OwnFlow),
        );
        let listed = eth().ip(places.host, places.database).tcp(40_000, 5_432);
        cases.push(
            case("TP-02", "whom the row names is counted under it")
                .outbound(&listed, Reason::Row)
                .row("E1")
                .connects()
                .enters()
                .inbound(&listed.clone().mirrored().flags(SYN | ACK), Reason::OwnFlow),
        );
        let other = eth().ip(places.host, places.stranger).tcp(40_000, 5_433);
        cases.push(
            case("TP-02", "another port of the same peer is enforced")
                .outbound(&other, Reason::Destination)
                .inbound(&other.clone().mirrored().flags(SYN | ACK), Reason::NoFlow),
        );
    }
    run_under("outbound_row_in_audit_passes_strangers_and_their_answers", rows_in_audit(), &cases);
}

#[test]
fn a_row_in_audit_excuses_nothing_but_peer_and_client_port() {
    let isolated = ControlState { suspension: Some((suspension::LOCKDOWN, 60)), ..ControlState::default() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let to = |port| eth().ip(places.stranger, places.host).tcp(40_000, port);
        cases.push(
            case("TP-03", "a port that no row in audit names")
                .inbound(&to(23), Reason::Port)
                .outbound(&to(23).mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .inbound(&eth().ip(places.stranger, places.host).udp(40_000, 22), Reason::Port)
                .outbound(&eth().ip(places.host, places.stranger).tcp(40_000, 22), Reason::Destination),
        );
        cases.push(
            case("TP-08", "flags that cannot be")
                .inbound(&to(22).flags(0), Reason::TcpFlags)
                .outbound(&to(22).mirrored().flags(0), Reason::TcpFlags),
        );
        cases.push(
            case("TP-05", "an answer that nothing asked for")
                .inbound(&to(22).flags(SYN | ACK), Reason::NoFlow),
        );
        cases.push(
            case("SP-04", "what is not for this host")
                .inbound(&eth().ip(places.stranger, places.elsewhere).tcp(40_000, 22), Reason::NotLocal),
        );
        // Sent from the port of the row in audit, to a destination that a failsafe tuple lets this host open.
        let never_asked = eth().ip(places.host, places.stranger).tcp(22, 8_080);
        let (kind, code) = if places.is_v6() { (2, 0) } else { (3, 4) };
        let complaint = eth().ip(places.elsewhere, places.host).icmp(kind, code).rest(1_400);
        let complaint = complaint.payload(&never_asked.quoted());
        let outward = override_rule(places.stranger, TCP, 8_080, E1, Override::OUTBOUND);
        let outward = Override { client_ports: 65_535 << 16, ..outward };
        cases.push(
            case("IC-02", "an error about a flow that nobody opened, alongside an override for such")
                .inbound(&complaint, Reason::IcmpUnrelated)
                .audited()
                .holding(ControlState { overrides: vec![(outward, 60)], ..ControlState::default() })
                .inbound(&complaint, Reason::IcmpUnrelated)
                .audited(),
        );
        cases.push(
            case("CF-11", "isolated, nothing")
                .holding(isolated.clone())
                .inbound(&to(22), Reason::Isolated)
                .outbound(&to(22).mirrored().flags(SYN | ACK), Reason::Isolated),
        );
    }
    run_under("a_row_in_audit_excuses_nothing_but_peer_and_client_port", rows_in_audit(), &cases);
}
