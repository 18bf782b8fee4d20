//! The pinned image of a slot, and the number of its generation.

use aya::maps::{Array, ArrayOfMaps, MapData};
use pomguard_common::{
    flow,
    image::{AGES, Active, GENERATION_WORD, Line},
    limits, names,
};

use super::{KernelError, pins::Pins};

/// Returns the number of the generation in a slot, or `None` if the slot holds no image.
pub(super) fn generation_of(pins: &Pins, slot: u8) -> Result<Option<u32>, KernelError> {
    if !pins.image(slot).exists() {
        return Ok(None);
    }
    // An installed generation that cannot be read is an error: if counting restarted at 1, flows of the former
    // generation 1 would count as validated by the new one.
    let ages = inner(pins, slot)?.get(&AGES, 0).map_err(KernelError::map(names::MAP_POLICY))?;
    Ok(Some(ages.word(GENERATION_WORD)))
}

/// Returns the number of the next generation: one more than the newest of all slots, also of one that is no
/// longer in force. A flow that a generation validated must not count as validated by another one.
pub(super) fn next(pins: &Pins, active: Active) -> Result<u32, KernelError> {
    let mut newest = None;
    for slot in 0..limits::GENERATIONS as u8 {
        let in_use = slot == active.installed() || slot == active.fallback();
        // The next image replaces whatever is in a slot that is not in use.
        let found =
            if in_use { generation_of(pins, slot)? } else { generation_of(pins, slot).ok().flatten() };
        newest = newest.max(found);
    }
    Ok(newest.map_or(1, flow::next_generation))
}

/// Opens the array of a slot.
pub(crate) fn inner(pins: &Pins, slot: u8) -> Result<Array<MapData, Line>, KernelError> {
    let data = MapData::from_pin(pins.image(slot)).map_err(KernelError::map(names::MAP_POLICY))?;
    Array::try_from(aya::maps::Map::Array(data)).map_err(KernelError::map(names::MAP_POLICY))
}

/// Puts an array into a slot of the policy map. Returns when every packet that began before is over: the kernel
/// waits for the programs after a write to a map of maps (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`).
pub(super) fn enter(pins: &Pins, slot: u8, array: &Array<MapData, Line>) -> Result<(), KernelError> {
    let mut policy: ArrayOfMaps<MapData, Array<MapData, Line>> = pins.typed(names::MAP_POLICY)?;
    policy.set(u32::from(slot), array, 0).map_err(KernelError::map(names::MAP_POLICY))
}

/// Waits until every packet that began before is over, with a write that changes nothing.
pub(super) fn wait_for_packets(pins: &Pins, slot: u8) -> Result<(), KernelError> {
    enter(pins, slot, &inner(pins, slot)?)
}
