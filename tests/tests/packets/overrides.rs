//! Overrides alongside the policy in force: failsafe tuples and timed exceptions.

use std::net::IpAddr;

use pomguard::policy::Policy;
use pomguard_common::{
    control::{Override, suspension},
    image::Family,
    limits,
    protocol::{TCP, UDP},
    reason::Reason,
};
use pomguard_tests::{
    control_state::ControlState,
    packet::{
        Packet, eth,
        flag::{ACK, FIN, SYN},
    },
    reference::{self, Places},
};

use crate::case::{AGE, case, run_under};

/// A protocol without a constant in the programs, which do not read its ports.
const SCTP: u8 = 132;

/// Counter slot of row A3 of the reference policy. The order of its rows is A1 to A3, E1, E2.
pub(crate) const A3: u16 = 2;
/// Counter slot of row E1 of the reference policy.
pub(crate) const E1: u16 = 3;

/// Returns an override for one peer and one port, counted under the slot of a row.
pub(crate) fn override_rule(peer: IpAddr, protocol: u8, port: u16, row: u16, marks: u8) -> Override {
    let (words, family) = match peer {
        IpAddr::V4(peer) => ([u32::from(peer), 0, 0, 0], Family::V4),
        IpAddr::V6(peer) => ([96, 64, 32, 0].map(|shift| (u128::from(peer) >> shift) as u32), Family::V6),
    };
    Override {
        peer: words,
        mask: [u32::MAX; 4],
        ports: u32::from(port) | u32::from(port) << 16,
        client_ports: 1_024 | 65_535 << 16,
        row,
        protocol,
        marks: family as u8 | marks,
        slots: Override::EVERY_SLOT,
        ..Override::FREE
    }
}

fn exceptions(lines: &[Override]) -> ControlState {
    exceptions_for(60, lines)
}

pub(crate) fn exceptions_for(seconds: u32, lines: &[Override]) -> ControlState {
    ControlState { overrides: lines.iter().map(|line| (*line, seconds)).collect(), ..ControlState::default() }
}

/// Returns the reference policy with A1 as a failsafe row.
pub(crate) fn with_failsafe() -> Policy {
    let mut policy = reference::policy();
    policy.rows[0].failsafe = true;
    policy
}

pub(crate) fn isolated(seconds: u32) -> ControlState {
    ControlState { suspension: Some((suspension::LOCKDOWN, seconds)), ..ControlState::default() }
}

pub(crate) fn complaint(places: &Places, about: &Packet) -> Packet {
    let (kind, code) = if places.is_v6() { (2, 0) } else { (3, 4) };
    eth().ip(places.stranger, places.host).icmp(kind, code).rest(1_400).payload(&about.quoted())
}

/// A failsafe row belongs to a generation: packets are judged by slot 0 here, and by the last slot without a policy.
#[test]
fn failsafe_row_of_another_generation_lets_nothing_through() {
    let mut cases = Vec::new();
    let bit = |slot: usize| Override::slot_bit(slot as u32);
    let last = limits::GENERATIONS - 1;
    for places in Places::both() {
        let login = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        let line = |slots| Override { slots, ..override_rule(places.stranger, TCP, 22, A3, 0) };
        let under = |slots, suspension, no_policy| ControlState {
            suspension,
            no_policy,
            ..exceptions(&[line(slots)])
        };
        let isolated = Some((suspension::LOCKDOWN, 60));
        cases.push(
            case("CF-11", "its own generation, another one, and both")
                .holding(under(bit(0), None, false))
                .inbound(&login, Reason::Failsafe)
                .row("A3")
                .connects()
                .holding(under(Override::EVERY_SLOT & !bit(0), None, false))
                .inbound(&login, Reason::Source)
                .outbound(&login.clone().mirrored().flags(SYN | ACK), Reason::UnsolicitedReply)
                .holding(under(bit(0) | bit(1), None, false))
                .inbound(&login, Reason::Failsafe)
                .row("A3")
                .connects()
                .holding(under(bit(1), isolated, false))
                .inbound(&login, Reason::Isolated)
                .holding(under(bit(0), isolated, false))
                .inbound(&login, Reason::Failsafe)
                .row("A3")
                .connects(),
        );
        cases.push(
            case("CF-11", "without a policy in its slot")
                .holding(under(bit(0), None, true))
                .inbound(&login, Reason::NoPolicy)
                .holding(under(bit(last), None, true))
                .inbound(&login, Reason::Failsafe)
                .row("A3")
                .connects(),
        );
    }
    run_under("failsafe_row_of_another_generation_lets_nothing_through", reference::policy(), &cases);
}

#[test]
fn a_timed_exception_lets_a_peer_in_until_it_is_over() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let login = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        let reply = login.clone().mirrored().flags(SYN | ACK);
        let control_state = exceptions(&[
            override_rule(places.stranger, TCP, 22, A3, Override::EXCEPTION),
            override_rule(places.stranger, UDP, 514, A3, Override::EXCEPTION),
        ]);
        cases.push(
            case("CF-11", "a login, its answer and its end")
                .inbound(&login, Reason::Source)
                .outbound(&reply, Reason::UnsolicitedReply)
                .holding(control_state.clone())
                .inbound(&login, Reason::Exception)
                .row("A3")
                .connects()
                .outbound(&reply, Reason::PeerFlow)
                .inbound(&login.clone().flags(ACK), Reason::Exception)
                .row("A3")
                .inbound(&complaint(&places, &reply), Reason::IcmpRelated)
                .inbound(&login.clone().flags(FIN | ACK), Reason::Exception)
                .row("A3")
                .wait(61)
                .inbound(&login.clone().flags(ACK), Reason::NoFlow)
                .inbound(&login, Reason::Source)
                .outbound(&reply, Reason::UnsolicitedReply)
                .inbound(&complaint(&places, &reply), Reason::IcmpUnrelated),
        );
        let log = eth().ip(places.stranger, places.host).udp(40_000, 514);
        cases.push(
            case("CF-11", "a datagram and its answer")
                .holding(control_state.clone())
                .inbound(&log, Reason::Exception)
                .row("A3")
                .outbound(&log.clone().mirrored(), Reason::PeerFlow)
                .wait(61)
                .inbound(&log, Reason::Port),
        );
        let (number, request, unreachable) = if places.is_v6() { (58, 128, 1) } else { (1, 8, 3) };
        let ping = eth().ip(places.elsewhere, places.host).icmp(request, 0).rest(5 << 16);
        let error = eth().ip(places.host, places.elsewhere).icmp(unreachable, 3);
        let echo = Override {
            client_ports: 65_535 << 16,
            ..override_rule(places.elsewhere, number, number.into(), A3, Override::EXCEPTION)
        };
        cases.push(
            case("CF-11", "a ping, and an error about it")
                .holding(exceptions(&[echo]))
                .outbound(&error.clone().payload(&ping.quoted()), Reason::IcmpRelated)
                .wait(61)
                .outbound(&error.payload(&ping.quoted()), Reason::IcmpUnrelated),
        );
        let other = |from, port| eth().ip(from, places.host).tcp(40_000, port);
        cases.push(
            case("CF-11", "nothing else")
                .holding(control_state)
                .inbound(&other(places.stranger, 23), Reason::Port)
                .inbound(&other(places.elsewhere, 514), Reason::PortKnown)
                .inbound(&eth().ip(places.stranger, places.host).tcp(1_023, 22), Reason::Source)
                .inbound(&login.clone().flags(SYN | ACK), Reason::NoFlow)
                .inbound(&login.clone().flags(0), Reason::TcpFlags)
                .inbound(&eth().ip(places.stranger, places.elsewhere).tcp(40_000, 22), Reason::NotLocal)
                .outbound(&eth().ip(places.host, places.stranger).tcp(40_000, 22), Reason::Destination),
        );
        cases.push(
            case("CF-11", "a row counts before an exception")
                .holding(exceptions(&[override_rule(places.stranger, TCP, 443, A3, Override::EXCEPTION)]))
                .inbound(&other(places.stranger, 443), Reason::Row)
                .row("A2")
                .connects(),
        );
    }
    run_under("a_timed_exception_lets_a_peer_in_until_it_is_over", reference::policy(), &cases);
}

#[test]
fn a_timed_exception_lets_this_host_out_until_it_is_over() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        let answer = ask.clone().mirrored().flags(SYN | ACK);
        let marks = Override::EXCEPTION | Override::OUTBOUND;
        cases.push(
            case("CF-11", "a flow ends with the exception, though it lives")
                .outbound(&ask, Reason::Destination)
                .holding(exceptions(&[override_rule(places.stranger, TCP, 8_080, E1, marks)]))
                .inbound(&answer, Reason::NoFlow)
                .outbound(&ask, Reason::Exception)
                .row("E1")
                .connects()
                .enters()
                .outbound(&ask, Reason::Exception)
                .row("E1")
                .connects()
                .inbound(&answer, Reason::OwnFlow)
                .outbound(&ask.clone().flags(ACK), Reason::OwnFlow)
                .row("E1")
                .inbound(&complaint(&places, &ask), Reason::IcmpRelated)
                .outbound(&ask.clone().flags(FIN | ACK), Reason::OwnFlow)
                .row("E1")
                .wait(61)
                .inbound(&answer.clone().flags(ACK), Reason::NoFlow)
                .inbound(&complaint(&places, &ask), Reason::IcmpUnrelated)
                .outbound(&ask.clone().flags(ACK), Reason::UnsolicitedReply)
                .outbound(&ask, Reason::Destination),
        );
        let nobody = if places.is_v6() { "::1" } else { "127.0.0.1" };
        let nobody = nobody.parse().expect("an address");
        cases.push(
            case("CF-11", "not to somebody who cannot be")
                .holding(exceptions(&[override_rule(nobody, TCP, 8_080, E1, marks)]))
                .outbound(&eth().ip(places.host, nobody).tcp(40_000, 8_080), Reason::Destination),
        );
        let question = eth().ip(places.host, places.stranger).udp(40_000, 123);
        cases.push(
            case("CF-11", "a question and its answer")
                .holding(exceptions(&[override_rule(places.stranger, UDP, 123, E1, marks)]))
                .inbound(&question.clone().mirrored(), Reason::Port)
                .outbound(&question, Reason::Exception)
                .row("E1")
                .connects()
                .enters()
                .inbound(&question.clone().mirrored(), Reason::OwnFlow)
                .outbound(&question, Reason::OwnFlow)
                .row("E1"),
        );
    }
    run_under("a_timed_exception_lets_this_host_out_until_it_is_over", reference::policy(), &cases);
}

#[test]
fn flow_of_an_override_ages_as_one_of_a_row() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let marks = Override::EXCEPTION | Override::OUTBOUND;
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        let answer = ask.clone().mirrored().flags(SYN | ACK);
        let held = exceptions_for(AGE + 9_000, &[override_rule(places.stranger, TCP, 8_080, E1, marks)]);
        let asked = |says: &str| {
            let case = case("TP-19", says).holding(held.clone());
            case.outbound(&ask, Reason::Exception).row("E1").connects().enters()
        };
        cases.push(asked("nobody answers").wait(123).inbound(&answer, Reason::NoFlow));
        cases.push(
            asked("an answer makes a flow of it")
                .inbound(&answer, Reason::OwnFlow)
                .wait(AGE - 40)
                .inbound(&answer.clone().flags(ACK), Reason::OwnFlow),
        );
        cases.push(
            asked("and both ends end it")
                .inbound(&answer, Reason::OwnFlow)
                .inbound(&answer.clone().flags(FIN | ACK), Reason::OwnFlow)
                .outbound(&ask.clone().flags(FIN | ACK), Reason::OwnFlow)
                .row("E1")
                .wait(243)
                .inbound(&answer.clone().flags(ACK), Reason::NoFlow),
        );
        let question = eth().ip(places.host, places.stranger).udp(40_000, 123);
        cases.push(
            case("UD-03", "an answer does not keep a question alive")
                .holding(exceptions_for(9_000, &[override_rule(places.stranger, UDP, 123, E1, marks)]))
                .outbound(&question, Reason::Exception)
                .row("E1")
                .connects()
                .enters()
                .inbound(&question.clone().mirrored(), Reason::OwnFlow)
                .wait(303)
                .inbound(&question.clone().mirrored(), Reason::Port),
        );
        // In a tuple without ports the protocol takes the place of the port.
        let associated =
            Override { client_ports: 0, ..override_rule(places.stranger, SCTP, SCTP.into(), E1, marks) };
        let chunk = eth().ip(places.host, places.stranger).protocol(SCTP).payload(&[0; 16]);
        cases.push(
            case("CF-11", "what has no ports enters no flow")
                .holding(exceptions_for(600, &[associated]))
                .outbound(&chunk, Reason::Exception)
                .row("E1")
                .outbound(&chunk, Reason::Exception)
                .row("E1")
                .inbound(&chunk.clone().mirrored(), Reason::Protocol),
        );
    }
    run_under("flow_of_an_override_ages_as_one_of_a_row", reference::policy(), &cases);
}

#[test]
fn single_override_is_found_by_any_bit_of_the_port_bloom() {
    let mut cases = Vec::new();
    for places in Places::both() {
        // The lowest bit: the whole word is 1, as it would be if the word were a boolean.
        let lowest = (1..u16::MAX).find(|port| Override::port_bloom_bit(TCP, *port) == 1).unwrap();
        let highest = (1..u16::MAX).find(|port| Override::port_bloom_bit(TCP, *port) == 1 << 63).unwrap();
        for port in [lowest, highest] {
            let login = eth().ip(places.stranger, places.host).tcp(40_000, port);
            cases.push(
                case("CF-11", "an exception that has the port bloom for itself")
                    .inbound(&login, Reason::Port)
                    .holding(exceptions(&[override_rule(
                        places.stranger,
                        TCP,
                        port,
                        A3,
                        Override::EXCEPTION,
                    )]))
                    .inbound(&login, Reason::Exception)
                    .row("A3")
                    .connects()
                    .outbound(&login.clone().mirrored().flags(SYN | ACK), Reason::PeerFlow),
            );
        }
    }
    run_under("single_override_is_found_by_any_bit_of_the_port_bloom", reference::policy(), &cases);
}

#[test]
fn outbound_failsafe_tuple_holds_in_lockdown_until_its_end() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        let answer = ask.clone().mirrored().flags(SYN | ACK);
        let outward = vec![(override_rule(places.stranger, TCP, 8_080, E1, Override::OUTBOUND), 60)];
        cases.push(
            case("CF-11", "a failsafe tuple ends with its time, though the flow lives")
                .holding(ControlState { overrides: outward.clone(), ..ControlState::default() })
                .outbound(&ask, Reason::Failsafe)
                .row("E1")
                .connects()
                .enters()
                .inbound(&answer, Reason::OwnFlow)
                .wait(61)
                .inbound(&answer.clone().flags(ACK), Reason::NoFlow)
                .outbound(&ask.clone().flags(ACK), Reason::UnsolicitedReply),
        );
        cases.push(
            case("CF-11", "isolated, an error is about what this host really said")
                .holding(ControlState { overrides: outward, ..isolated(600) })
                .inbound(&complaint(&places, &ask), Reason::Isolated)
                .outbound(&ask, Reason::Failsafe)
                .row("E1")
                .connects()
                .enters()
                .inbound(&complaint(&places, &ask), Reason::IcmpRelated),
        );
        // A2 lets anybody connect to the port that this packet would be sent from.
        let never_sent = eth().ip(places.host, places.stranger).tcp(443, 8_080);
        let outward = override_rule(places.stranger, TCP, 8_080, E1, Override::OUTBOUND);
        let outward = Override { client_ports: 65_535 << 16, ..outward };
        cases.push(
            case("CF-11", "isolated, an error about what a row alone would allow")
                .inbound(&complaint(&places, &never_sent), Reason::IcmpRelated)
                .holding(ControlState { overrides: vec![(outward, 600)], ..isolated(600) })
                .inbound(&complaint(&places, &never_sent), Reason::Isolated),
        );
    }
    run_under("outbound_failsafe_tuple_holds_in_lockdown_until_its_end", reference::policy(), &cases);
}

#[test]
fn failsafe_tuples_hold_under_another_policy_and_under_none() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let login = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        let reply = login.clone().mirrored().flags(SYN | ACK);
        let held = vec![(override_rule(places.stranger, TCP, 22, A3, 0), 600)];
        cases.push(
            case("CF-11", "under another policy")
                .holding(ControlState { overrides: held.clone(), ..ControlState::default() })
                .inbound(&login, Reason::Failsafe)
                .row("A3")
                .connects()
                .outbound(&reply, Reason::PeerFlow),
        );
        let none = |suspension| ControlState {
            overrides: held.clone(),
            no_policy: true,
            suspension,
            ..ControlState::default()
        };
        let served = eth().ip(places.stranger, places.host).tcp(40_000, 443);
        cases.push(
            case("CF-11", "under none")
                .holding(none(None))
                .inbound(&login, Reason::Failsafe)
                .row("A3")
                .connects()
                .outbound(&reply, Reason::PeerFlow)
                .inbound(&login.clone().flags(ACK), Reason::Failsafe)
                .row("A3")
                .inbound(&served, Reason::NoPolicy)
                .outbound(&served.clone().mirrored().flags(SYN | ACK), Reason::NoPolicy)
                .outbound(&eth().ip(places.host, places.database).tcp(40_000, 5_432), Reason::NoPolicy)
                .inbound(&login.clone().flags(SYN | ACK), Reason::NoPolicy)
                .inbound(&login.clone().flags(0), Reason::NoPolicy)
                .holding(none(Some((suspension::BYPASS, 60))))
                .inbound(&served, Reason::NoPolicy)
                .audited(),
        );
    }
    run_under("failsafe_tuples_hold_under_another_policy_and_under_none", reference::policy(), &cases);
}
