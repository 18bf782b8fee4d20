//! Reads the table of drops from the pinned map.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::util::nr_cpus;
use pomguard_common::{
    drops::{AREA, BUCKET, DropKey, ELEMENT, REST, SLOT, WAYS, field, rest_key},
    names,
};

use super::{
    KernelError,
    clock::{Ticks, unix_now},
    load,
    pins::Pins,
    raw,
};

/// An entry of the table of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropEntry {
    /// Position of the entry, over all CPUs.
    pub slot: u32,
    /// Number of times that the slot was reused: an entry with another number is another entry, even with the
    /// same key.
    pub taken: u32,
    /// The key of the entry.
    pub key: DropKey,
    /// Number of packets since the entry was created.
    pub packets: u64,
    /// Number of bytes of these packets, link header included.
    pub bytes: u64,
    /// Seconds since 1970 of the first packet.
    pub first: u64,
    /// Seconds since 1970 of the last packet.
    pub last: u64,
    /// The port at the other end of the first packet.
    pub other_port: u16,
}

/// Packets of one area, direction, mode and reason that are in no entry (any more), summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Area, direction, mode and reason.
    pub key: DropKey,
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// One reading of the table. The programs record further packets meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Identifies this table among tables that were pinned earlier or will be pinned later.
    pub table: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// Seconds since 1970 when the counters were set up.
    pub counting_since: u64,
    /// Seconds since 1970 when the generation in force was installed.
    pub installed_at: u64,
    /// All entries.
    pub entries: Vec<DropEntry>,
    /// The packets that are in no entry.
    pub rest: Vec<Rest>,
}

/// Reads the table.
///
/// # Errors
/// [`KernelError::NotInstalled`] if nothing is pinned.
pub fn read(pins: &Pins) -> Result<Reading, KernelError> {
    let host = load::host_record(pins)?;
    let ticks = Ticks { shift: host.tick_shift, ..Ticks::probe()? };
    let map = pins.open(names::MAP_DROPS)?;
    let (entries, rest) = contents(map.fd().as_fd(), ticks)?;
    Ok(Reading {
        table: identity(host.flow_secret, host.counting_since),
        at: unix_now(),
        counting_since: host.counting_since,
        installed_at: host.installed_at,
        entries,
        rest,
    })
}

/// Returns the entries and the rest of a table.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn contents(
    map: BorrowedFd<'_>,
    ticks: Ticks,
) -> Result<(Vec<DropEntry>, Vec<Rest>), KernelError> {
    let cpus = nr_cpus().map_err(|(path, source)| KernelError::system("read", path)(source))?;
    let element = |index: usize| {
        let mut words = vec![0_u64; ELEMENT * cpus];
        raw::lookup_words(map, index as u32, &mut words)
            .map_err(KernelError::system("bpf", format!("map {}", names::MAP_DROPS)))?;
        Ok::<_, KernelError>(words)
    };
    // Read the rest before the entries: a packet may then be missing from both, but is never in both.
    let rest = rest(&element(REST)?);
    let mut entries = Vec::new();
    for index in 0..2 * AREA {
        let before = element(index)?;
        if before.iter().all(|&word| word == 0) {
            continue;
        }
        // An entry that a program was writing is complete in the second reading and differs from the first.
        let words = element(index)?;
        let now = ticks.now()?;
        let buckets = before.chunks_exact(BUCKET).zip(words.chunks_exact(BUCKET));
        for (number, (before, bucket)) in buckets.enumerate() {
            for way in (0..WAYS).filter(|&way| bucket[way] != 0) {
                let slot = WAYS + way * SLOT..WAYS + (way + 1) * SLOT;
                let (Some(was), Some(is)) = (before.get(slot.clone()), bucket.get(slot)) else { continue };
                if same_entry(was, is) {
                    let place = (index * cpus * (ELEMENT / BUCKET) + number) * WAYS + way;
                    entries.push(entry(place as u32, is, bucket[way], |tick| ticks.to_unix(tick, now)));
                }
            }
        }
    }
    Ok((entries, rest))
}

fn same_entry(before: &[u64], now: &[u64]) -> bool {
    [field::PEER, field::PEER + 1, field::WHAT, field::FIRST].iter().all(|&at| before[at] == now[at])
}

fn entry(slot: u32, words: &[u64], tag: u64, unix: impl Fn(u64) -> u64) -> DropEntry {
    DropEntry {
        slot,
        taken: (words[field::FIRST] >> 32) as u32,
        key: DropKey { peer: [words[field::PEER], words[field::PEER + 1]], what: words[field::WHAT] },
        packets: words[field::PACKETS],
        bytes: words[field::BYTES],
        first: unix(words[field::FIRST]),
        last: unix(tag),
        other_port: words[field::OTHER_PORT] as u16,
    }
}

/// Adds up the rests of all CPUs.
fn rest(words: &[u64]) -> Vec<Rest> {
    let mut sums = vec![0_u64; ELEMENT];
    for cpu in words.chunks_exact(ELEMENT) {
        sums.iter_mut().zip(cpu).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
    }
    let parts = sums.chunks_exact(2).enumerate().filter(|(_, counts)| counts[0] != 0);
    parts
        .map(|(number, counts)| Rest { key: rest_key(2 * number), packets: counts[0], bytes: counts[1] })
        .collect()
}

/// Returns a number that identifies this table and reveals nothing of the secret.
fn identity(secret: u64, since: u64) -> u64 {
    use sha2::{Digest as _, Sha256};
    let digest =
        Sha256::new().chain_update(secret.to_le_bytes()).chain_update(since.to_le_bytes()).finalize();
    digest.iter().take(size_of::<u64>()).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
