//! Which flows that live now a policy would cut.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    Direction, Mode, Policy,
    oracle::{Opening, judge},
};

/// Flows that are looked at, each of which walks a whole policy.
pub const LOOKED_AT: usize = 10_000;

/// What a change would do to what is going on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// Flows that were looked at.
    pub connections: usize,
    /// Those that go on now, and would not any more.
    pub cut: Vec<Opening>,
    /// Those that no row would allow and that go on all the same until they end, because they are older than
    /// the first attachment. A reconnect would fail.
    pub until_reconnect: Vec<Opening>,
    /// All of them, those that are unaffected too, by the two machines and the service.
    pub groups: Vec<Group>,
}

/// The fate of a flow when a policy comes in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It ends with its next packet.
    CutNow,
    /// No row allows it, and it goes on until it ends: no policy judges it.
    UntilReconnect,
    /// A row allows it, or nothing is dropped.
    Unaffected,
}

impl Fate {
    /// Every fate, the worst first.
    pub const ALL: [Self; 3] = [Self::CutNow, Self::UntilReconnect, Self::Unaffected];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CutNow => "cut now",
            Self::UntilReconnect => "goes on until it reconnects",
            Self::Unaffected => "unaffected",
        }
    }
}

/// Flows between the same two machines about the same service, with one fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What becomes of each.
    pub fate: Fate,
    /// Who opened them, as this host sees it.
    pub direction: Direction,
    /// The machine that opened.
    pub source: IpAddr,
    /// The machine that was opened to.
    pub destination: IpAddr,
    /// The port that was opened to.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// How many there are.
    pub flows: usize,
}

impl Impact {
    /// Of a change from `old` to `new` on these flows. `is_older` tells those that no policy judges: they are
    /// older than the first attachment, or an `apply` kept them. What an exception holds, as `is_excepted` tells,
    /// goes on under any policy.
    #[must_use]
    pub fn new(
        old: Option<&Policy>,
        new: &Policy,
        live: &[Opening],
        is_older: impl Fn(&Opening) -> bool,
        is_excepted: impl Fn(&Opening) -> bool,
    ) -> Self {
        let looked_at = live.get(..LOOKED_AT).unwrap_or(live);
        let mut impact = Self { connections: looked_at.len(), ..Self::default() };
        let mut groups: BTreeMap<(Fate, Direction, IpAddr, IpAddr, u16, u8), usize> = BTreeMap::new();
        for opening in looked_at {
            let fate = if goes_on(new, opening) || is_excepted(opening) {
                Fate::Unaffected
            } else if is_older(opening) {
                impact.until_reconnect.push(*opening);
                Fate::UntilReconnect
            } else if old.is_none_or(|old| goes_on(old, opening)) {
                impact.cut.push(*opening);
                Fate::CutNow
            } else {
                // Cut already; its socket does not know yet.
                continue;
            };
            let Opening { direction, source, destination, destination_port, protocol, .. } = *opening;
            *groups.entry((fate, direction, source, destination, destination_port, protocol)).or_default() +=
                1;
        }
        let group = |((fate, direction, source, destination, port, protocol), flows)| Group {
            fate,
            direction,
            source,
            destination,
            port,
            protocol,
            flows,
        };
        impact.groups = groups.into_iter().map(group).collect();
        impact
    }

    /// Number of flows with a fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.groups.iter().filter(|group| group.fate == fate).map(|group| group.flows).sum()
    }
}

/// The same policy with all that is in audit in enforce: what a promotion makes of it.
#[must_use]
pub fn promoted(policy: &Policy) -> Policy {
    let mut promoted = policy.clone();
    for mode in [&mut promoted.inbound, &mut promoted.outbound] {
        if *mode == Mode::Audit {
            *mode = Mode::Enforce;
        }
    }
    for row in &mut promoted.rows {
        row.mode = Mode::Enforce;
    }
    promoted
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
