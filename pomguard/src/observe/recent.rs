//! Recent counts of the traffic that a change would end.
//!
//! There are counters for rows and for reasons, not for addresses: if a row allows less, the traffic that
//! continues is counted together with the traffic that would end.

use std::cmp::Reverse;

use pomguard_common::{Direction, reason::Reason};
use serde::Serialize;

use super::snapshot::{Disposition, ReasonStats, RowStats, Snapshot};
use crate::{
    compile::slots::label_id,
    policy::{
        Mode, Policy, RowId,
        diff::{Diff, Kind, RowChange},
    },
};

/// The number of seconds for which a hit is recent. A week includes traffic that occurs only at night or on
/// Mondays.
pub const RECENT: u64 = 7 * 86_400;

/// The counters of the traffic that a change takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recent {
    /// Seconds since 1970 of the reading.
    // Two plans of one state must be equal.
    #[serde(skip)]
    pub at: u64,
    /// Seconds since 1970 at which the counters were set up: earlier traffic is not counted.
    pub counting_since: u64,
    /// The number of rows with a counter that would go, allow less, or go from audit to enforce.
    pub looked_at: usize,
    /// The rows among them that were hit in the last [`RECENT`] seconds; the row with the latest hit comes
    /// first.
    pub rows: Vec<RecentRow>,
    /// The packets that enforce would have dropped, for each direction in which more is enforced than before.
    pub unenforced: Vec<Unenforced>,
}

/// A row with a recent hit, and the effect of the change on the row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecentRow {
    /// The row.
    pub id: RowId,
    /// The direction of the row.
    pub direction: Direction,
    /// The kind of the change.
    pub kind: Kind,
    /// True if the row goes from audit to enforce. The row continues to allow the systems that it names;
    /// other peers that connect to the ports of the row are counted by reason.
    pub promoted: bool,
    /// True if a packet was found that the row allowed and that no row would allow. None is found if other
    /// rows allow the same.
    pub newly_denied: bool,
    /// Systems that open the connection.
    pub source: String,
    /// Systems to which the connection is opened.
    pub destination: String,
    /// Ports and protocol as enforced now.
    pub ports: String,
    /// Packets that the row allowed since the first hit.
    pub packets: u64,
    /// Flows that were opened since then.
    pub connections: u64,
    /// Seconds since 1970 of the first hit.
    pub first_hit: Option<u64>,
    /// Seconds since 1970 of the last hit.
    pub last_hit: u64,
}

/// Packets of one direction that passed, and that enforce would have dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unenforced {
    /// The direction.
    pub direction: Direction,
    /// The total since the counters were set up.
    pub packets: u64,
    /// By reason, the frequent before the rare.
    pub reasons: Vec<UnenforcedReason>,
}

/// The packets of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnenforcedReason {
    /// The reason's name.
    pub name: String,
    /// Packets.
    pub packets: u64,
}

impl Recent {
    /// Returns the recent counts for a change to `new`, from a reading of the counters of the policy in
    /// force.
    #[must_use]
    pub fn from_diff(diff: &Diff, new: &Policy, snapshot: &Snapshot, now: u64) -> Self {
        let counted: Vec<(&RowChange, &RowStats)> = diff
            .rows
            .iter()
            .filter(|change| !change.less.is_empty() || promoted(change))
            .filter_map(|change| Some((change, counter(snapshot, change)?)))
            .collect();
        let mut rows: Vec<RecentRow> =
            counted.iter().filter_map(|(change, stats)| recent_row(change, stats, now)).collect();
        rows.sort_by_key(|row| (Reverse(row.last_hit), Reverse(row.packets)));
        let unenforced = Direction::ALL
            .into_iter()
            .filter(|&direction| new.mode(direction) == Mode::Enforce && enforces_more(diff, direction))
            .map(|direction| unenforced(snapshot, direction))
            .collect();
        Self { at: now, counting_since: snapshot.counting_since, looked_at: counted.len(), rows, unenforced }
    }
}

fn promoted(change: &RowChange) -> bool {
    change.mode == Some((Mode::Audit, Mode::Enforce))
}

fn counter<'a>(snapshot: &'a Snapshot, change: &RowChange) -> Option<&'a RowStats> {
    let label = label_id(&change.id);
    snapshot.rows.iter().find(|stats| stats.direction == change.direction && stats.id.0 == label)
}

/// Returns `None` if the row has no recent hit.
fn recent_row(change: &RowChange, stats: &RowStats, now: u64) -> Option<RecentRow> {
    let last_hit = stats.last_hit.filter(|&at| now.saturating_sub(at) <= RECENT)?;
    Some(RecentRow {
        id: change.id.clone(),
        direction: change.direction,
        kind: change.kind,
        promoted: promoted(change),
        newly_denied: change.newly_denied.is_some(),
        source: stats.source.clone(),
        destination: stats.destination.clone(),
        ports: stats.ports.clone(),
        packets: stats.packets,
        connections: stats.connections,
        first_hit: stats.first_hit,
        last_hit,
    })
}

/// Returns true if the direction, or a row of the direction, leaves audit or track.
fn enforces_more(diff: &Diff, direction: Direction) -> bool {
    diff.modes.iter().any(|mode| mode.direction == direction)
        || diff.rows.iter().any(|change| change.direction == direction && promoted(change))
}

fn unenforced(snapshot: &Snapshot, direction: Direction) -> Unenforced {
    // Track counts packets that no row lists as passed.
    let passed = |stats: &&ReasonStats| {
        stats.verdict == Disposition::Audit
            || stats.reason().is_some_and(|reason| reason == Reason::Untracked)
    };
    let of_direction = snapshot.reasons.iter().filter(|stats| stats.direction == direction);
    let mut reasons: Vec<UnenforcedReason> = of_direction
        .filter(passed)
        .map(|stats| UnenforcedReason { name: stats.name.clone(), packets: stats.packets })
        .collect();
    reasons.sort_by_key(|reason| Reverse(reason.packets));
    Unenforced { direction, packets: reasons.iter().map(|reason| reason.packets).sum(), reasons }
}

#[cfg(test)]
mod tests;
