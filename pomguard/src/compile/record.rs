//! The record of an image: counts and digest, which people and the read-back get from the map alone.
//!
//! In the lines from [`RECORD`] on: line 0 holds the counts, line 1 the digest, in words.

use pomguard_common::{
    ABI_VERSION,
    image::{AGES, CLOCK_WORD, GENERATION_WORD, HEAD, Line, RECORD, SECTIONS, head},
    limits,
};
use sha2::{Digest as _, Sha256};

use super::slots::SlotTable;
use crate::{
    digest::hex,
    policy::{Mode, Policy},
};

/// Facts about an image for user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Tuples: peer prefixes times port ranges. Word 0.
    pub tuples: u32,
    /// Rows, inbound and outbound. Words 1 and 2.
    pub rows: [u32; 2],
    /// Number of used lines, from line 0 on. Word 3.
    pub lines: u32,
    /// The generation, counted from 1. Words 4 and 5, low half first.
    pub generation: u64,
    /// Prefixes in the buckets, IPv4 and IPv6. Words 6 and 7.
    pub prefixes: [u32; 2],
    /// Lines of the buckets, IPv4 and IPv6. Words 8 and 9.
    pub buckets: [u32; 2],
    /// Number of distinct sets of rows that an address can have. Word 10.
    pub classes: u32,
    /// Number of columns of the matrix: ports of different meaning. Word 11.
    pub services: u32,
    /// First line of the audit bits: a bit per counter slot, set for rows in audit; 0 = no row is in audit.
    /// Word 12.
    pub audit: u32,
    /// The clock of the ages and budgets, in ticks per thousand seconds; 0 = unknown, in images of earlier
    /// versions. Word 13.
    pub ticks_per_1000s: u32,
    /// SHA-256 of the image: see [`digest`]. Words 0 to 7 of the second line.
    pub digest: [u8; 32],
}

impl ImageFacts {
    /// Reads the record of an image. Returns `None` if the image has another layout version.
    pub fn read(lines: &[Line]) -> Option<Self> {
        if lines.get(HEAD as usize)?.word(head::ABI) != ABI_VERSION {
            return None;
        }
        let counts = lines.get(RECORD as usize)?;
        let second = lines.get(RECORD as usize + 1)?;
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(&second.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Some(Self {
            tuples: counts.word(0),
            rows: [counts.word(1), counts.word(2)],
            lines: counts.word(3),
            generation: counts.long(2),
            prefixes: [counts.word(6), counts.word(7)],
            buckets: [counts.word(8), counts.word(9)],
            classes: counts.word(10),
            services: counts.word(11),
            audit: counts.word(12),
            ticks_per_1000s: counts.word(13),
            digest,
        })
    }

    /// Converts an image of layout `from` to this layout. The lines may differ only in the number of the
    /// layout. Returns true if the lines match the digest of the record, and `None` if there is no record.
    pub fn adopt(lines: &mut [Line], from: u32) -> Option<bool> {
        let number = |lines: &mut [Line], layout| {
            let line = lines.get_mut(HEAD as usize)?;
            *line.0.get_mut(head::ABI as usize)? = layout;
            Some(())
        };
        number(lines, ABI_VERSION)?;
        let mut record = Self::read(lines)?;
        number(lines, from)?;
        let whole = record.holds(lines);
        number(lines, ABI_VERSION)?;
        if whole && from != ABI_VERSION {
            record.digest = digest(lines.get(..record.lines as usize)?);
            record.write(lines);
        }
        Some(whole)
    }

    /// Returns true if the lines match the digest of the record, and all lines after them are zero.
    pub fn holds(&self, lines: &[Line]) -> bool {
        let (Some(used), Some(rest)) = (lines.get(..self.lines as usize), lines.get(self.lines as usize..))
        else {
            return false;
        };
        digest(used) == self.digest && rest.iter().all(|line| *line == Line::ZERO)
    }

    /// Returns true if the row of a counter slot is in audit. `line` reads a line of the image. Returns `None`
    /// if a line cannot be read.
    pub fn audits(&self, slot: u16, line: impl FnOnce(u32) -> Option<Line>) -> Option<bool> {
        if self.audit == 0 {
            return Some(false);
        }
        let word = line(self.audit + u32::from(slot / 512))?.word(u32::from(slot % 512 / 32));
        Some(word >> (slot % 32) & 1 != 0)
    }

    /// Returns the digest in hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.digest)
    }

    pub(super) fn write(&self, lines: &mut [Line]) {
        let generation = [self.generation as u32, (self.generation >> 32) as u32];
        let [inbound, outbound] = self.rows;
        let counts = [self.tuples, inbound, outbound, self.lines, generation[0], generation[1]];
        let sizes = [self.prefixes, self.buckets, [self.classes, self.services]];
        let words =
            counts.into_iter().chain(sizes.into_iter().flatten()).chain([self.audit, self.ticks_per_1000s]);
        let mut first = Line::ZERO;
        first.0.iter_mut().zip(words).for_each(|(at, word)| *at = word);
        let mut second = Line::ZERO;
        for (at, bytes) in second.0.iter_mut().zip(self.digest.chunks_exact(4)) {
            *at = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        for (line, at) in [first, second].into_iter().zip(RECORD as usize..) {
            if let Some(place) = lines.get_mut(at) {
                *place = line;
            }
        }
    }
}

/// Number of lines for one bit per counter slot.
const AUDIT_LINES: usize = limits::ROW_SLOTS / 512;

/// Returns the audit bits, a bit per counter slot. Returns no line if no row is in audit.
pub(super) fn audit_lines(policy: &Policy, slots: &SlotTable) -> Vec<Line> {
    let audited = policy.rows.iter().filter(|row| row.mode == Mode::Audit);
    let audited: Vec<u16> = audited.filter_map(|row| slots.of(&row.id, row.direction)).collect();
    if audited.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::ZERO; AUDIT_LINES];
    for slot in audited {
        if let Some(line) = lines.get_mut(usize::from(slot) / 512) {
            line.0[usize::from(slot) % 512 / 32] |= 1 << (slot % 32);
        }
    }
    lines
}

/// Returns SHA-256 of the image's meaning: all words, low byte first, with zero for the generation, the clock
/// and the record. Two generations of one policy have the same digest.
pub fn digest(lines: &[Line]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (line, number) in lines.iter().zip(0_u32..) {
        let mut words = line.0;
        if number == AGES {
            words[GENERATION_WORD as usize] = 0;
            words[CLOCK_WORD as usize] = 0;
        } else if (RECORD..SECTIONS).contains(&number) {
            words = [0; 16];
        }
        let mut bytes = [0; 64];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        hash.update(bytes);
    }
    hash.finalize().into()
}
