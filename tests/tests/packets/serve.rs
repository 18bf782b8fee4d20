//! A stranger's exchange ends with the rule that admitted it, and an exchange that only audit admitted is
//! counted packet by packet (f04).

use std::iter;

use pomguard::policy::{Direction, Mode, Policy, PortRange};
use pomguard_common::{
    control::{Override, suspension},
    protocol::{TCP, UDP},
    reason::Reason,
};
use pomguard_tests::{
    control_state::ControlState,
    packet::{
        Packet, eth,
        flag::{ACK, PSH, RST, SYN},
    },
    reference::{self, Places, row},
};

use crate::{
    case::{Case, case, run_under},
    overrides::{A3, exceptions_for, override_rule},
};

/// A protocol without ports.
const GRE: u8 = 47;

fn modes(inbound: Mode, outbound: Mode) -> Policy {
    Policy { inbound, outbound, ..reference::policy() }
}

/// The packets of an exchange between a stranger and this host, TCP and UDP.
struct Talk {
    ask: Packet,
    accept: Packet,
    say: Packet,
    push: Packet,
    question: Packet,
    answer: Packet,
}

impl Talk {
    fn of(places: &Places) -> Self {
        let ask = eth().ip(places.stranger, places.host).tcp(40_000, 3_306);
        let question = eth().ip(places.stranger, places.host).udp(40_000, 161).payload(&[1; 9]);
        Self {
            accept: ask.clone().mirrored().flags(SYN | ACK),
            say: ask.clone().flags(ACK | PSH),
            push: ask.clone().mirrored().flags(ACK | PSH),
            answer: question.clone().mirrored(),
            ask,
            question,
        }
    }

    /// Adds the results in mode `outbound` of an answer without a question, and of such a datagram.
    fn unasked(&self, mut case: Case, outbound: Mode) -> Case {
        case = case.outbound(&self.push, Reason::UnsolicitedReply);
        case = if outbound == Mode::Enforce { case } else { case.audited() };
        match outbound {
            Mode::Track => case.outbound(&self.answer, Reason::Untracked),
            Mode::Audit => case.outbound(&self.answer, Reason::Destination).audited(),
            Mode::Enforce => case.outbound(&self.answer, Reason::Destination),
        }
    }

    /// Expects that no packet of the exchange comes in, whatever this host sends.
    fn is_over(&self, case: Case, outbound: Mode) -> Case {
        let case = self.unasked(case, outbound);
        case.inbound(&self.say, Reason::NoFlow).inbound(&self.question, Reason::Port)
    }
}

#[test]
fn f04_what_audit_let_in_ends_with_the_promotion() {
    for outbound in [Mode::Track, Mode::Audit, Mode::Enforce] {
        let after = if outbound == Mode::Track { Mode::Track } else { Mode::Enforce };
        let mut cases = Vec::new();
        for places in Places::both() {
            let talk = Talk::of(&places);
            let mut case = case("f04", format!("promote, outbound {}", outbound.name()));
            case = case.inbound(&talk.ask, Reason::Port).audited();
            case = case.outbound(&talk.accept, Reason::UnsolicitedReply).audited();
            case = case.inbound(&talk.question, Reason::Port).audited();
            for _ in 0..2 {
                case = case.inbound(&talk.say, Reason::NoFlow).audited();
                case = case.outbound(&talk.push, Reason::UnsolicitedReply).audited();
                case = match outbound {
                    Mode::Track => case.outbound(&talk.answer, Reason::Untracked),
                    _ => case.outbound(&talk.answer, Reason::Destination).audited(),
                };
                case = case.inbound(&talk.question, Reason::Port).audited();
            }
            cases.push(talk.is_over(case.change(modes(Mode::Enforce, after)), after));
        }
        let name = "f04_what_audit_let_in_ends_with_the_promotion";
        run_under(name, modes(Mode::Audit, outbound), &cases);
    }
}

#[test]
fn f04_what_a_bypass_let_in_ends_with_it() {
    for outbound in [Mode::Track, Mode::Enforce] {
        let open = ControlState { suspension: Some((suspension::BYPASS, 60)), ..ControlState::default() };
        let mut cases = Vec::new();
        for places in Places::both() {
            let talk = Talk::of(&places);
            let during = case("f04", format!("bypass, outbound {}", outbound.name()))
                .holding(open.clone())
                .inbound(&talk.ask, Reason::Port)
                .audited()
                .outbound(&talk.accept, Reason::UnsolicitedReply)
                .audited()
                .inbound(&talk.question, Reason::Port)
                .audited();
            let held = if outbound == Mode::Enforce { Mode::Audit } else { outbound };
            let case = talk.unasked(during, held).wait(61);
            cases.push(talk.is_over(case, outbound));
        }
        run_under("f04_what_a_bypass_let_in_ends_with_it", modes(Mode::Enforce, outbound), &cases);
    }
}

#[test]
fn f04_what_an_exception_let_in_ends_with_it() {
    for outbound in [Mode::Track, Mode::Enforce] {
        let mut cases = Vec::new();
        for places in Places::both() {
            let talk = Talk::of(&places);
            let lines = [(TCP, 3_306), (UDP, 161)];
            let lines = lines.map(|(protocol, port)| {
                override_rule(places.stranger, protocol, port, A3, Override::EXCEPTION)
            });
            let case = case("f04", format!("exception, outbound {}", outbound.name()))
                .holding(exceptions_for(60, &lines))
                .inbound(&talk.ask, Reason::Exception)
                .row("A3")
                .connects()
                .outbound(&talk.accept, Reason::PeerFlow)
                .inbound(&talk.say, Reason::Exception)
                .row("A3")
                .outbound(&talk.push, Reason::PeerFlow)
                .inbound(&talk.question, Reason::Exception)
                .row("A3")
                .wait(61);
            cases.push(talk.is_over(case, outbound));
        }
        run_under("f04_what_an_exception_let_in_ends_with_it", modes(Mode::Enforce, outbound), &cases);
    }
}

#[test]
fn f04_what_a_row_let_in_ends_with_the_row() {
    for outbound in [Mode::Track, Mode::Enforce] {
        let mut policy = modes(Mode::Enforce, outbound);
        for (id, protocol, port) in [("A8", TCP, 3_306), ("A9", UDP, 161)] {
            let peers = ["198.51.100.9/32", "2001:db8::9/128"];
            policy.rows.push(row(id, Direction::Inbound, &peers, protocol, PortRange::one(port)));
        }
        let mut cases = Vec::new();
        for places in Places::both() {
            let talk = Talk::of(&places);
            let case = case("f04", format!("row gone, outbound {}", outbound.name()))
                .inbound(&talk.ask, Reason::Row)
                .row("A8")
                .connects()
                .outbound(&talk.accept, Reason::PeerFlow)
                .inbound(&talk.say, Reason::Row)
                .row("A8")
                .inbound(&talk.question, Reason::Row)
                .row("A9")
                .outbound(&talk.answer, Reason::PeerFlow)
                .change(modes(Mode::Enforce, outbound));
            cases.push(talk.is_over(case, outbound));
        }
        run_under("f04_what_a_row_let_in_ends_with_the_row", policy, &cases);
    }
}

/// A port that serves keeps nobody from opening connections, and an outbound row keeps its meaning.
#[test]
fn own_flows_from_a_serving_port_are_remembered() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let stranger = eth().ip(places.stranger, places.host).tcp(40_000, 40_000);
        let ask = eth().ip(places.host, places.elsewhere).tcp(40_000, 8_080);
        let listed = eth().ip(places.host, places.database).tcp(40_000, 5_432).flags(ACK);
        cases.push(
            case("f04", "a SYN, and a segment that a row allows")
                .inbound(&stranger, Reason::Port)
                .audited()
                .outbound(&ask, Reason::Untracked)
                .enters()
                .outbound(&listed, Reason::Row)
                .row("E1")
                .enters(),
        );
        let early = eth().ip(places.stranger, places.host).udp(9, 40_000).payload(&[1; 9]);
        let names = eth().ip(places.host, places.elsewhere).udp(40_000, 123).payload(&[1; 9]);
        cases.push(
            case("f04", "a datagram, once the port serves no more")
                .inbound(&early, Reason::Port)
                .audited()
                .outbound(&names, Reason::Untracked)
                .inbound(&names.clone().mirrored(), Reason::PortKnown)
                .audited()
                .wait(130)
                .outbound(&names, Reason::Untracked)
                .enters()
                .inbound(&names.clone().mirrored(), Reason::OwnFlow),
        );
    }
    let name = "own_flows_from_a_serving_port_are_remembered";
    run_under(name, modes(Mode::Audit, Mode::Track), &cases);
}

/// Of 20 packets of one exchange 20 are counted, because enforce would drop 20.
#[test]
fn f04_audit_counts_every_packet_that_enforce_would_drop() {
    let closed = |places: &Places| {
        let knock = eth().ip(places.stranger, places.host).tcp(40_000, 81).flags(ACK);
        let reset = knock.clone().mirrored().flags(RST);
        (0..20).fold(case("f04", "ACKs to a closed port"), |case, _| {
            case.inbound(&knock, Reason::NoFlow).audited().outbound(&reset, Reason::Untracked)
        })
    };
    let datagrams = |places: &Places| {
        let question = eth().ip(places.stranger, places.host).udp(40_000, 161).payload(&[1; 9]);
        let answer = question.clone().mirrored();
        (0..20).fold(case("f04", "datagrams from one port"), |case, _| {
            case.inbound(&question, Reason::Port).audited().outbound(&answer, Reason::Untracked)
        })
    };
    let knocks = |places: &Places| {
        (1..=200).fold(case("f04", "SYNs to closed ports"), |case, port| {
            let knock = eth().ip(places.stranger, places.host).tcp(40_000, 10_000 + port);
            let reset = knock.clone().mirrored().flags(RST | ACK);
            case.inbound(&knock, Reason::Port).audited().outbound(&reset, Reason::UnsolicitedReply).audited()
        })
    };
    let pieces = |places: &Places| {
        (1..=10).fold(case("f04", "datagrams in three pieces"), |case, id| {
            let piece = eth().ip(places.stranger, places.host);
            let head = piece.clone().fragment(id, 0, true).udp(40_000, 161).payload(&[1; 16]);
            let rest = |at, more| piece.clone().fragment(id, at, more).protocol(UDP).payload(&[2; 16]);
            case.inbound(&head, Reason::Port)
                .audited()
                .inbound(&rest(24, true), Reason::FragmentUnknown)
                .audited()
                .inbound(&rest(40, false), Reason::FragmentUnknown)
                .audited()
        })
    };
    let cases: Vec<Case> = Places::both()
        .iter()
        .flat_map(|places| [closed(places), datagrams(places), knocks(places), pieces(places)])
        .collect();
    let name = "f04_audit_counts_every_packet_that_enforce_would_drop";
    run_under(name, modes(Mode::Audit, Mode::Track), &cases);
}

/// Inbound audit with outbound enforce: an answer leaves, and is counted as the drop that enforce would make.
#[test]
fn f04_answers_to_audit_passes_leave_in_every_protocol() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let talk = Talk::of(&places);
        let tunnel = eth().ip(places.stranger, places.host).protocol(GRE).payload(&[0; 24]);
        let back = tunnel.clone().mirrored();
        let nothing_came = case("f04", "not before anything came in")
            .outbound(&talk.answer, Reason::Destination)
            .outbound(&back, Reason::Destination);
        let mut answers = case("f04", "answers of UDP and GRE");
        for _ in 0..10 {
            answers = answers.inbound(&talk.question, Reason::Port).audited();
            answers = answers.outbound(&talk.answer, Reason::Destination).audited();
            answers = answers.inbound(&tunnel, Reason::Protocol).audited();
            answers = answers.outbound(&back, Reason::Destination).audited();
        }
        let head = talk.answer.clone().fragment(5, 0, true).payload(&[1; 16]);
        let rest =
            eth().ip(places.host, places.stranger).fragment(5, 24, false).protocol(UDP).payload(&[2; 16]);
        let pieces = case("f04", "an answer in pieces")
            .inbound(&talk.question, Reason::Port)
            .audited()
            .outbound(&head, Reason::Destination)
            .audited()
            .outbound(&rest, Reason::FragmentUnknown)
            .audited()
            .change(modes(Mode::Enforce, Mode::Enforce))
            .outbound(&rest, Reason::FragmentUnknown);
        cases.extend(iter::once(nothing_came).chain([answers, pieces]));
    }
    let name = "f04_answers_to_audit_passes_leave_in_every_protocol";
    run_under(name, modes(Mode::Audit, Mode::Enforce), &cases);
}
