//! The pinned image of a slot, and the number of its generation.

use aya::maps::{Array, MapData};
use pomguard_common::{
    image::{AGES, GENERATION_WORD, Line},
    names,
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

/// Opens the array of a slot.
pub(crate) fn inner(pins: &Pins, slot: u8) -> Result<Array<MapData, Line>, KernelError> {
    let data = MapData::from_pin(pins.image(slot)).map_err(KernelError::map(names::MAP_POLICY))?;
    Array::try_from(aya::maps::Map::Array(data)).map_err(KernelError::map(names::MAP_POLICY))
}
