//! Hash buckets: entries in lines, each at most three lines behind the line of its hash.
//!
//! Buckets are filled in order of arrival, oldest first, which fits whenever any order does. Counting shows if
//! a seed fits before anything is laid out.

use std::collections::VecDeque;

use pomguard_common::{
    image::{Class, Line},
    limits,
};

/// An entry to be placed: hash (the bucket number before the mask), key and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) hash: u32,
    pub(super) key: u128,
    pub(super) value: u32,
}

/// The layout of the entries in a bucket's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Eight keys of one word, then eight values.
    V4,
    /// Three keys of four words, then three values and a spare word.
    V6,
}

impl Shape {
    /// Returns the number of entries in a bucket.
    pub(super) const fn slots(self) -> u16 {
        match self {
            Self::V4 => 8,
            Self::V6 => 3,
        }
    }

    /// Returns the word index of the value at `slot`.
    const fn value(self, slot: usize) -> usize {
        match self {
            Self::V4 => 8 + slot,
            Self::V6 => 12 + slot,
        }
    }

    fn put(self, line: &mut Line, slot: usize, item: &Item) {
        match self {
            Self::V4 => line.0[slot] = (item.key >> 96) as u32,
            Self::V6 => {
                let (high, low) = ((item.key >> 64) as u64, item.key as u64);
                let words = [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32];
                line.0[4 * slot..4 * slot + 4].copy_from_slice(&words);
            }
        }
        line.0[self.value(slot)] |= item.value;
    }
}

/// Returns the fewest buckets, a power of two, that are at most 55 % full.
pub(super) fn least(entries: usize, shape: Shape) -> usize {
    (entries * 100).div_ceil(55 * usize::from(shape.slots())).next_power_of_two()
}

/// The distribution of the entries over `buckets` under one seed.
pub(super) struct Spread {
    counts: Vec<u16>,
    /// A bucket that no entry spills into.
    start: usize,
}

impl Spread {
    /// Counts the entries per bucket. Returns `None` if some entry would lie too far behind the right bucket.
    pub(super) fn new(hashes: impl Iterator<Item = u32>, buckets: usize, shape: Shape) -> Option<Self> {
        let mut counts = vec![0_u16; buckets];
        let mut total = 0;
        for hash in hashes {
            let count = &mut counts[hash as usize & (buckets - 1)];
            *count = count.checked_add(1)?;
            total += 1;
        }
        if total > buckets * usize::from(shape.slots()) {
            return None;
        }
        // Nothing is left over behind the minimum of the running balance of entries and places.
        let (mut balance, mut deepest, mut start) = (0_i64, i64::MAX, 0);
        for (at, &count) in counts.iter().enumerate() {
            balance += i64::from(count) - i64::from(shape.slots());
            if balance < deepest {
                (deepest, start) = (balance, (at + 1) % buckets);
            }
        }
        let spread = Self { counts, start };
        spread.reaches(shape).then_some(spread)
    }

    fn reaches(&self, shape: Shape) -> bool {
        let buckets = self.counts.len();
        // Entries left over from earlier buckets, the oldest first; each must be placed by its last probe.
        let mut waiting = [0_usize; limits::BUCKET_PROBES];
        for step in 0..buckets {
            let at = (self.start + step) % buckets;
            waiting.rotate_left(1);
            waiting[limits::BUCKET_PROBES - 1] = usize::from(self.counts[at]);
            let mut room = usize::from(shape.slots());
            for left in &mut waiting {
                let placed = room.min(*left);
                *left -= placed;
                room -= placed;
            }
            if waiting[0] > 0 {
                return false;
            }
        }
        waiting.iter().all(|&left| left == 0)
    }

    /// Returns the buckets filled with `items`. The items must be the same that were counted.
    pub(super) fn fill(&self, items: &[Item], shape: Shape) -> Vec<Line> {
        let buckets = self.counts.len();
        let mut order: Vec<usize> = (0..items.len()).collect();
        let from_start = |&item: &usize| (items[item].hash as usize).wrapping_sub(self.start) & (buckets - 1);
        order.sort_by_key(from_start);
        let mut lines = vec![Line::ZERO; buckets];
        let mut arrivals = order.into_iter().peekable();
        let mut waiting: VecDeque<usize> = VecDeque::new();
        for step in 0..buckets {
            while let Some(item) = arrivals.next_if(|item| from_start(item) == step) {
                waiting.push_back(item);
            }
            let line = &mut lines[(self.start + step) & (buckets - 1)];
            for slot in 0..usize::from(shape.slots()) {
                let Some(item) = waiting.pop_front() else { break };
                shape.put(line, slot, &items[item]);
            }
            // An entry that still waits lies behind this bucket: the reader must continue with the next bucket.
            if !waiting.is_empty() {
                line.0[shape.value(0)] |= Class::SPILLED;
            }
        }
        lines
    }
}
