//! The peers of known systems whose openings were dropped lately.

use std::collections::BTreeMap;

use pomguard_common::reason::Reason;

use super::ledger::Hour;
use crate::{observe::snapshot::Disposition, policy::Direction};

/// The time within which a drop counts, in seconds.
pub const WINDOW: u64 = 600;
/// The number of peers of one direction and verdict that are counted.
pub const PEERS: usize = 256;

/// A direction and the verdict of a drop: dropped, or passed in audit.
pub type Side = (Direction, Disposition);

/// The peers of known systems, by address, each with the time of the last dropped opening in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentPeers(BTreeMap<Side, BTreeMap<[u64; 2], u64>>);

/// Returns true if a drop for this reason is the drop of an opening. A late segment of a flow that has ended
/// costs nobody a connection.
const fn is_opening(reason: Reason) -> bool {
    matches!(reason, Reason::PortKnown | Reason::SourceKnown | Reason::ClientPort | Reason::ProtocolKnown)
}

impl RecentPeers {
    /// Every direction and verdict.
    pub const SIDES: [Side; 4] = [
        (Direction::Inbound, Disposition::Drop),
        (Direction::Inbound, Disposition::Audit),
        (Direction::Outbound, Disposition::Drop),
        (Direction::Outbound, Disposition::Audit),
    ];

    /// Adds the drops since the last call, and forgets the peers whose last drop is older than [`WINDOW`]. `now`
    /// is in seconds since 1970. If a side is full, further peers are not counted until others are forgotten.
    pub fn add(&mut self, more: &Hour, now: u64) {
        for (key, counts) in more.table.iter().filter(|(key, _)| key.known()) {
            if !Reason::from_number(key.reason_number()).is_some_and(is_opening) {
                continue;
            }
            let verdict = if key.audited() { Disposition::Audit } else { Disposition::Drop };
            let peers = self.0.entry((key.direction(), verdict)).or_default();
            if peers.len() < PEERS || peers.contains_key(&key.peer) {
                let last = peers.entry(key.peer).or_default();
                *last = counts.last.max(*last);
            }
        }
        for peers in self.0.values_mut() {
            peers.retain(|_, last| *last + WINDOW > now);
        }
    }

    /// Returns the number of peers of a side: at most [`PEERS`].
    #[must_use]
    pub fn count(&self, side: Side) -> u64 {
        self.0.get(&side).map_or(0, BTreeMap::len) as u64
    }
}

#[cfg(test)]
mod tests {
    use pomguard_common::{
        decide::Decision,
        drops::{DropKey, End, PeerKind},
    };

    use super::*;
    use crate::observe::drops::Counts;

    fn more(reason: Reason, peers: std::ops::Range<u64>, port: u16, last: u64) -> Hour {
        let table = peers.map(|peer| {
            let end = End { peer: [peer << 32, 0], kind: PeerKind::V4, port, protocol: 6, ..End::NOBODY };
            let key = DropKey::new(Direction::Inbound, Decision::because(reason), 1, end);
            (key, Counts { packets: 1, bytes: 60, first: last, last, peer: end.peer, other_port: 0 })
        });
        Hour { table: table.collect(), ..Hour::default() }
    }

    const DROPPED: Side = (Direction::Inbound, Disposition::Drop);

    #[test]
    fn peers_are_counted_once_and_for_ten_minutes() {
        let mut recent = RecentPeers::default();
        recent.add(&more(Reason::PortKnown, 1..3, 80, 1_000), 1_000);
        recent.add(&more(Reason::SourceKnown, 2..4, 443, 1_300), 1_300);
        assert_eq!(recent.count(DROPPED), 3);
        assert_eq!(recent.count((Direction::Inbound, Disposition::Audit)), 0);
        recent.add(&Hour::default(), 1_599);
        assert_eq!(recent.count(DROPPED), 3);
        recent.add(&Hour::default(), 1_600);
        assert_eq!(recent.count(DROPPED), 2, "the first peer has no later drop");
        recent.add(&Hour::default(), 1_900);
        assert_eq!(recent.count(DROPPED), 0);
    }

    #[test]
    fn late_segments_and_old_drops_count_for_nobody() {
        let mut recent = RecentPeers::default();
        recent.add(&more(Reason::NoFlowKnown, 1..9, 80, 1_000), 1_000);
        recent.add(&more(Reason::PortKnown, 1..9, 80, 300), 1_000);
        assert_eq!(recent, RecentPeers(BTreeMap::from([(DROPPED, BTreeMap::new())])));
    }

    #[test]
    fn number_of_peers_is_bounded_and_room_comes_back() {
        let mut recent = RecentPeers::default();
        recent.add(&more(Reason::PortKnown, 1..5_000, 80, 1_000), 1_000);
        assert_eq!(recent.count(DROPPED), PEERS as u64);
        recent.add(&more(Reason::PortKnown, 9_000..9_002, 80, 1_700), 1_700);
        recent.add(&more(Reason::PortKnown, 9_000..9_002, 80, 1_701), 1_701);
        assert_eq!(recent.count(DROPPED), 2);
    }
}
