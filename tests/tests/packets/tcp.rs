//! TCP: valid flags, flows that this host opened, and their ages.

use std::net::Ipv4Addr;

use pomguard_common::{Direction, limits, reason::Reason};
use pomguard_tests::{
    harness::Effect,
    host_datapath::HostDatapath,
    packet::{
        Packet, Part, eth,
        flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG},
    },
    reference::{self, Places},
};

use crate::case::{AGE, Case, case, run};

/// Returns a segment from the database to a port that this host chose.
fn answer(places: &Places, flags: u8) -> Packet {
    eth().ip(places.database, places.host).tcp(5_432, 40_000).flags(flags)
}

/// Returns a segment to the database.
fn ask(places: &Places, flags: u8) -> Packet {
    answer(places, flags).mirrored()
}

/// Returns a case in which this host has opened a flow.
fn opened(id: &'static str, says: impl Into<String>, places: &Places) -> Case {
    case(id, says).outbound(&ask(places, SYN), Reason::Row).row("E1").connects().enters()
}

/// Returns a case in which the other side has answered.
fn established(id: &'static str, says: impl Into<String>, places: &Places) -> Case {
    opened(id, says, places)
        .inbound(&answer(places, SYN | ACK), Reason::OwnFlow)
        .outbound(&ask(places, ACK), Reason::OwnFlow)
        .row("E1")
}

/// Flag sets of real connections, except for PSH, ECE and CWR.
const REAL: [u8; 9] = [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];

#[test]
fn denied_port_is_silent_and_an_allowed_one_takes_real_flags() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let from = |peer, port, flags| eth().ip(peer, places.host).tcp(40_000, port).flags(flags);
        for flags in 0..=255_u8 {
            let real = REAL.contains(&(flags & !(PSH | ECE | CWR)));
            let says = format!("flags {flags:#010b}");
            let (opens, answers) = (flags & (SYN | ACK) == SYN, flags & (SYN | ACK) == SYN | ACK);
            let drop = |stranger: Reason| if real { stranger } else { Reason::TcpFlags };
            let denied = if opens { Reason::Source } else { Reason::NoFlow };
            cases.push(
                case("TP-03", says.clone())
                    .inbound(&from(places.stranger, 22, flags), drop(denied))
                    .inbound(
                        &from(places.stranger, 8_080, flags),
                        drop(if opens { Reason::Port } else { Reason::NoFlow }),
                    )
                    .inbound(
                        &from(places.database, 22, flags),
                        drop(if opens { Reason::SourceKnown } else { Reason::NoFlowKnown }),
                    ),
            );
            let allowed = from(places.stranger, 443, flags);
            let case = |says| case("TP-09", says);
            cases.push(match (real, answers, opens) {
                (false, ..) => case(says).both_ways(&allowed, Reason::TcpFlags),
                (true, true, _) => case(says).inbound(&allowed, Reason::NoFlow),
                (true, _, true) => case(says).inbound(&allowed, Reason::Row).row("A2").connects(),
                (true, ..) => case(says).inbound(&allowed, Reason::Row).row("A2"),
            });
        }
        let fast = from(places.stranger, 443, SYN | PSH).payload(b"early data");
        cases.push(case("TP-09", "fast open").inbound(&fast, Reason::Row).row("A2").connects());
        let options = from(places.stranger, 443, SYN).options(&[2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2]);
        cases.push(case("TP-09", "with options").inbound(&options, Reason::Row).row("A2").connects());
    }
    run("denied_port_is_silent_and_an_allowed_one_takes_real_flags", &cases);
}

#[test]
fn a_well_known_source_port_earns_nothing() {
    let mut cases = Vec::new();
    for places in Places::both() {
        for port in [443, 53, 22, 5_432] {
            for flags in 0..64 {
                let packet = eth().ip(places.database, places.host).tcp(port, 50_000).flags(flags);
                let reason = match (REAL.contains(&(flags & !PSH)), flags & (SYN | ACK) == SYN) {
                    (false, _) => Reason::TcpFlags,
                    (true, true) => Reason::PortKnown,
                    (true, false) => Reason::NoFlowKnown,
                };
                cases.push(
                    case("TP-04", format!("from port {port}, flags {flags:#08b}")).inbound(&packet, reason),
                );
            }
        }
    }
    run("a_well_known_source_port_earns_nothing", &cases);
}

#[test]
fn a_header_that_contradicts_its_length_is_refused() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let packet = eth().ip(places.stranger, places.host).tcp(40_000, 443);
        for words in 0..5_u8 {
            let short = packet.clone().poke(Part::Upper, 12, &[words << 4]);
            cases.push(
                case("TP-10", format!("a header of {words} words")).both_ways(&short, Reason::Malformed),
            );
        }
        for words in 6..16_u8 {
            let long = packet.clone().poke(Part::Upper, 12, &[words << 4]);
            let says = format!("a header of {words} words where five are");
            cases.push(case("TP-10", says).both_ways(&long.pad(&[0; 40]), Reason::Truncated));
        }
        let cut = packet.announcing(if places.is_v6() { 12 } else { 32 });
        cases.push(case("TP-10", "a header of twelve bytes").both_ways(&cut, Reason::Truncated));
    }
    run("a_header_that_contradicts_its_length_is_refused", &cases);
}

#[test]
fn answer_to_nothing_is_dropped_unless_its_tuple_allows_it() {
    let mut cases = Vec::new();
    for places in Places::both() {
        for flags in [SYN | ACK, ACK, RST, RST | ACK, FIN | ACK, ACK | PSH] {
            let says = format!("flags {flags:#08b} about no flow");
            cases.push(case("TP-05", says).inbound(&answer(&places, flags), Reason::NoFlowKnown));
        }
        let served = eth().ip(places.stranger, places.host).tcp(40_000, 443);
        for flags in [ACK, ACK | PSH, FIN | ACK, RST] {
            let says = format!("flags {flags:#08b} in the middle of what a row allows");
            let packet = served.clone().flags(flags);
            cases.push(case("TP-07", says).inbound(&packet, Reason::Row).row("A2"));
        }
        for flags in [SYN | ACK, ACK, RST, RST | ACK, FIN | ACK] {
            let says = format!("our side, flags {flags:#08b}");
            let packet = served.clone().mirrored().flags(flags);
            cases.push(case("TP-07", says).outbound(&packet, Reason::PeerFlow));
        }
        cases.push(
            case("TP-07", "our own SYN from a served port is no answer")
                .outbound(&served.clone().mirrored(), Reason::Destination),
        );
        let refused = eth().ip(places.host, places.stranger).tcp(22, 40_000);
        for flags in [SYN | ACK, ACK, RST, RST | ACK, FIN | ACK] {
            let says = format!("an answer that no row asks for, flags {flags:#08b}");
            let packet = refused.clone().flags(flags);
            cases.push(case("TP-05", says).outbound(&packet, Reason::UnsolicitedReply));
        }
        cases.push(
            case("TP-05", "our SYN-ACK to somebody whom we may call")
                .outbound(&ask(&places, SYN | ACK), Reason::UnsolicitedReply),
        );
        cases.push(
            case("TP-07", "our side of a flow that was lost is remembered again")
                .outbound(&ask(&places, ACK), Reason::Row)
                .row("E1")
                .enters()
                .inbound(&answer(&places, ACK), Reason::OwnFlow),
        );
        cases.push(
            case("TP-07", "as the long one that it is")
                .outbound(&ask(&places, ACK), Reason::Row)
                .row("E1")
                .enters()
                .wait(AGE - 40)
                .inbound(&answer(&places, ACK), Reason::OwnFlow),
        );
    }
    run("answer_to_nothing_is_dropped_unless_its_tuple_allows_it", &cases);
}

#[test]
fn a_flow_of_ours_lives_through_what_tcp_does() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let [ask, answer] = [ask, answer].map(|side| move |flags| side(&places, flags));
        cases.push(
            established("TP-02", "handshake, data, both ends, late retransmits", &places)
                .inbound(&answer(ACK | PSH), Reason::OwnFlow)
                .outbound(&ask(FIN | ACK), Reason::OwnFlow)
                .row("E1")
                .inbound(&answer(FIN | ACK), Reason::OwnFlow)
                .outbound(&ask(ACK), Reason::OwnFlow)
                .row("E1")
                .inbound(&answer(FIN | ACK), Reason::OwnFlow),
        );
        cases.push(
            established("TP-11", "a reset, repeated, then the same ports again", &places)
                .inbound(&answer(RST), Reason::OwnFlow)
                .inbound(&answer(RST), Reason::OwnFlow)
                .outbound(&ask(SYN), Reason::Row)
                .row("E1")
                .connects()
                .inbound(&answer(SYN | ACK), Reason::OwnFlow),
        );
        cases.push(
            established(
                "TP-11",
                "f03: a reset of the peer's, which anybody may forge, shortens nothing",
                &places,
            )
            .inbound(&answer(RST), Reason::OwnFlow)
            .wait(AGE - 10)
            .inbound(&answer(ACK), Reason::OwnFlow),
        );
        cases.push(
            established("TP-11", "nor does it keep anything", &places)
                .wait(AGE - 440)
                .inbound(&answer(RST), Reason::OwnFlow)
                .wait(443)
                .inbound(&answer(ACK), Reason::NoFlowKnown),
        );
        cases.push(
            established("TP-14", "a SYN of the peer inside is no answer, and closes nothing", &places)
                .inbound(&answer(SYN), Reason::PortKnown)
                .wait(AGE - 440)
                .inbound(&answer(ACK), Reason::OwnFlow),
        );
        cases.push(
            opened("TP-16", "both sides open at once: the peer's SYN is no answer, its SYN-ACK is", &places)
                .inbound(&answer(SYN), Reason::PortKnown)
                .outbound(&ask(SYN), Reason::Row)
                .row("E1")
                .connects()
                .inbound(&answer(SYN | ACK), Reason::OwnFlow),
        );
        cases.push(
            established("TP-17", "silence for all but ten seconds of the age", &places)
                .wait(AGE - 10)
                .inbound(&answer(ACK), Reason::OwnFlow)
                .wait(AGE - 10)
                .outbound(&ask(ACK), Reason::OwnFlow)
                .row("E1"),
        );
        cases.push(
            established("TP-17", "silence for longer", &places)
                .wait(AGE + 3)
                .inbound(&answer(ACK), Reason::NoFlowKnown)
                .outbound(&ask(ACK), Reason::Row)
                .row("E1")
                .enters(),
        );
        let retransmits = [1, 2, 4, 8, 16, 32, 64];
        let patient =
            retransmits.into_iter().fold(opened("TP-18", "a SYN again and again", &places), |case, wait| {
                case.wait(wait).outbound(&ask(SYN), Reason::Row).row("E1").connects()
            });
        cases.push(patient.wait(110).inbound(&answer(SYN | ACK), Reason::OwnFlow));
        cases.push(
            opened("TP-19", "a SYN that is never answered", &places)
                .wait(123)
                .inbound(&answer(SYN | ACK), Reason::NoFlowKnown),
        );
        cases.push(
            opened("TP-19", "our own packets do not make it established", &places)
                .outbound(&ask(ACK), Reason::OwnFlow)
                .row("E1")
                .wait(123)
                .inbound(&answer(ACK), Reason::NoFlowKnown),
        );
        let other = if places.is_v6() { Places::v4() } else { Places::v6() };
        cases.push(
            established("TP-24", "the same ports in the other family", &places)
                .inbound(&self::answer(&other, ACK), Reason::NoFlowKnown)
                .inbound(&answer(ACK), Reason::OwnFlow),
        );
        let elsewhere = eth().ip(places.stranger, places.host).tcp(5_432, 40_000).flags(ACK);
        let neighbour = eth().ip(places.database, places.host).tcp(5_432, 40_001).flags(ACK);
        let datagram = eth().ip(places.database, places.host).udp(5_432, 40_000);
        cases.push(
            established("TP-05", "only the whole tuple is an answer", &places)
                .inbound(&elsewhere, Reason::NoFlow)
                .inbound(&neighbour, Reason::NoFlowKnown)
                .inbound(&datagram, Reason::PortKnown),
        );
    }
    run("a_flow_of_ours_lives_through_what_tcp_does", &cases);
}

#[test]
fn a_flow_that_is_entered_anew_by_a_fin_is_half_closed() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let ours = |flags| ask(&places, flags);
        let fin = |says: &str| case("TP-11", says).outbound(&ours(FIN | ACK), Reason::Row).row("E1").enters();
        cases.push(fin("our FIN").wait(AGE - 40).inbound(&answer(&places, ACK), Reason::OwnFlow));
        cases.push(
            fin("our FIN and the peer's")
                .inbound(&answer(&places, FIN | ACK), Reason::OwnFlow)
                .wait(243)
                .inbound(&answer(&places, ACK), Reason::NoFlowKnown),
        );
        cases.push(
            case("TP-11", "a reset of ours, which nothing answers, enters nothing")
                .outbound(&ours(RST), Reason::Row)
                .row("E1")
                .inbound(&answer(&places, ACK), Reason::NoFlowKnown),
        );
    }
    run("a_flow_that_is_entered_anew_by_a_fin_is_half_closed", &cases);
}

/// f01, f02: each way in which a connection is closed, and the packets that may follow.
#[test]
fn a_flow_is_closed_by_both_fins_or_by_our_reset() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let started = |says: &str| established("TP-11", says, &places);
        let sent = |case: Case, flags| case.outbound(&ask(&places, flags), Reason::OwnFlow).row("E1");
        let heard = |case: Case, flags| case.inbound(&answer(&places, flags), Reason::OwnFlow);
        let silent = |case: Case, wait| case.wait(wait).inbound(&answer(&places, ACK), Reason::NoFlowKnown);
        let reopened = |case: Case| case.outbound(&ask(&places, SYN), Reason::Row).row("E1").connects();
        let again = |case: Case| heard(sent(heard(case, SYN | ACK), ACK).wait(AGE - 40), ACK);
        let ours_first = |says| sent(heard(heard(sent(started(says), FIN | ACK), ACK), FIN | ACK), ACK);
        let theirs_first = |says| heard(sent(sent(heard(started(says), FIN | ACK), ACK), FIN | ACK), ACK);
        let both = |says| heard(sent(heard(sent(started(says), FIN | ACK), FIN | ACK), ACK), ACK);
        let reset = |says| sent(started(says), RST);
        let ends: [(&str, &dyn Fn(&'static str) -> Case); 4] = [
            ("this host closes first", &ours_first),
            ("the peer closes first", &theirs_first),
            ("both close at once", &both),
            ("this host resets", &reset),
        ];
        for (says, ended) in ends {
            cases.push(silent(ended(says), 243));
            // The peer repeats its FIN, which this host has not acknowledged.
            cases.push(silent(heard(ended(says).wait(200), FIN | ACK), 43));
            // TP-28.
            cases.push(again(reopened(ended(says))));
            cases.push(again(reopened(ended(says).wait(243)).enters()));
        }
        cases.push(silent(
            sent(ours_first("what we repeat keeps it, for as long as we do").wait(200), ACK),
            243,
        ));
        cases.push(silent(sent(reset("what we reset again does not").wait(200), RST), 43));
        let half = sent(started("half-closed by this host"), FIN | ACK);
        cases.push(heard(heard(half, ACK).wait(AGE - 40), ACK | PSH));
        let half = heard(started("half-closed by the peer, or by who says so"), FIN | ACK);
        cases.push(heard(sent(half, ACK).wait(AGE - 40), ACK));
        let refused = sent(heard(started("reset before it was opened"), ACK), RST);
        cases.push(heard(sent(refused, ACK).wait(AGE - 40), ACK));
    }
    run("a_flow_is_closed_by_both_fins_or_by_our_reset", &cases);
}

/// A quarter of a million flows are entered on the host only: in the kernel that takes minutes.
#[test]
fn what_cannot_be_remembered_does_not_leave() {
    let mut datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
    let syn = |number: usize| {
        let peer = Ipv4Addr::new(10, 9, 2, (number / 60_000) as u8);
        eth().ipv4(Ipv4Addr::new(10, 9, 0, 2), peer).tcp((number % 60_000) as u16 + 1, 5_432)
    };
    let full = (0..2 * limits::FLOWS).find_map(|number| {
        let packet = syn(number);
        let effect = datapath.judge(Direction::Outbound, &packet.build()).expect("both ways agree");
        if effect.reason != Reason::Row {
            return Some(effect);
        }
        // An answered flow yields to nothing.
        let answer = packet.mirrored().flags(SYN | ACK).build();
        assert_eq!(
            datapath.judge(Direction::Inbound, &answer).expect("both ways agree").reason,
            Reason::OwnFlow
        );
        None
    });
    assert_eq!(full, Some(Effect::of(Reason::FlowTableFull)), "FL-04");
}
