//! Rules for outbound datagrams.

use super::{
    Decision, Env, NO_ROW,
    context::{Context, echo, is_error},
};
use crate::{
    Direction,
    flow::{Found, State},
    image::{Class, Family, Miss, MissReason, mode, switch},
    parse::{Datagram, Kind, tcp_flag},
    protocol,
    reason::Reason,
};

/// Judges an outbound datagram to a peer of this class. The word is a [`Decision`]. A separate function in
/// the programs.
#[inline(never)]
pub(super) fn outbound<E: Env>(datagram: &Datagram, env: &E, class: u32) -> u64 {
    let context = Context { hook: Direction::Outbound, datagram, env, class: Class(class) };
    if matches!(datagram.kind, Kind::Follower) { context.follower().0 } else { sent_by_us(&context).0 }
}

/// Judges a datagram that this host sends from its own address.
#[inline(always)]
fn sent_by_us<E: Env>(context: &Context<'_, E>) -> Decision {
    let datagram = context.datagram;
    let icmp = matches!(datagram.kind, Kind::Icmp);
    let tcp = matches!(datagram.kind, Kind::Ports) && datagram.protocol == protocol::TCP;
    let syn = datagram.tcp_flags & tcp_flag::SYN != 0;
    let ack = datagram.tcp_flags & tcp_flag::ACK != 0;
    let (request, reply) = echo(datagram.family);
    if icmp && is_error(datagram) {
        return Decision(Decision::QUOTES);
    }
    // Answers on a connection that an inbound row allows. A SYN answers nothing.
    let answers = if icmp { datagram.icmp_type == reply } else { !(tcp && syn && !ack) };
    let mut audit = false;
    if answers {
        match context.row_match(Direction::Inbound) {
            Ok(_) => return Decision::because(Reason::PeerFlow),
            Err(miss) => audit = miss.audit,
        }
    }
    // An answer to a packet that passed because an inbound row is in audit must leave, or audit would break
    // the connection. The answer enters no flow, so that the inbound packets are still counted as would-be
    // drops.
    let answer_in_audit = Decision::because(Reason::UnsolicitedReply).not_enforced(true);
    if icmp && datagram.icmp_type == reply {
        let free = matches!(datagram.family, Family::V6) && context.image().switch(switch::ECHO_V6);
        if audit && !free {
            return answer_in_audit;
        }
        return Decision::because(if free { Reason::PeerFlow } else { Reason::UnsolicitedReply });
    }
    if icmp && datagram.icmp_type != request {
        return Decision::because(match context.env.mode(Direction::Outbound) {
            mode::TRACK => Reason::Untracked,
            _ => Reason::IcmpType,
        });
    }
    if matches!(datagram.kind, Kind::Other) {
        let decision = open(context);
        if audit && decision.row() == NO_ROW {
            return answer_in_audit;
        }
        return if decision.passes() { decision } else { answers_unlisted(context, decision) };
    }
    // `Found::NOWHERE` is spelled out: for a `None`, the compiler would store uninitialized registers, which
    // the verifier refuses.
    let (known, found) = match context.flow() {
        Some(found) => (true, found),
        None => (false, Found::NOWHERE),
    };
    let opens = if tcp { syn && !ack } else { !known };
    if known && (!tcp || !opens) {
        return continues(context, &found);
    }
    let found = known.then_some(found);
    // A SYN is judged again each time. Any other packet that belongs to no flow re-creates a lost entry if it
    // could have opened that flow. But a SYN-ACK is an answer, and nothing asked for this one.
    let decision = open(context);
    if audit && (syn || decision.row() == NO_ROW) {
        return answer_in_audit;
    }
    let unasked = Decision::because(Reason::UnsolicitedReply);
    if tcp && !opens && syn {
        return unasked;
    }
    // Allowed by a row, or by a row in audit.
    if decision.row() != NO_ROW || decision.audited() {
        return enters(context, found, opens, decision);
    }
    // A packet that may answer a peer that was let in enters no flow: the flow would outlive the permission
    // of the peer.
    let may_answer = matches!(datagram.kind, Kind::Ports) && (!tcp || !opens);
    let kept = context.env.keeps_unlisted();
    if tcp && !opens && (!kept || context.serves()) {
        return unasked;
    }
    if !kept {
        return answers_unlisted(context, decision);
    }
    if may_answer && context.serves() {
        return decision;
    }
    enters(context, found, opens, decision)
}

/// Lets a packet pass that no row allows if it may answer a packet that inbound audit let in. Enters no flow.
#[inline(always)]
fn answers_unlisted<E: Env>(context: &Context<'_, E>, decision: Decision) -> Decision {
    let tcp = matches!(context.datagram.kind, Kind::Ports) && context.datagram.protocol == protocol::TCP;
    let asks = tcp || matches!(context.datagram.kind, Kind::Icmp);
    let audits = context.env.mode(Direction::Inbound) != mode::ENFORCE;
    decision.not_enforced(audits && decision.is(Reason::Destination) && !asks && context.serves())
}

/// Continues a flow of this host.
#[inline(always)]
pub(super) fn continues<E: Env>(context: &Context<'_, E>, found: &Found) -> Decision {
    context.sent(found);
    Decision::because(Reason::OwnFlow).under(found.row)
}

/// Opens an allowed flow of this host, or enters again one that the table lost.
#[inline(always)]
pub(super) fn enters<E: Env>(
    context: &Context<'_, E>,
    found: Option<Found>,
    opens: bool,
    decision: Decision,
) -> Decision {
    let decision = decision.opening(opens);
    if let Some(found) = found {
        context.sent(&found);
        return decision;
    }
    let state = match (context.datagram.kind, context.datagram.protocol) {
        (Kind::Ports, protocol::TCP) if opens => State::Opening,
        // Nothing answers a RST (RFC 9293 section 3.10.7.1), and any stranger can provoke one from this host.
        (Kind::Ports, protocol::TCP) if context.datagram.tcp_flags & tcp_flag::RST != 0 => State::Free,
        (Kind::Ports, protocol::TCP) => State::Established,
        (Kind::Icmp, _) => State::Icmp,
        _ => State::Unanswered,
    };
    decision.remembered_as(state)
}

/// Judges a datagram that opens a flow: by row, or by the mode.
#[inline(always)]
fn open<E: Env>(context: &Context<'_, E>) -> Decision {
    match context.row_match(Direction::Outbound) {
        Ok(row_match) => Decision::by_row(row_match),
        Err(Miss { miss_reason: MissReason::Broken, .. }) => Decision::because(Reason::Internal),
        Err(_) if context.env.mode(Direction::Outbound) == mode::TRACK => {
            Decision::because(Reason::Untracked)
        }
        Err(Miss { audit, .. }) => Decision::because(Reason::Destination).not_enforced(audit),
    }
}
