//! Prefix lengths: an address look-up makes one probe per length, and at most eight.
//!
//! If there are more lengths, the compiler folds them one after the other: it cuts the prefixes of a length
//! into prefixes of the next longer kept length (controlled prefix expansion, Srinivasan and Varghese 1998).
//! Existing prefixes of that length keep their meaning, since the longer match wins.

use std::collections::BTreeMap;

use pomguard_common::limits;

use super::{
    classes::Entry,
    error::CompileError,
    prefix::{Family, Prefix},
};

/// Most entries after folding that are still tried; more would fit no image.
const ENTRIES: usize = 1 << 19;

/// The entries of one family by prefix length.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Lengths with their entries, longest first, at most eight.
    pub(super) lengths: Vec<(u8, Vec<Entry>)>,
    /// The entry that covers every address, if any.
    pub(super) default: Option<Entry>,
}

impl Levels {
    pub(super) fn new(entries: Vec<Entry>, family: Family) -> Result<Self, CompileError> {
        let mut default = None;
        let mut lengths: BTreeMap<u8, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            match entry.prefix.length {
                0 => default = Some(entry),
                length => lengths.entry(length).or_default().push(entry),
            }
        }
        let found = lengths.len();
        while lengths.len() > limits::PREFIX_LEVELS {
            fold(&mut lengths, found, family)?;
        }
        Ok(Self { lengths: lengths.into_iter().rev().collect(), default })
    }
}

/// Folds the cheapest length into the next longer one.
fn fold(lengths: &mut BTreeMap<u8, Vec<Entry>>, found: usize, family: Family) -> Result<(), CompileError> {
    let steps = lengths.iter().zip(lengths.keys().skip(1));
    let costs = steps.map(|((&shorter, entries), &longer)| {
        let parts = 1_u128.checked_shl(u32::from(longer - shorter)).unwrap_or(u128::MAX);
        (parts.saturating_mul(entries.len() as u128), shorter, longer)
    });
    let Some((cost, shorter, longer)) = costs.min() else { return Ok(()) };
    let total = lengths.values().map(Vec::len).sum::<usize>() as u128;
    if cost.saturating_add(total) > ENTRIES as u128 {
        let entries = cost.saturating_add(total);
        return Err(CompileError::PrefixLengths { family, lengths: found, entries, limit: ENTRIES });
    }
    let folded = lengths.remove(&shorter).unwrap_or_default();
    let kept = lengths.remove(&longer).unwrap_or_default();
    let mut all: BTreeMap<Prefix, Entry> = kept.into_iter().map(|entry| (entry.prefix, entry)).collect();
    for entry in folded {
        for part in 0..1_u128 << (longer - shorter) {
            let prefix = Prefix::new(entry.prefix.bits | part << (128 - longer), longer);
            all.entry(prefix).or_insert(Entry { prefix, ..entry });
        }
    }
    lengths.insert(longer, all.into_values().collect());
    Ok(())
}
