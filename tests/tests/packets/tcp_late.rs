//! TCP segments out of sequence, and TCP options.

use pomguard_common::reason::Reason;
use pomguard_tests::{
    packet::{
        Packet, Part, eth,
        flag::{ACK, FIN, PSH, RST, SYN},
    },
    reference::Places,
};

use crate::case::{AGE, Case, case, run};

/// Returns a segment to the database.
fn ask(places: &Places, flags: u8) -> Packet {
    eth().ip(places.host, places.database).tcp(40_000, 5_432).flags(flags)
}

/// Returns a segment from the database.
fn answer(places: &Places, flags: u8) -> Packet {
    ask(places, flags).mirrored()
}

/// Returns a case in which this host has opened a flow.
fn opened(id: &'static str, says: impl Into<String>, places: &Places) -> Case {
    case(id, says).outbound(&ask(places, SYN), Reason::Row).row("E1").connects().enters()
}

/// Continues a case with the other side's SYN-ACK and data.
fn completed(case: Case, places: &Places) -> Case {
    case.inbound(&answer(places, SYN | ACK), Reason::OwnFlow)
        .outbound(&ask(places, ACK), Reason::OwnFlow)
        .row("E1")
        .inbound(&answer(places, ACK | PSH), Reason::OwnFlow)
}

#[test]
fn stray_segments_at_a_denied_tuple_leave_no_trace() {
    let mut cases = Vec::new();
    for places in Places::both() {
        for flags in [ACK, RST, RST | ACK, FIN | ACK, ACK | PSH] {
            for (peer, port, reason) in [
                (places.stranger, 22, Reason::NoFlow),
                (places.stranger, 8_080, Reason::NoFlow),
                (places.database, 22, Reason::NoFlowKnown),
            ] {
                let stray = eth().ip(peer, places.host).tcp(40_000, port).flags(flags);
                let says = format!("flags {flags:#08b} to port {port}, again and again");
                let mut case = case("TP-06", says);
                for _ in 0..3 {
                    case = case.inbound(&stray, reason);
                }
                // The stray segments left nothing behind that lets an answer out.
                cases.push(case.outbound(&stray.mirrored().flags(ACK), Reason::UnsolicitedReply));
            }
        }
    }
    run("stray_segments_at_a_denied_tuple_leave_no_trace", &cases);
}

/// A refused opening stays for the age of an opening, and no longer, unless the daemon finds that its socket
/// is gone.
#[test]
fn a_reset_before_any_answer_ends_the_opening() {
    let mut cases = Vec::new();
    for places in Places::both() {
        for flags in [RST, RST | ACK] {
            let reset = answer(&places, flags);
            cases.push(
                opened("TP-12", "refused, and silence", &places)
                    .inbound(&reset, Reason::OwnFlow)
                    .wait(243)
                    .inbound(&reset, Reason::NoFlowKnown),
            );
            let again = opened("TP-12", "refused, and tried again with the same ports", &places)
                .inbound(&reset, Reason::OwnFlow)
                .outbound(&ask(&places, SYN), Reason::Row)
                .row("E1")
                .connects();
            cases.push(completed(again, &places));
        }
        cases.push(
            opened("TP-12", "our own reset", &places)
                .outbound(&ask(&places, RST), Reason::OwnFlow)
                .row("E1")
                .wait(243)
                .inbound(&answer(&places, SYN | ACK), Reason::NoFlowKnown),
        );
    }
    run("a_reset_before_any_answer_ends_the_opening", &cases);
}

#[test]
fn syn_ack_of_an_older_flow_does_not_hinder_the_next() {
    let mut cases = Vec::new();
    for places in Places::both() {
        // Sequence and acknowledgement number of another connection: the stack answers with a reset.
        let old = answer(&places, SYN | ACK).poke(Part::Upper, 4, &[9; 8]);
        let refused = opened("TP-15", "an old SYN-ACK, our reset, the true one", &places)
            .inbound(&old, Reason::OwnFlow)
            .outbound(&ask(&places, RST), Reason::OwnFlow)
            .row("E1")
            .outbound(&ask(&places, SYN), Reason::Row)
            .row("E1")
            .connects();
        cases.push(completed(refused, &places));
        let established = completed(opened("TP-15", "an old SYN-ACK in the middle", &places), &places)
            .inbound(&old, Reason::OwnFlow)
            .outbound(&ask(&places, ACK), Reason::OwnFlow)
            .row("E1")
            .wait(AGE - 40)
            .inbound(&answer(&places, ACK), Reason::OwnFlow);
        cases.push(established);
        let ended = completed(opened("TP-15", "the same ports again after the end", &places), &places)
            .outbound(&ask(&places, FIN | ACK), Reason::OwnFlow)
            .row("E1")
            .inbound(&answer(&places, FIN | ACK), Reason::OwnFlow)
            .outbound(&ask(&places, SYN), Reason::Row)
            .row("E1")
            .connects()
            .inbound(&old, Reason::OwnFlow)
            .outbound(&ask(&places, RST), Reason::OwnFlow)
            .row("E1")
            .outbound(&ask(&places, SYN), Reason::Row)
            .row("E1")
            .connects();
        cases.push(completed(ended, &places).wait(AGE - 40).inbound(&answer(&places, ACK), Reason::OwnFlow));
    }
    run("syn_ack_of_an_older_flow_does_not_hinder_the_next", &cases);
}

/// Returns options in wire format, by name.
fn options() -> [(&'static str, Vec<u8>); 8] {
    let filled = |kind, length: usize| [&[kind, length as u8][..], &vec![7; length - 2]].concat();
    [
        ("a segment size", filled(2, 4)),
        ("a window scale", filled(3, 3)),
        ("SACK permitted", filled(4, 2)),
        ("SACK blocks", filled(5, 34)),
        ("timestamps", filled(8, 10)),
        ("an MD5 signature", filled(19, 18)),
        ("MPTCP", filled(30, 12)),
        ("an option of length 0", vec![99, 0, 0, 0]),
    ]
}

#[test]
fn options_windows_and_probes_are_for_the_stack_alone() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let allowed = eth().ip(places.stranger, places.host).tcp(40_000, 443);
        for (name, bytes) in options() {
            cases.push(
                case("TP-22", name)
                    .inbound(&allowed.clone().options(&bytes), Reason::Row)
                    .row("A2")
                    .connects()
                    .outbound(&allowed.clone().mirrored().flags(SYN | ACK).options(&bytes), Reason::PeerFlow)
                    .inbound(&allowed.clone().flags(ACK).options(&bytes), Reason::Row)
                    .row("A2"),
            );
            cases.push(
                case("TP-22", format!("{name}, on a flow of ours"))
                    .outbound(&ask(&places, SYN).options(&bytes), Reason::Row)
                    .row("E1")
                    .connects()
                    .enters()
                    .inbound(&answer(&places, SYN | ACK).options(&bytes), Reason::OwnFlow)
                    .outbound(&ask(&places, ACK).options(&bytes), Reason::OwnFlow)
                    .row("E1"),
            );
            let denied = eth().ip(places.stranger, places.host).tcp(40_000, 22).options(&bytes);
            cases.push(case("TP-22", format!("{name}, to a denied port")).inbound(&denied, Reason::Source));
        }
        let closed = |packet: Packet| packet.poke(Part::Upper, 14, &[0, 0]);
        cases.push(
            completed(opened("TP-22", "a window of nothing, and probes of it", &places), &places)
                .inbound(&closed(answer(&places, ACK)), Reason::OwnFlow)
                .outbound(&ask(&places, ACK).payload(&[0]), Reason::OwnFlow)
                .row("E1")
                .inbound(&closed(answer(&places, ACK)), Reason::OwnFlow),
        );
        // A probe of either side keeps the flow alive, three times as long as silence would.
        let mut probed = completed(opened("TP-22", "keepalive probes of the other side", &places), &places);
        for _ in 0..3 {
            probed = probed.wait(AGE - 40).inbound(&answer(&places, ACK), Reason::OwnFlow);
        }
        cases.push(probed);
        let mut probed = completed(opened("TP-22", "keepalive probes of ours", &places), &places);
        for _ in 0..3 {
            probed = probed.wait(AGE - 40).outbound(&ask(&places, ACK), Reason::OwnFlow).row("E1");
        }
        cases.push(probed.inbound(&answer(&places, ACK), Reason::OwnFlow));
    }
    run("options_windows_and_probes_are_for_the_stack_alone", &cases);
}
