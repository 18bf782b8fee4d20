//! Packets that passed between two readings, by row, and by reason for packets without a row. The peers of
//! packets that pass are not recorded.

use pomguard_common::{Direction, reason::Reason};
use serde::Serialize;

use super::snapshot::{Disposition, Snapshot};
use crate::model::RowId;

/// Packets that passed under one row or reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pass {
    /// Direction of the packets; of packets of a row, the direction in which the row opens connections.
    pub direction: Direction,
    /// Always `pass`.
    pub verdict: Disposition,
    /// The name of the reason; `row` for all packets of a row.
    pub reason: String,
    /// The row.
    pub row: Option<RowId>,
    /// The systems on the other side of the row.
    pub peer: Option<String>,
    /// Ports and protocol of the row.
    pub ports: Option<String>,
    /// Packets.
    pub packets: u64,
    /// Bytes, link header included.
    pub bytes: u64,
}

/// Returns what passed between two readings: rows first, the frequent before the rare. Packets that left although
/// no row lists them are in the table of drops, and not in here.
#[must_use]
pub fn passes(before: &Snapshot, now: &Snapshot) -> Vec<Pass> {
    let grown = |before: u64, now: u64| if now >= before { now - before } else { now };
    let mut rows: Vec<Pass> = now
        .rows
        .iter()
        .map(|row| {
            let same = |old: &&super::snapshot::RowStats| old.id == row.id && old.direction == row.direction;
            let old = before.rows.iter().find(same);
            let peer = match row.direction {
                Direction::Inbound => &row.source,
                Direction::Outbound => &row.destination,
            };
            Pass {
                direction: row.direction,
                verdict: Disposition::Pass,
                reason: Reason::Row.name().to_owned(),
                row: Some(row.id.clone()),
                peer: Some(peer.clone()),
                ports: Some(row.ports.clone()),
                packets: grown(old.map_or(0, |old| old.packets), row.packets),
                bytes: grown(old.map_or(0, |old| old.bytes), row.bytes),
            }
        })
        .collect();
    let by_row = [Reason::Row, Reason::Failsafe, Reason::Exception, Reason::Untracked].map(Reason::name);
    let others = now.reasons.iter().filter(|it| it.verdict == Disposition::Pass);
    let mut others: Vec<Pass> = others
        .filter(|it| !by_row.contains(&it.name.as_str()))
        .map(|it| {
            let same = |old: &&super::snapshot::ReasonStats| {
                old.name == it.name && old.direction == it.direction && old.verdict == it.verdict
            };
            let old = before.reasons.iter().find(same);
            Pass {
                direction: it.direction,
                verdict: Disposition::Pass,
                reason: it.name.clone(),
                row: None,
                peer: None,
                ports: None,
                packets: grown(old.map_or(0, |old| old.packets), it.packets),
                bytes: grown(old.map_or(0, |old| old.bytes), it.bytes),
            }
        })
        .collect();
    for part in [&mut rows, &mut others] {
        part.retain(|pass| pass.packets > 0);
        part.sort_by_key(|pass| std::cmp::Reverse(pass.packets));
    }
    rows.append(&mut others);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    #[test]
    fn passes_are_what_rows_and_other_reasons_counted_in_between() {
        let before = sample::snapshot();
        let mut now = sample::snapshot();
        now.rows[1].packets += 5;
        now.rows[2].packets += 9;
        for (reason, packets) in now.reasons.iter_mut().zip([14, 0, 3, 0, 7]) {
            reason.packets += packets;
        }
        let passes = passes(&before, &now);
        let found: Vec<_> = passes
            .iter()
            .map(|pass| (pass.row.as_ref().map(|row| row.0.as_str()), pass.reason.as_str(), pass.packets))
            .collect();
        assert_eq!(
            found,
            [(Some("pom-4.0/16"), "row", 9), (Some("pom-4.0/1"), "row", 5), (None, "own-flow", 3)],
            "drops are not among them, and rows are not counted twice"
        );
    }
}
