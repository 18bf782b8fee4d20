//! Compares the contents of the maps with the contents that the daemon wrote.
//!
//! Root can write any map, for example with `bpftool`. An image is frozen, so an image can only be replaced by
//! another map; the words and tables next to the images are compared by value.

use std::os::fd::AsFd as _;

use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, MapData},
};
use pomguard_common::{
    control::{Override, word},
    counter::{HostRecord, RowLabel},
    image::Line,
    limits, names,
};

use super::{KernelError, control, pinned_objects::PinnedObjects, pins::Pins, raw};

/// The contents of the maps after the last legitimate change.
#[derive(Debug)]
pub struct MapBaseline {
    /// The control words, including the generation in force. The words about interfaces follow the attachments,
    /// see [`super::attach::note_generic`].
    control: Vec<u64>,
    overrides: Vec<Override>,
    /// The slots that a packet may use, each with the id of the expected array.
    images: Vec<(u8, u32)>,
    /// Ids of the general programs, in the order of [`names::ARRAYS`].
    general: Vec<u32>,
    labels: Vec<RowLabel>,
    host: HostRecord,
}

impl MapBaseline {
    /// Records the current contents of the maps as the baseline.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn read(pins: &Pins) -> Result<Self, KernelError> {
        let active = control::active(pins)?;
        let mut slots = vec![active.installed(), active.fallback()];
        slots.dedup();
        let images = slots
            .into_iter()
            .filter_map(|slot| Some((slot, raw::open_pin(&pins.image(slot)).ok()?)))
            .map(|(slot, image)| Ok((slot, raw::identity(image.as_fd())?[1])))
            .collect::<Result<_, _>>()
            .map_err(KernelError::system("BPF_OBJ_GET_INFO_BY_FD", "of an image"))?;
        let general = names::ARRAYS
            .into_iter()
            .map(|(_, program)| Ok(raw::identity(raw::open_pin(&pins.program(program))?.as_fd())?[1]))
            .collect::<Result<_, _>>()
            .map_err(KernelError::system("BPF_OBJ_GET_INFO_BY_FD", "of a general program"))?;
        Ok(Self {
            general,
            control: all(pins, names::MAP_CONTROL, word::GENERIC)?,
            overrides: all(pins, names::MAP_OVERRIDES, limits::OVERRIDES)?,
            images,
            labels: all(pins, names::MAP_LABELS, limits::ROW_SLOTS)?,
            host: all(pins, names::MAP_HOST, 1)?.pop().ok_or(KernelError::Unreadable)?,
        })
    }

    /// Compares the parts that are cheap to compare (the images, the control words, the overrides and the
    /// general programs) and restores the differences. Returns the maps that were restored.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn mend_words(&self, pins: &Pins, held: &PinnedObjects) -> Result<Vec<&'static str>, KernelError> {
        let mut mended = Vec::new();
        let outer = pins.open(names::MAP_POLICY)?;
        for (slot, id) in &self.images {
            let now = raw::inner_id(outer.fd().as_fd(), u32::from(*slot))
                .map_err(KernelError::system("BPF_MAP_LOOKUP_ELEM", names::MAP_POLICY))?;
            if now != Some(*id) {
                hang_in(pins, held, *slot)?;
                mended.push(names::MAP_POLICY);
            }
        }
        for ((array, program), id) in names::ARRAYS.into_iter().zip(&self.general) {
            let programs = held.object(&pins.program(array)).ok_or(KernelError::Unreadable)?;
            let now =
                raw::inner_id(programs, 0).map_err(KernelError::system("BPF_MAP_LOOKUP_ELEM", array))?;
            if now != Some(*id) {
                let program = held.object(&pins.program(program)).ok_or(KernelError::Unreadable)?;
                raw::set_program(programs, program)
                    .map_err(KernelError::system("BPF_MAP_UPDATE_ELEM", array))?;
                mended.push(array);
            }
        }
        if restore(pins, names::MAP_OVERRIDES, &self.overrides)? {
            mended.push(names::MAP_OVERRIDES);
        }
        let mut control = self.control.clone();
        // The daemon advances this word all the time.
        if let (Some(word), Ok(now)) = (control.get_mut(word::HOLDERS), control::word(pins, word::HOLDERS)) {
            *word = now;
        }
        if restore(pins, names::MAP_CONTROL, &control)? {
            mended.push(names::MAP_CONTROL);
        }
        Ok(mended)
    }

    /// Compares the tables and restores the differences. Returns the maps that were restored.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn mend_tables(&self, pins: &Pins) -> Result<Vec<&'static str>, KernelError> {
        let mut mended = Vec::new();
        if restore(pins, names::MAP_LABELS, &self.labels)? {
            mended.push(names::MAP_LABELS);
        }
        if restore(pins, names::MAP_HOST, std::slice::from_ref(&self.host))? {
            mended.push(names::MAP_HOST);
        }
        Ok(mended)
    }
}

/// Puts the held image of a slot back into the map of images.
fn hang_in(pins: &Pins, held: &PinnedObjects, slot: u8) -> Result<(), KernelError> {
    let path = pins.image(slot);
    let image = held
        .object(&path)
        .ok_or(KernelError::Unreadable)?
        .try_clone_to_owned()
        .map_err(KernelError::system("dup", path.display().to_string()))?;
    let image = MapData::from_fd(image).map_err(KernelError::map(names::MAP_POLICY))?;
    let image: Array<MapData, Line> =
        Array::try_from(aya::maps::Map::Array(image)).map_err(KernelError::map(names::MAP_POLICY))?;
    let mut outer: ArrayOfMaps<MapData, Array<MapData, Line>> = pins.typed(names::MAP_POLICY)?;
    outer.set(u32::from(slot), &image, 0).map_err(KernelError::map(names::MAP_POLICY))
}

fn all<T: Pod>(pins: &Pins, name: &'static str, length: usize) -> Result<Vec<T>, KernelError> {
    Ok(pins.mapped::<T>(name, length, false)?.iter().collect())
}

/// Writes every element that differs from `wanted`. Returns true if an element differed.
fn restore<T: Pod + PartialEq>(pins: &Pins, name: &'static str, wanted: &[T]) -> Result<bool, KernelError> {
    let mut mapping = pins.mapped::<T>(name, wanted.len(), true)?;
    let mut differed = false;
    for (index, value) in wanted.iter().enumerate() {
        if mapping.get(index).is_some_and(|now| now != *value) {
            mapping.set(index, *value);
            differed = true;
        }
    }
    Ok(differed)
}
