//! Modes other than enforce: what would be dropped passes, and is counted as what it is.

use pomguard::policy::{Mode, Policy};
use pomguard_common::reason::Reason;
use pomguard_tests::{
    packet::{
        eth,
        flag::{ACK, SYN},
    },
    reference::{self, Places},
};

use crate::case::{case, run_under};

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
                .outbound(&denied.clone().mirrored().flags(SYN | ACK), Reason::Unasked)
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
                .enters()
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::Answer),
        );
        let head =
            eth().ip(places.resolver, places.host).fragment(1, 0, true).udp(40_000, 54).payload(&[0; 8]);
        let rest =
            eth().ip(places.resolver, places.host).fragment(1, 16, false).protocol(17).payload(&[0; 8]);
        cases.push(
            case("FR-02", "the pieces of a denied datagram stay together")
                .inbound(&head, Reason::PortKnown)
                .audited()
                .inbound(&rest, Reason::Fragment),
        );
    }
    run_under("audit_passes_what_it_would_drop_and_counts_it_apart", policy, &cases);
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
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::Answer)
                .outbound(&ask.clone().flags(ACK), Reason::Answer),
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
            case("TP-05", "an answer that nothing asked for").outbound(&denied, Reason::Unasked).audited(),
        );
    }
    run_under("track_remembers_all_that_leaves", policy, &cases);
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
