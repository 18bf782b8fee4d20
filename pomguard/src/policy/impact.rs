//! Which flows that live now a policy would cut.

use serde::Serialize;

use super::{
    Mode, Policy,
    oracle::{Opening, judge},
};

/// Flows that are looked at, each of which walks a whole policy.
pub const LOOKED_AT: usize = 10_000;

/// What a change would do to what is going on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Impact {
    /// Flows that were looked at.
    pub connections: usize,
    /// Those that go on now, and would not any more.
    pub cut: Vec<Opening>,
    /// Those that no row would allow and that go on all the same until they end, because they are older than
    /// the first attachment. A reconnect would fail.
    pub until_reconnect: Vec<Opening>,
}

impl Impact {
    /// Of a change from `old` to `new` on these flows. `is_older` tells those that are older than the
    /// first attachment.
    #[must_use]
    pub fn new(
        old: Option<&Policy>,
        new: &Policy,
        live: &[Opening],
        is_older: impl Fn(&Opening) -> bool,
    ) -> Self {
        let looked_at = live.get(..LOOKED_AT).unwrap_or(live);
        let (until_reconnect, judged): (Vec<Opening>, Vec<Opening>) =
            looked_at.iter().filter(|opening| !goes_on(new, opening)).partition(|opening| is_older(opening));
        let cut = judged.into_iter().filter(|opening| old.is_none_or(|old| goes_on(old, opening)));
        Self { connections: looked_at.len(), cut: cut.collect(), until_reconnect }
    }
}

/// Whether a flow that was opened this way goes on under a policy.
#[must_use]
pub fn goes_on(policy: &Policy, opening: &Opening) -> bool {
    policy.mode(opening.direction) != Mode::Enforce || judge(policy, opening).passes()
}

/// What becomes of the way in of whoever makes a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayIn {
    /// A failsafe row holds it, whatever the policy says.
    Failsafe,
    /// It goes on, but no failsafe row holds it: another change could cut it.
    NotFailsafe,
    /// It ends with this change.
    Cut,
}

impl WayIn {
    /// Of a session that was opened this way, under a policy.
    #[must_use]
    pub fn under(policy: &Policy, session: &Opening) -> Self {
        let held = judge(policy, session)
            .all
            .iter()
            .any(|id| policy.rows_in(session.direction).any(|row| row.failsafe && row.id == *id));
        if held {
            Self::Failsafe
        } else if goes_on(policy, session) {
            Self::NotFailsafe
        } else {
            Self::Cut
        }
    }
}
