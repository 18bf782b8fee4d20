//! The image sections that map an address to a class: filters, levels and buckets of both families.

use pomguard_common::image::{Class, FILTER_LINES, Line, bucket_v4, bucket_v6, filter_v6};

use super::{
    buckets::{Item, Shape, Spread, least},
    classes::Entry,
    levels::Levels,
    prefix::mask,
};

/// Seeds that are tried before the number of buckets is doubled.
const SEEDS: u32 = 128;

/// The entries of one family, ready to be placed.
pub(super) struct Table {
    pub(super) shape: Shape,
    pub(super) levels: Levels,
    /// One item per entry: the level, the key bits, and the value to store.
    values: Vec<(u32, u128, u32)>,
}

/// The buckets of both families.
pub(super) struct Buckets {
    pub(super) seed: u32,
    pub(super) v4: Vec<Line>,
    pub(super) v6: Vec<Line>,
}

fn value(entry: &Entry, level: u32, offsets: &[u32]) -> u32 {
    Class::PRESENT | entry.marks | level << Class::LEVEL_SHIFT | offsets[entry.class as usize]
}

impl Table {
    pub(super) fn new(shape: Shape, levels: Levels, offsets: &[u32]) -> Self {
        let numbered = levels.lengths.iter().zip(0_u32..);
        let values = numbered
            .flat_map(|((_, entries), level)| {
                entries.iter().map(move |entry| (level, entry.prefix.bits, value(entry, level, offsets)))
            })
            .collect();
        Self { shape, levels, values }
    }

    pub(super) const fn entries(&self) -> usize {
        self.values.len()
    }

    /// Returns the class of addresses that no other prefix covers.
    pub(super) fn default(&self, offsets: &[u32]) -> u32 {
        self.levels.default.as_ref().map_or(0, |entry| value(entry, 0, offsets))
    }

    fn hash(&self, seed: u32, level: u32, key: u128) -> u32 {
        match self.shape {
            Shape::V4 => bucket_v4(seed, level, (key >> 96) as u32),
            Shape::V6 => bucket_v6(seed, level, (key >> 64) as u64, key as u64),
        }
    }

    fn spread(&self, seed: u32, buckets: usize) -> Option<Spread> {
        let hashes = self.values.iter().map(|&(level, key, _)| self.hash(seed, level, key));
        Spread::new(hashes, buckets, self.shape)
    }

    fn fill(&self, seed: u32, spread: &Spread) -> Vec<Line> {
        let item =
            |&(level, key, value): &(u32, u128, u32)| Item { hash: self.hash(seed, level, key), key, value };
        spread.fill(&self.values.iter().map(item).collect::<Vec<_>>(), self.shape)
    }

    /// Returns the one or two lines of masks, longest first.
    pub(super) fn masks(&self) -> Vec<Line> {
        let mut lines = vec![Line::ZERO; if self.shape == Shape::V4 { 1 } else { 2 }];
        for (&(length, _), level) in self.levels.lengths.iter().zip(0..) {
            match self.shape {
                Shape::V4 => {
                    lines[0].0[level] = (mask(length) >> 96) as u32;
                    lines[0].0[8 + level] = length.into();
                }
                Shape::V6 => {
                    let (high, low) = ((mask(length) >> 64) as u64, mask(length) as u64);
                    let words = [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32];
                    let at = 4 * (level % 4);
                    lines[level / 4].0[at..at + 4].copy_from_slice(&words);
                }
            }
        }
        lines
    }

    /// Returns the filter section, and the set of levels that must be probed for every address.
    pub(super) fn filter(&self) -> (Vec<Line>, u32) {
        let mut filter = vec![Line::ZERO; FILTER_LINES as usize];
        let mut set = |position: u32, bit: u32| {
            filter[(position >> 6) as usize].0[(position >> 2 & 15) as usize] |= bit << ((position & 3) * 8);
        };
        let mut always = 0;
        for ((length, entries), level) in self.levels.lengths.iter().zip(0_u32..) {
            for entry in entries {
                match self.shape {
                    Shape::V4 => {
                        let first = (entry.prefix.bits >> 112) as u32;
                        let count = 1_u32 << 16_u8.saturating_sub(*length);
                        (first..first + count).for_each(|position| set(position, 1 << level));
                    }
                    Shape::V6 if *length >= 48 => {
                        set(filter_v6((entry.prefix.bits >> 64) as u64), 1 << level);
                    }
                    Shape::V6 => always |= 1 << level,
                }
            }
        }
        (filter, always)
    }
}

/// Lays out both families within `room` lines. The error is the number of lines that they would need.
pub(super) fn lay_out(v4: &Table, v6: &Table, room: usize) -> Result<Buckets, usize> {
    let (mut count_v4, mut count_v6) = (least(v4.entries(), v4.shape), least(v6.entries(), v6.shape));
    loop {
        if count_v4 + count_v6 > room {
            return Err(count_v4 + count_v6);
        }
        let mut v4_fits = false;
        for number in 0..SEEDS {
            // Seeds that differ in low bits alone would only reorder consecutive addresses.
            let seed = number.wrapping_mul(0x9e37_79b9);
            let Some(spread_v4) = v4.spread(seed, count_v4) else { continue };
            v4_fits = true;
            let Some(spread_v6) = v6.spread(seed, count_v6) else { continue };
            return Ok(Buckets { seed, v4: v4.fill(seed, &spread_v4), v6: v6.fill(seed, &spread_v6) });
        }
        if v4_fits {
            count_v6 *= 2;
        } else {
            count_v4 *= 2;
        }
    }
}
