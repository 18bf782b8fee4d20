//! Second look at a decision of the policy: failsafe rows, timed exceptions and the grace period hold in
//! addition to the policy, and a suspension of the policy takes precedence over it.
//!
//! In lockdown every packet gets the second look: of the packets that the policy would pass, only those that
//! match a failsafe row and those that the link itself needs pass.

use super::{
    Decision, Env,
    address::{group, impossible_source},
    context::{Context, opens_and_answers, tuple},
    key,
    outbound::{continues, enters},
};
use crate::{
    Direction,
    control::{ControlView, Match, Matches, OverrideQuery, Timed, search, word},
    flow::{self, Store as _},
    image::{Barrier, Class, Family},
    parse::{Datagram, Kind, tcp_flag},
    protocol,
    reason::Reason,
};

/// Looks up the overrides that allow a datagram: first as one that opens a connection in the hook's
/// direction, or continues a connection that the sender opened; second as an answer in a connection that the
/// other side opened. The word is a [`Matches`].
#[inline(always)]
pub(super) fn allows<S: ControlView + Barrier + ?Sized>(
    hook: Direction,
    datagram: &Datagram,
    view: &S,
    now: u32,
    failsafe_only: bool,
) -> u64 {
    let (peer, other) = match hook {
        Direction::Inbound => (&datagram.source, Direction::Outbound),
        Direction::Outbound => (&datagram.destination, Direction::Inbound),
    };
    let (port_bloom, slot_bit) = (view.control(word::PORT_BLOOM), view.slot_bit());
    let ask = |may: bool, opened: Direction| {
        let query =
            OverrideQuery::new(datagram.family, &tuple(hook, datagram, opened), failsafe_only, slot_bit);
        if may { query.filtered(port_bloom) } else { OverrideQuery::NOTHING }
    };
    let (opens, answers) = opens_and_answers(datagram);
    let matches = search(view, peer, [ask(opens, hook), ask(answers, other)], now);
    view.barrier(matches.0)
}

/// Takes a second look at a datagram for which the policy decided `first`. The words are [`Decision`]s. A
/// separate function in the programs.
#[inline(never)]
pub(super) fn reconsider<E: Env>(hook: Direction, datagram: &Datagram, env: &E, first: u64) -> u64 {
    env.image().lines().barrier(reconsidered(hook, datagram, env, Decision(first)).0)
}

#[inline(always)]
fn reconsidered<E: Env>(hook: Direction, datagram: &Datagram, env: &E, first: Decision) -> Decision {
    let isolated = env.isolated();
    if isolated && first.goes_on_isolated() {
        return first;
    }
    let lines = env.image().lines();
    let now = env.flows().now();
    // Packets that the policy would pass, or would drop because no row allows them. A packet that is
    // malformed, spoofed or not for this host is dropped whatever the overrides say.
    if first.passes() || first.may_be_overridden() {
        let context = Context { hook, datagram, env, class: Class::NONE };
        let matches = Matches(allows(hook, datagram, lines, now, isolated));
        let decision = match hook {
            Direction::Inbound => comes_in(&context, matches),
            Direction::Outbound => leaves(&context, matches),
        };
        if let Some(decision) = decision {
            return decision;
        }
    }
    if isolated {
        return Decision::because(Reason::Isolated);
    }
    let tcp = matches!(datagram.kind, Kind::Ports) && datagram.protocol == protocol::TCP;
    let midway = tcp && datagram.tcp_flags & tcp_flag::SYN == 0 && first.answers_nothing_known();
    if midway && Timed(lines.control(word::GRACE)).holds(now) != 0 {
        return Decision::because(Reason::Grace);
    }
    first
}

#[inline(always)]
fn by_override(matched: Match) -> Decision {
    let reason = if matched.is_exception() { Reason::Exception } else { Reason::Failsafe };
    Decision::because(reason).under(matched.row())
}

#[inline(always)]
fn comes_in<E: Env>(context: &Context<'_, E>, matches: Matches) -> Option<Decision> {
    let datagram = context.datagram;
    let tcp = datagram.protocol == protocol::TCP;
    if matches.first().is_some() {
        return Some(by_override(matches.first()).opening(tcp && datagram.tcp_flags & tcp_flag::SYN != 0));
    }
    if !matches.second().is_some() {
        return None;
    }
    let found = flow::find(context.env.flows(), key(context.hook, datagram))?;
    context.heard(&found);
    Some(Decision::because(Reason::OwnFlow))
}

#[inline(always)]
fn leaves<E: Env>(context: &Context<'_, E>, matches: Matches) -> Option<Decision> {
    let Datagram { family, destination, kind, protocol, tcp_flags, .. } = context.datagram;
    if group(*family, destination) || impossible_source(*family, destination) {
        return None;
    }
    if matches.second().is_some() {
        return Some(Decision::because(Reason::PeerFlow));
    }
    if !matches.first().is_some() {
        return None;
    }
    let decision = by_override(matches.first());
    if matches!(kind, Kind::Other) {
        return Some(decision);
    }
    let found = flow::find(context.env.flows(), key(context.hook, context.datagram));
    let opening = if matches!(kind, Kind::Ports) && *protocol == protocol::TCP {
        tcp_flags & tcp_flag::SYN != 0
    } else {
        found.is_none()
    };
    Some(match found {
        Some(found) if !opening => continues(context, &found),
        _ => enters(context, found, opening, decision),
    })
}

/// Judges a datagram while there is no policy: only failsafe rows hold, and the link protocols that they
/// need. Without a policy there are no flows either, so an answer is recognised by its tuple alone. The word
/// is a [`Decision`]. A separate function in the programs.
#[inline(never)]
pub(super) fn without_policy<S: ControlView + Barrier + ?Sized>(
    hook: Direction,
    datagram: &Datagram,
    view: &S,
    now: u32,
) -> u64 {
    let Datagram { family, kind, protocol, source, .. } = datagram;
    // RFC 4861: neighbour and router discovery, which no router forwards.
    let discovery = matches!(kind, Kind::Icmp) && matches!(family, Family::V6);
    if discovery && matches!(datagram.icmp_type, 133..=136) && datagram.hop_limit == 255 {
        return view.barrier(Decision::because(Reason::Neighbour).0);
    }
    let closed = Decision::because(Reason::NoPolicy);
    if impossible_source(*family, source) {
        return view.barrier(closed.0);
    }
    let matches = Matches(allows(hook, datagram, view, now, true));
    let syn = *protocol == protocol::TCP && datagram.tcp_flags & tcp_flag::SYN != 0;
    let decision = if matches.first().is_some() {
        by_override(matches.first()).opening(syn)
    } else if matches.second().is_some() {
        Decision::because(match hook {
            Direction::Inbound => Reason::OwnFlow,
            Direction::Outbound => Reason::PeerFlow,
        })
    } else {
        closed
    };
    view.barrier(decision.0)
}
