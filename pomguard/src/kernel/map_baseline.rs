//! What the maps are to hold that a daemon wrote, compared with what they do hold.
//!
//! Root can write any map, by `bpftool` for one. An image is frozen, so only another one can be hung
//! into its place; the words and tables alongside the images are compared as they are.

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

/// The maps' content as it was when somebody entitled had last changed it.
#[derive(Debug)]
pub struct MapBaseline {
    /// The words alongside the generations, the one that says which is in force among them. Those about interfaces
    /// follow the attachments, see [`super::attach::note_generic`].
    control: Vec<u64>,
    overrides: Vec<Override>,
    /// Slots that a packet may look at, with the id of the array that each is to hold.
    images: Vec<(u8, u32)>,
    /// Ids of the general programs, in the order of [`names::ARRAYS`].
    general: Vec<u32>,
    labels: Vec<RowLabel>,
    host: HostRecord,
}

impl MapBaseline {
    /// Takes what the maps hold now as what they are to hold.
    ///
    /// # Errors
    /// When they cannot be read.
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

    /// Compares what costs little, and puts back what differs: the images, what
    /// holds alongside them, and the general programs.
    /// Returns the maps that were mended.
    ///
    /// # Errors
    /// When a map cannot be read or written.
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
        // The daemon moves this word on all the time.
        if let (Some(word), Ok(now)) = (control.get_mut(word::HOLDERS), control::word(pins, word::HOLDERS)) {
            *word = now;
        }
        if restore(pins, names::MAP_CONTROL, &control)? {
            mended.push(names::MAP_CONTROL);
        }
        Ok(mended)
    }

    /// Compares the tables, and puts back what differs. Returns the maps that were mended.
    ///
    /// # Errors
    /// When a map cannot be read or written.
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

/// Hangs the image that is held for a slot into it again.
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

/// Writes every element that is not as it should be; whether there was one.
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
