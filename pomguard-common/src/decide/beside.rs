//! A second look, at what the policy in force would drop: failsafe tuples, timed exceptions and grace
//! hold beside it, and panic holds above it.
//!
//! Isolated, everything is looked at again: of what the policy lets through only what a failsafe tuple
//! is about goes on, and what the link itself needs.

use super::{
    Decision, Tables,
    address::{group, impossible_source},
    case::{Case, opens_and_answers, tuple},
    key,
    outbound::{continues, enters},
};
use crate::{
    Direction,
    control::{Asked, Hit, Hits, Standing, Timed, search, word},
    flow::{self, Store},
    image::{Class, Family, Forget, Lines},
    parse::{Datagram, Kind, tcp_flag},
    protocol,
    reason::Reason,
};

/// The pinholes that let a datagram through: as one that opens in the hook's direction, or goes on with
/// what its sender opened; and as an answer to what the other side opened. The word is [`Hits`]. A function
/// of its own in the programs.
#[inline(never)]
pub(super) fn through<S: Standing + Forget + ?Sized>(
    hook: Direction,
    datagram: &Datagram,
    standing: &S,
    now: u32,
    failsafe_only: bool,
) -> u64 {
    let (peer, other) = match hook {
        Direction::Inbound => (&datagram.source, Direction::Outbound),
        Direction::Outbound => (&datagram.destination, Direction::Inbound),
    };
    let shade = standing.control(word::SHADE);
    let ask = |may: bool, opened: Direction| {
        let asked = Asked::new(datagram.family, &tuple(hook, datagram, opened), failsafe_only);
        if may { asked.shaded(shade) } else { Asked::NOTHING }
    };
    let (opens, answers) = opens_and_answers(datagram);
    let hits = search(standing, peer, [ask(opens, hook), ask(answers, other)], now);
    standing.forget(hits.0)
}

/// Looks again at a datagram on which the policy ruled `first`; the words are [`Decision`]s. A function
/// of its own in the programs.
#[inline(never)]
pub(super) fn beside<L, F, T>(
    hook: Direction,
    datagram: &Datagram,
    tables: &Tables<'_, L, F, T>,
    first: u64,
) -> u64
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    tables.image.lines().forget(look_again(hook, datagram, tables, Decision(first)).0)
}

#[inline(always)]
fn look_again<L, F, T>(
    hook: Direction,
    datagram: &Datagram,
    tables: &Tables<'_, L, F, T>,
    first: Decision,
) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let isolated = tables.isolated();
    if isolated && first.goes_on_isolated() {
        return first;
    }
    let lines = tables.image.lines();
    let now = tables.flows.now();
    // What the policy would pass, or drops for want of a row. What is broken, spoofed or not for this
    // host ends whatever the pinholes say.
    if first.passes() || first.is_denial() {
        let case = Case { hook, datagram, tables, class: Class::NONE };
        let hits = Hits(through(hook, datagram, lines, now, isolated));
        let decision = match hook {
            Direction::Inbound => comes_in(&case, hits),
            Direction::Outbound => leaves(&case, hits),
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
fn by_pinhole(hit: Hit) -> Decision {
    let reason = if hit.is_exception() { Reason::Exception } else { Reason::Failsafe };
    Decision::because(reason).under(hit.row())
}

#[inline(always)]
fn comes_in<L, F, T>(case: &Case<'_, '_, L, F, T>, hits: Hits) -> Option<Decision>
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let datagram = case.datagram;
    let tcp = datagram.protocol == protocol::TCP;
    if hits.first().is_some() {
        return Some(by_pinhole(hits.first()).opening(tcp && datagram.tcp_flags & tcp_flag::SYN != 0));
    }
    if !hits.second().is_some() {
        return None;
    }
    let found = flow::find(&case.tables.flows, key(case.hook, datagram))?;
    case.heard(&found);
    Some(Decision::because(Reason::Answer))
}

#[inline(always)]
fn leaves<L, F, T>(case: &Case<'_, '_, L, F, T>, hits: Hits) -> Option<Decision>
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let Datagram { family, destination, kind, protocol, tcp_flags, .. } = case.datagram;
    if group(*family, destination) || impossible_source(*family, destination) {
        return None;
    }
    if hits.second().is_some() {
        return Some(Decision::because(Reason::Reply));
    }
    if !hits.first().is_some() {
        return None;
    }
    let decision = by_pinhole(hits.first());
    if matches!(kind, Kind::Other) {
        return Some(decision);
    }
    let found = flow::find(&case.tables.flows, key(case.hook, case.datagram));
    let opening = if matches!(kind, Kind::Ports) && *protocol == protocol::TCP {
        tcp_flags & tcp_flag::SYN != 0
    } else {
        found.is_none()
    };
    Some(match found {
        Some(found) if !opening => continues(case, &found),
        _ => enters(case, found, opening, decision),
    })
}

/// Judges a datagram while there is no policy: only failsafe tuples hold, and what they need of the link.
/// Without a policy there are no conversations either, so an answer is known by its tuple alone. The word
/// is a [`Decision`]. A function of its own in the programs.
#[inline(never)]
pub(super) fn without_policy<S: Standing + Forget + ?Sized>(
    hook: Direction,
    datagram: &Datagram,
    standing: &S,
    now: u32,
) -> u64 {
    let Datagram { family, kind, protocol, source, .. } = datagram;
    // RFC 4861: neighbour and router discovery, which no router forwards.
    let discovery = matches!(kind, Kind::Icmp) && matches!(family, Family::V6);
    if discovery && matches!(datagram.icmp_type, 133..=136) && datagram.hop_limit == 255 {
        return standing.forget(Decision::because(Reason::Neighbour).0);
    }
    let closed = Decision::because(Reason::NoPolicy);
    if impossible_source(*family, source) {
        return standing.forget(closed.0);
    }
    let hits = Hits(through(hook, datagram, standing, now, true));
    let syn = *protocol == protocol::TCP && datagram.tcp_flags & tcp_flag::SYN != 0;
    let decision = if hits.first().is_some() {
        by_pinhole(hits.first()).opening(syn)
    } else if hits.second().is_some() {
        Decision::because(match hook {
            Direction::Inbound => Reason::Answer,
            Direction::Outbound => Reason::Reply,
        })
    } else {
        closed
    };
    standing.forget(decision.0)
}
