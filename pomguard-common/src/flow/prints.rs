//! A byte of the hash of each entry, next to the flow table.
//!
//! The flow table is larger than any cache: each bucket that a look-up reads costs the time of a memory access.
//! The prints of all entries take a quarter of a megabyte. A look-up reads the prints of its two buckets first, and
//! reads a bucket only if a print fits. So most packets of a flood reach no bucket, also at ports that have flows.
//!
//! The prints may say "perhaps" if there is no flow, but must never say "no" if there is one:
//!
//! * The print is written before the flow's tag, and stays when the flow ends.
//! * A print that was never written is [`UNKNOWN`], which stands for every hash. So a new table of prints next to
//!   an old flow table is slow and not wrong.
//! * The print is a part of the tag's hash bits, so user space can write the prints of a flow table that it finds
//!   ([`doubt`] and [`complete`]).

use super::{Byte, Store};
use crate::limits::FLOW_WAYS;

/// The print of a slot of which nothing is known. A table starts with such prints.
pub const UNKNOWN: u8 = 0;
/// The print of a slot that is known to be free.
pub const FREE: u8 = 1;

/// Lowest bit of each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// Highest bit of each byte.
const TOPS: u64 = 0x8080_8080_8080_8080;

/// The prints of one bucket.
#[derive(Debug, Default)]
#[repr(C, align(8))]
pub struct Prints([Byte; FLOW_WAYS]);

const _: () = assert!(size_of::<Prints>() == 8);

impl Prints {
    /// Returns the print of a hash: the upper eight bits, but neither [`UNKNOWN`] nor [`FREE`].
    #[must_use]
    #[inline(always)]
    pub const fn of_hash(hash: u64) -> u8 {
        let print = hash >> 56;
        // Without a branch: 0 and 1 become 2 and 3.
        (print | (print >> 1).wrapping_sub(1) >> 63 << 1) as u8
    }

    /// Returns the print of a way.
    #[must_use]
    #[inline(always)]
    pub fn way(&self, way: usize) -> &Byte {
        &self.0[way % FLOW_WAYS]
    }

    /// Makes every print say "perhaps".
    #[cfg(not(target_arch = "bpf"))]
    pub fn clear(&self) {
        self.0.iter().for_each(|print| print.store(UNKNOWN));
    }

    /// Returns the prints as a word, the first way in the lowest byte.
    #[inline(always)]
    fn word(&self) -> u64 {
        #[cfg(target_arch = "bpf")]
        {
            // SAFETY: eight bytes with the alignment of a word, in a little-endian object; see `Byte::load`.
            unsafe { core::ptr::from_ref(self).cast::<u64>().read_volatile() }
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            u64::from_le_bytes(core::array::from_fn(|way| self.0[way].load()))
        }
    }

    /// Returns 0 if no way can hold a flow with this hash. Compares all ways at once: a byte that is 0 after the
    /// exclusive or, and only such a byte, makes the first of the highest bits that are set.
    #[inline(always)]
    fn hits(&self, hash: u64) -> u64 {
        let prints = self.word();
        let differs = prints ^ u64::from(Self::of_hash(hash)).wrapping_mul(ONES);
        (differs.wrapping_sub(ONES) & !differs | prints.wrapping_sub(ONES) & !prints) & TOPS
    }
}

/// Returns the [`Prints::hits`] of a bucket. Without prints, every way may hold the flow.
#[inline(always)]
pub(super) fn hits<S: Store + ?Sized>(store: &S, bucket: u32, hash: u64) -> u64 {
    match store.prints(bucket) {
        Some(prints) => prints.hits(hash),
        None => TOPS,
    }
}

/// Records the print of a flow that is entered into a slot.
#[inline(always)]
pub(super) fn note<S: Store + ?Sized>(store: &S, slot: u32, hash: u64) {
    if let Some(prints) = store.prints(slot / FLOW_WAYS as u32) {
        let way = super::hide(slot.into()) as usize % FLOW_WAYS;
        prints.way(way).store(Prints::of_hash(hash));
    }
}

/// Makes each print of a bucket say "perhaps" that hides an entry, while the programs may enter flows there.
/// Returns the number of these entries.
#[cfg(not(target_arch = "bpf"))]
pub fn doubt(bucket: &super::Bucket, prints: &Prints) -> usize {
    let hides = |way: &usize| {
        let print = prints.way(*way);
        // The print first: a program writes the print before the tag.
        let (found, tag) = (print.load(), super::Tag(bucket.tags[*way].load()));
        let is_free = matches!(tag.state(), super::State::Free);
        // A print is never corrected in place: a program may have written the print of a flow whose tag follows.
        found != UNKNOWN && !is_free && found != Prints::of_hash(tag.0) && print.replace(found, UNKNOWN)
    };
    (0..FLOW_WAYS).filter(hides).count()
}

/// Completes the prints of a bucket: replaces each unknown print by that of the entry. Call this only if every
/// program that may enter a flow writes prints, and no packet is under way that began before the print became
/// unknown.
#[cfg(not(target_arch = "bpf"))]
pub fn complete(bucket: &super::Bucket, prints: &Prints) {
    for (way, tag) in bucket.tags.iter().enumerate() {
        let print = prints.way(way);
        if print.load() != UNKNOWN {
            continue;
        }
        let tag = super::Tag(tag.load());
        let right = if matches!(tag.state(), super::State::Free) { FREE } else { Prints::of_hash(tag.0) };
        // This fails if a program has written a print since. A program that writes the print after this is right, too.
        print.replace(UNKNOWN, right);
    }
}
