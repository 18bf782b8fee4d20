//! The counts of one hour, and a record of the kernel's counts that they include already.
//!
//! The kernel's entries count up for their whole life, and the packets of a replaced entry are added to the
//! rest. The ledger records the counts that were taken from each entry. Therefore each packet is counted
//! once, regardless of the number of readings, and across restarts of the daemon.

use std::collections::{BTreeMap, HashMap};

use pomguard_common::drops::{DropKey, rest_at, rest_key};
use serde::{Deserialize, Serialize};

use super::{Counts, Table, group};
use crate::kernel::drops::Reading;

/// Seconds of an hour.
pub const HOUR: u64 = 3_600;
/// The largest step back of the clock, in hours, after which the present hour goes on.
pub const BACK: u64 = 24;
/// The number of keys of known systems that one hour keeps. Further ones are counted by reason.
pub const KNOWN: usize = 4_096;
/// The number of keys of strangers that one hour keeps.
pub const STRANGERS: usize = 1_024;

/// Packets and bytes without a key of their own, by the part of [`rest_key`].
pub type RestTable = BTreeMap<DropKey, [u64; 2]>;

/// The counts of one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Lines", into = "Lines")]
pub struct Hour {
    /// The hour, counted in hours since 1970.
    pub hour: u64,
    /// Counts by key.
    pub table: Table,
    /// The counts without a key of their own.
    pub rest: RestTable,
}

impl Hour {
    /// Adds the counts of a key, or adds them to the rest if there is no room for another key.
    fn add(&mut self, key: DropKey, counts: &Counts) {
        if !self.table.contains_key(&key) {
            let known = key.known();
            let room = if known { KNOWN } else { STRANGERS };
            if self.table.len() >= room
                && self.table.keys().filter(|key| key.known() == known).count() >= room
            {
                return self.add_rest(rest_key(rest_at(key.what)), [counts.packets, counts.bytes]);
            }
        }
        self.table.entry(key).or_default().add(counts);
    }

    fn add_rest(&mut self, part: DropKey, [packets, bytes]: [u64; 2]) {
        let rest = self.rest.entry(part).or_default();
        *rest = [rest[0].saturating_add(packets), rest[1].saturating_add(bytes)];
    }

    /// Adds all counts of another hour.
    pub fn merge(&mut self, other: &Self) {
        for (key, counts) in &other.table {
            self.table.entry(*key).or_default().add(counts);
        }
        for (part, counts) in &other.rest {
            self.add_rest(*part, *counts);
        }
    }

    /// Returns true if nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty() && self.rest.is_empty()
    }
}

/// The form of an hour in a file: a line of numbers for each key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Lines {
    hour: u64,
    drops: Vec<(u64, u64, u64, Counts)>,
    rest: Vec<(u64, u64, u64)>,
}

impl From<Hour> for Lines {
    fn from(hour: Hour) -> Self {
        let drops = hour.table.into_iter();
        let rest = hour.rest.into_iter();
        Self {
            hour: hour.hour,
            drops: drops.map(|(key, counts)| (key.peer[0], key.peer[1], key.what, counts)).collect(),
            rest: rest.map(|(part, [packets, bytes])| (part.what, packets, bytes)).collect(),
        }
    }
}

impl From<Lines> for Hour {
    fn from(lines: Lines) -> Self {
        let drops = lines.drops.into_iter();
        let rest = lines.rest.into_iter();
        Self {
            hour: lines.hour,
            table: drops
                .map(|(high, low, what, counts)| (DropKey { peer: [high, low], what }, counts))
                .collect(),
            rest: rest
                .map(|(what, packets, bytes)| (DropKey { peer: [0; 2], what }, [packets, bytes]))
                .collect(),
        }
    }
}

/// The counts that were taken from an entry of the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    number: u32,
    what: u64,
    packets: u64,
    bytes: u64,
}

/// The present hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The id of the kernel's table that the ledger reads.
    table: u64,
    /// The counts of the present hour.
    pub hour: Hour,
    /// The counts that were taken from each slot.
    taken: HashMap<u32, Taken>,
    /// The counts that were taken from each part of the rest.
    taken_rest: Vec<(u64, [u64; 2])>,
}

impl Ledger {
    /// Adds the growth of a reading since the previous readings to the hour, and returns the growth.
    pub fn account(&mut self, reading: &Reading) -> Hour {
        if reading.table != self.table {
            // Another table, which started at zero.
            self.table = reading.table;
            self.taken.clear();
            self.taken_rest.clear();
        }
        let mut more = Hour { hour: reading.at / HOUR, ..Hour::default() };
        let mut taken_rest: BTreeMap<u64, [u64; 2]> = self.taken_rest.drain(..).collect();
        for entry in &reading.entries {
            let now = Taken {
                number: entry.taken,
                what: entry.key.what,
                packets: entry.packets,
                bytes: entry.bytes,
            };
            let before = match self.taken.insert(entry.slot, now) {
                Some(before) if before.number == now.number && before.what == now.what => before,
                Some(replaced) => {
                    // The packets of the replaced entry are in the kernel's rest now, and were taken already.
                    let rest = taken_rest.entry(rest_key(rest_at(replaced.what)).what).or_default();
                    *rest = [rest[0] + replaced.packets, rest[1] + replaced.bytes];
                    Taken { packets: 0, bytes: 0, ..now }
                }
                None => Taken { packets: 0, bytes: 0, ..now },
            };
            let counts = Counts {
                packets: now.packets.saturating_sub(before.packets),
                bytes: now.bytes.saturating_sub(before.bytes),
                first: if before.packets == 0 { entry.first } else { entry.last },
                last: entry.last,
                peer: entry.key.peer,
                other_port: entry.other_port,
            };
            if counts.packets > 0 {
                more.table.entry(group(entry.key)).or_default().add(&counts);
            }
        }
        for rest in &reading.rest {
            let taken = taken_rest.entry(rest.key.what).or_default();
            let packets = rest.packets.saturating_sub(taken[0]);
            let bytes = rest.bytes.saturating_sub(taken[1]);
            if packets > 0 {
                more.add_rest(rest.key, [packets, bytes]);
                *taken = [taken[0] + packets, taken[1] + bytes];
            }
        }
        self.taken_rest = taken_rest.into_iter().collect();
        for (key, counts) in &more.table {
            self.hour.add(*key, counts);
        }
        for (part, counts) in &more.rest {
            self.hour.add_rest(*part, *counts);
        }
        more
    }

    /// Begins the hour of a reading. Returns the previous hour, if a new one began. After a clock went back by
    /// less than [`BACK`] the present hour goes on: an hour that begins twice would replace its own file.
    pub fn turn(&mut self, at: u64) -> Option<Hour> {
        let hour = at / HOUR;
        if hour <= self.hour.hour && self.hour.hour - hour < BACK {
            return None;
        }
        Some(std::mem::replace(&mut self.hour, Hour { hour, ..Hour::default() }))
    }
}

#[cfg(test)]
mod tests;
