//! The fates of live flows under the policy in force, for `status` and `stats`.

use std::collections::HashSet;

use super::{own_addresses, way_in};
use crate::{
    history::{self, Existing, History},
    input::settings::Settings,
    kernel::{
        clock::unix_now,
        pins::Pins,
        seed,
        sockets::{self, Connection},
    },
    observe::status::Flows,
    policy::{
        impact::{Impact, promoted},
        oracle::Opening,
    },
    state::exceptions,
};

/// Returns the fates of the live flows if everything in audit were in enforce now. Returns `None` if nothing is
/// in force, the history does not have the policy, or this user may not read the history.
pub(super) fn read(settings: &Settings) -> Option<Flows> {
    let here = own_addresses::present(settings).unwrap_or_default();
    let policy = way_in::in_force(settings)?.on(&here);
    let enforced = promoted(&policy);
    let pins = Pins::new(&settings.paths.pins);
    let live = sockets::connections().ok()?;
    let is_ours = |address| policy.is_own(address) || here.is_guarded(address);
    let ours: Vec<Connection> = live.into_iter().filter(|flow| is_ours(flow.local.ip())).collect();
    let unjudged: HashSet<Opening> =
        seed::unjudged(&pins, &ours).ok()?.iter().map(Connection::opening).collect();
    let openings: Vec<Opening> = ours.iter().map(Connection::opening).collect();
    let exceptions = exceptions::load(&settings.paths.state).unwrap_or_default();
    let excepted = |opening: &Opening| exceptions.iter().any(|held| held.allows(opening, unix_now()));
    let is_unjudged = |opening: &Opening| unjudged.contains(opening);
    let impact = Impact::new(Some(&policy), &enforced, &openings, is_unjudged, excepted);
    let (records, _) = History::open(&settings.paths.state).list();
    let current = history::pending(&records).or_else(|| history::in_force(&records));
    let existing = current.map_or(Existing::ByPolicy, |record| record.existing);
    Some(Flows { if_enforced: enforced != policy, existing, impact })
}
