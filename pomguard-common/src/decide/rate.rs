//! Rate limits of inbound packets.

use super::{Decision, Env};
use crate::{
    Direction,
    control::ControlView as _,
    flow::Store as _,
    image::{Barrier as _, Family},
    parse::Datagram,
    rate::{self, Rated},
    reason::Reason,
};

/// Returns true for an ICMP error that reports a path MTU.
#[inline(always)]
pub(super) const fn tells_mtu(datagram: &Datagram) -> bool {
    matches!(
        (datagram.family, datagram.icmp_type, datagram.icmp_code),
        (Family::V4, 3, 4) | (Family::V6, 2, _)
    )
}

/// Returns the decision, or a drop if packets of this class came in too often.
#[inline(always)]
pub(super) fn limited<E: Env>(hook: Direction, env: &E, decision: Decision, tells_mtu: bool) -> Decision {
    if matches!(hook, Direction::Outbound) {
        return decision;
    }
    let rated = if decision.is(Reason::Arp) || decision.is(Reason::Neighbour) {
        Rated::Neighbours
    } else if decision.is(Reason::EchoV6) {
        Rated::EchoV6
    } else if !decision.is(Reason::IcmpRelated) {
        return decision;
    } else if tells_mtu {
        Rated::PathMtu
    } else {
        Rated::Errors
    };
    if within(rated as u32, env) == 0 { Decision::because(Reason::RateLimited) } else { decision }
}

/// Counts a packet of the class with this number. Returns 0 if the budget is spent. A separate function in
/// the programs.
#[inline(never)]
fn within<E: Env>(rated: u32, env: &E) -> u64 {
    let lines = env.image().lines();
    let rated = lines.barrier(rated.into()) as u32;
    // Without a counter there is no basis for a limit.
    let Some(spent) = lines.spent(rated) else { return 1 };
    // Only this processor writes its word. A self-test has an unlimited budget, and in the programs a
    // separate word.
    let budget = env.image().budget(rated) | lines.self_test().wrapping_neg() as u32;
    match rate::spend(spent.load(), env.flows().now(), budget) {
        Some(word) => {
            spent.store(word);
            1
        }
        None => 0,
    }
}
