//! Finds the live flows that a policy would cut.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{Direction, Mode, Policy, oracle::Opening};

/// Most flows that are examined. Each of them costs a walk over a whole policy.
pub const LOOKED_AT: usize = 10_000;

/// The effect of a change on the live flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// Number of flows that were examined.
    pub connections: usize,
    /// Flows that are allowed now, and that the new policy would cut.
    pub cut: Vec<Opening>,
    /// Flows that no row would allow and that still go on until they end, because they are older than the first
    /// attachment. A reconnect would fail.
    pub until_reconnect: Vec<Opening>,
    /// All flows, unaffected flows included, grouped by the two machines and the service.
    pub groups: Vec<Group>,
}

/// The fate of a flow when a policy takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The flow ends with its next packet.
    CutNow,
    /// No row allows the flow, but the flow goes on until it ends: no policy judges it.
    UntilReconnect,
    /// A row allows the flow, or nothing is dropped.
    Unaffected,
}

impl Fate {
    /// Every fate, the worst first.
    pub const ALL: [Self; 3] = [Self::CutNow, Self::UntilReconnect, Self::Unaffected];

    /// Returns the fate in words.
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
    /// Fate of each flow.
    pub fate: Fate,
    /// Direction of the opening, as this host sees it.
    pub direction: Direction,
    /// Address of the machine that opened the flow.
    pub source: IpAddr,
    /// Address of the machine that accepted the flow.
    pub destination: IpAddr,
    /// Service port.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Number of flows.
    pub flows: usize,
}

impl Impact {
    /// Computes the effect of a change from `old` to `new` on these flows. `is_older` returns true for flows
    /// that no policy judges: they are older than the first attachment, or an `apply` kept them. A flow for
    /// which `is_excepted` returns true goes on under any policy, because an exception allows the flow.
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
                // This flow is cut already; its socket does not know yet.
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

    /// Returns the number of flows with a fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.groups.iter().filter(|group| group.fate == fate).map(|group| group.flows).sum()
    }
}

/// Returns the policy with enforce in place of audit everywhere: the result of a promotion.
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

/// Returns true if a flow with this opening goes on under a policy.
#[must_use]
pub fn goes_on(policy: &Policy, opening: &Opening) -> bool {
    policy.mode(opening.direction) != Mode::Enforce || policy.judge_at_our_end(opening).passes()
}

/// The fate of the operator's own session after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayIn {
    /// A failsafe row allows the session, whatever the policy says.
    Failsafe,
    /// The session goes on, but no failsafe row allows it: another change could cut the session.
    NotFailsafe,
    /// The session ends with this change.
    Cut,
}

impl WayIn {
    /// Returns the fate under a policy of a session with this opening.
    #[must_use]
    pub fn under(policy: &Policy, session: &Opening) -> Self {
        let held = policy
            .judge_at_our_end(session)
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
