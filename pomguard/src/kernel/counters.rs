//! The counters of the pinned maps, summed over the CPUs, and the counter slots that are in use.

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use pomguard_common::{
    Direction,
    counter::{Counters, RowLabel, Tally, set},
    limits, names,
};

use super::{KernelError, mapping::Mapping, pins::Pins};
use crate::model::RowId;

/// Returns the counters, summed over the CPUs.
///
/// # Errors
/// If the map cannot be read.
pub fn counters(pins: &Pins) -> Result<Counters, KernelError> {
    counter_set(pins, set::TRAFFIC)
}

/// Returns the counters of the self-tests, summed over the CPUs. They are separate from the counters of
/// traffic.
///
/// # Errors
/// If the map cannot be read.
pub fn self_tests(pins: &Pins) -> Result<Counters, KernelError> {
    counter_set(pins, set::SELF_TESTS)
}

fn counter_set(pins: &Pins, index: u32) -> Result<Counters, KernelError> {
    let map: PerCpuArray<MapData, Counters> = pins.typed(names::MAP_COUNTERS)?;
    Ok(sum(&map.get(&index, 0).map_err(KernelError::map(names::MAP_COUNTERS))?))
}

/// Adds up the counters of all CPUs.
#[must_use]
pub fn sum(values: &PerCpuValues<Counters>) -> Counters {
    let mut total = Counters::ZERO;
    for value in values.iter() {
        for (into, from) in total.direction.iter_mut().zip(&value.direction) {
            add(&mut into.seen, from.seen);
            into.judged.iter_mut().zip(from.judged).for_each(|(into, from)| add(into, from));
            into.audited.iter_mut().zip(from.audited).for_each(|(into, from)| add(into, from));
        }
        total.events_lost += value.events_lost;
        total.flows_opened += value.flows_opened;
        total.flows_evicted += value.flows_evicted;
    }
    total
}

fn add(into: &mut Tally, from: Tally) {
    into.packets += from.packets;
    into.bytes += from.bytes;
}

/// Returns the counter slots in use: slot, row, direction.
///
/// # Errors
/// [`KernelError::NotInstalled`] if nothing is pinned.
pub fn row_slots(pins: &Pins) -> Result<Vec<(u16, RowId, Direction)>, KernelError> {
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let row = |slot: u16| {
        let label = labels.get(usize::from(slot))?;
        Some((slot, RowId(label.id.to_string()), opened_by(&label)))
    };
    Ok(used(&labels).filter_map(row).collect())
}

/// Returns the counter slots in use, in ascending order. The first byte of a label tells if the slot is free:
/// the other bytes are not read.
pub(crate) fn used(labels: &Mapping<RowLabel>) -> impl Iterator<Item = u16> + '_ {
    let used = |slot: &usize| labels.first_byte(*slot).is_some_and(|byte| byte != 0);
    (0..labels.len()).filter(used).map(|slot| slot as u16)
}

pub(crate) fn opened_by(label: &RowLabel) -> Direction {
    if label.direction == 0 { Direction::Inbound } else { Direction::Outbound }
}
