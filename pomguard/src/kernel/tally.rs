//! The counters of the rows, summed over the CPUs.

use std::os::fd::AsFd as _;

use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use pomguard_common::{counter::RowTally, names};

use super::{KernelError, pins::Pins, raw};

/// Adds up the tallies of one row from all CPUs: the earliest first hit and the latest last hit.
#[must_use]
pub(super) fn sum_row(values: &[RowTally]) -> RowTally {
    values.iter().fold(RowTally::default(), |total, value| RowTally {
        packets: total.packets + value.packets,
        bytes: total.bytes + value.bytes,
        connections: total.connections + value.connections,
        first: if total.first == 0 || value.first == 0 {
            total.first.max(value.first)
        } else {
            total.first.min(value.first)
        },
        last: total.last.max(value.last),
    })
}

/// Number of counter slots whose tallies are read at once. A guest often has 128 possible CPUs: the tallies
/// then take a megabyte and a quarter.
const AT_ONCE: u16 = 256;

/// Returns the tallies of these counter slots, which must ascend, in the same order.
///
/// # Errors
/// [`KernelError::NotInstalled`] if nothing is pinned.
pub(crate) fn tallies(pins: &Pins, slots: &[u16]) -> Result<Vec<RowTally>, KernelError> {
    let data = pins.open(names::MAP_ROWS)?;
    let cpus = possible_cpus()?;
    let mut found = Vec::with_capacity(slots.len());
    for near in slots.chunk_by(|one, next| one / AT_ONCE == next / AT_ONCE) {
        let (Some(&first), Some(&last)) = (near.first(), near.last()) else { continue };
        let count = usize::from(last - first) + 1;
        match raw::lookup_batch::<RowTally>(data.fd().as_fd(), u32::from(first), count, cpus) {
            Ok(values) => {
                let of_all: Vec<RowTally> = values.chunks_exact(cpus).map(sum_row).collect();
                found.extend(near.iter().filter_map(|slot| of_all.get(usize::from(slot - first)).copied()));
            }
            Err(error) if raw::is_unknown_command(&error) => return one_by_one(data, slots),
            Err(error) => return Err(KernelError::system("bpf", format!("map {}", names::MAP_ROWS))(error)),
        }
    }
    Ok(found)
}

/// Does the same as [`tallies`] before Linux 5.13: one call for each slot.
fn one_by_one(data: MapData, slots: &[u16]) -> Result<Vec<RowTally>, KernelError> {
    let map = Map::from_map_data(data).map_err(KernelError::map(names::MAP_ROWS))?;
    let map: PerCpuArray<MapData, RowTally> = map.try_into().map_err(KernelError::map(names::MAP_ROWS))?;
    let tally = |slot: &u16| map.get(&u32::from(*slot), 0).map_err(KernelError::map(names::MAP_ROWS));
    slots.iter().map(|slot| Ok(sum_row(&tally(slot)?))).collect()
}

/// Sets the counters of a slot to zero that another row takes.
pub(super) fn zero_tally(pins: &Pins, slot: u16) -> Result<(), KernelError> {
    let mut rows: PerCpuArray<MapData, RowTally> = pins.typed(names::MAP_ROWS)?;
    let zero = PerCpuValues::try_from(vec![RowTally::default(); possible_cpus()?])
        .map_err(KernelError::system("allocate", "counters"))?;
    rows.set(u32::from(slot), zero, 0).map_err(KernelError::map(names::MAP_ROWS))
}

fn possible_cpus() -> Result<usize, KernelError> {
    nr_cpus().map_err(|(path, source)| KernelError::system("read", path)(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_hits_are_the_earliest_that_any_cpu_saw() {
        let tally = |first, last| RowTally { packets: 1, bytes: 60, connections: 0, first, last };
        let only = [tally(7, 9), RowTally::default()];
        assert_eq!(sum_row(&only), tally(7, 9), "a CPU that never saw one does not count");
        let both = sum_row(&[tally(7, 9), tally(5, 6)]);
        assert_eq!((both.first, both.last, both.packets), (5, 9, 2));
    }
}
