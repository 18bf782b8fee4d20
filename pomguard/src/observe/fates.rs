//! The fates of live flows under a policy.

use std::collections::HashSet;

use crate::{
    history::Existing,
    kernel::{
        clock::unix_now,
        pins::Pins,
        seed,
        sockets::{self, Connection},
    },
    model::SuspensionKind,
    observe::status::Flows,
    policy::{
        Policy,
        impact::{Impact, promoted},
        oracle::Opening,
        own::Addresses,
    },
    state::exceptions::Exception,
};

/// Returns the fates of the live flows of this machine, whose addresses are `here`. While a bypass holds, the
/// fates are those at its end. Otherwise they are the fates if everything in audit were in enforce now. Returns
/// `None` if the sockets or the flow table cannot be read.
#[must_use]
pub fn flows(
    policy: &Policy,
    here: &Addresses,
    pins: &Pins,
    exceptions: &[Exception],
    existing: Existing,
    suspension: Option<SuspensionKind>,
) -> Option<Flows> {
    let after_bypass = suspension == Some(SuspensionKind::Bypass);
    let next = if after_bypass { policy.clone() } else { promoted(policy) };
    let live = sockets::connections().ok()?;
    let is_ours = |address| policy.is_own(address) || here.is_guarded(address);
    let ours: Vec<Connection> = live.into_iter().filter(|flow| is_ours(flow.local.ip())).collect();
    let unjudged: HashSet<Opening> =
        seed::unjudged(pins, &ours).ok()?.iter().map(Connection::opening).collect();
    let openings: Vec<Opening> = ours.iter().map(Connection::opening).collect();
    let excepted = |opening: &Opening| exceptions.iter().any(|held| held.allows(opening, unix_now()));
    let is_unjudged = |opening: &Opening| unjudged.contains(opening);
    // A bypass lets every flow go on.
    let now = (!after_bypass).then_some(policy);
    let impact = Impact::new(now, &next, &openings, is_unjudged, excepted);
    Some(Flows { if_enforced: next != *policy, after_bypass, existing, impact })
}
