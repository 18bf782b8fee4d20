//! Installs a compiled image: writes the image into a new array, freezes the array, reads the lines back, and
//! switches to the new generation.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use aya::maps::{Array, MapData};
use pomguard_common::{
    control::Override,
    counter::{HostRecord, RowLabel},
    flow::State,
    image::{AGES, Active, Line},
    limits, names,
    text::FixedText,
};

use super::{
    KernelError,
    clock::{Ticks, unix_now},
    control, generation, image_array, image_reader, load,
    mapping::Mapping,
    pins::Pins,
    raw, sweep,
    tally::{tallies, zero_tally},
};
use crate::{
    compile::{Clock, HeldSlot, Image, ImagePlace, Parts},
    state::confirmed::Confirmed,
};

/// The generation in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    slot: u8,
    image: Image,
}

impl Installed {
    /// Returns the number of the generation, counted from 1.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.image.generation()
    }

    /// Returns the slot of the generation.
    #[must_use]
    pub const fn slot(&self) -> u8 {
        self.slot
    }

    /// Returns the digest of the image.
    #[must_use]
    pub fn digest(&self) -> String {
        self.image.digest()
    }

    /// Returns the image, for comparison with the kernel's copy.
    #[must_use]
    pub const fn image(&self) -> &Image {
        &self.image
    }
}

/// The images that took the place of those in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readdressed {
    /// The generation in force, with its new image.
    pub installed: Installed,
    /// Digest of the new image of the policy that returns unless the pending change is confirmed.
    pub base: Option<String>,
}

/// Returns the place of the next image.
///
/// # Errors
/// If the maps cannot be read.
pub fn next_place(pins: &Pins, clock: Clock) -> Result<ImagePlace, KernelError> {
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let generation = generation::next(pins, control::active(pins)?)?;
    Ok(ImagePlace::new(held(pins, &labels)?, clock, generation))
}

/// The places of the images in force.
#[derive(Clone, Debug)]
pub struct Places {
    /// The place of the image that was installed last.
    pub installed: ImagePlace,
    /// The place of the image that returns unless the pending change is confirmed; `None` if none is pending.
    pub base: Option<ImagePlace>,
}

/// Returns the places of the images in force, for images of the same generations.
///
/// # Errors
/// If the maps cannot be read, or nothing is in force.
pub fn places(pins: &Pins, clock: Clock) -> Result<Places, KernelError> {
    let active = control::active(pins)?;
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let held = held(pins, &labels)?;
    let place = |slot: u8| {
        let generation = generation::generation_of(pins, slot)?.ok_or(KernelError::Unreadable)?;
        Ok::<_, KernelError>(ImagePlace::new(held.clone(), clock, generation))
    };
    let base = if active.deadline() == 0 { None } else { Some(place(active.fallback())?) };
    Ok(Places { installed: place(active.installed())?, base })
}

/// Puts an image in force that was compiled for [`next_place`]. On any error the former policy stays in force.
///
/// With a deadline (see [`Ticks::deadline`]) the programs return to the former policy when the deadline passes,
/// unless [`control::record_active`] comes first. The failsafe tuples change together with the policy, also at
/// the deadline.
///
/// [`Ticks::deadline`]: super::clock::Ticks::deadline
///
/// # Errors
/// If there is no room for the failsafe tuples, or the kernel refuses.
pub fn install(pins: &Pins, image: Image, deadline: Option<u32>) -> Result<Installed, KernelError> {
    let active = control::active(pins)?;
    let next = generation::next(pins, active)?;
    if image.generation() != next {
        return Err(KernelError::Outdated { image: image.generation(), next });
    }
    let slot = put(pins, &image, &[active.installed(), active.fallback()])?;
    let ticks = Ticks::probe()?;
    let next = match deadline {
        Some(deadline) => Active::until(slot, active.slot(ticks.now()? as u32) as u8, deadline),
        None => Active::confirmed(slot),
    };
    if generation::generation_of(pins, active.installed())?.is_some() {
        forget_expired(pins, &image, ticks)?;
    }
    bring_in_force(pins, next, image.parts())?;
    Ok(Installed { slot, image })
}

/// Puts images for the new addresses of this machine in force that were compiled for [`places`]: `image` in the
/// place of the policy that was installed last, and `base` in the place of the one that returns unless the
/// pending change is confirmed. Generations, deadline, rows, failsafe tuples and flows stay the same. On any
/// error the former images stay in force.
///
/// # Errors
/// If the kernel refuses, or a change is pending and `base` is `None`.
pub fn readdress(pins: &Pins, image: Image, base: Option<&Image>) -> Result<Readdressed, KernelError> {
    let active = control::active(pins)?;
    let mut table = control::Table::open(pins)?;
    if active.deadline() != 0 && base.is_none() {
        return Err(KernelError::Unreadable);
    }
    let slot = put(pins, &image, &[active.installed(), active.fallback()])?;
    let next = match base.filter(|_| active.deadline() != 0) {
        None => Active::confirmed(slot),
        Some(base) => {
            let fallback = put(pins, base, &[active.installed(), active.fallback(), slot])?;
            Active::until(slot, fallback, active.deadline())
        }
    };
    table.rebind(active.installed(), slot);
    if next.fallback() != slot {
        table.rebind(active.fallback(), next.fallback());
    }
    table.switch_to(pins, next);
    Ok(Readdressed { installed: Installed { slot, image }, base: base.map(Image::digest) })
}

/// Frees the flows that are past their age, if the new image has a longer age: what is forgotten does not come
/// back.
fn forget_expired(pins: &Pins, image: &Image, ticks: Ticks) -> Result<(), KernelError> {
    let (before, after) =
        (image_reader::line(pins, AGES)?, image.lines().get(AGES as usize).copied().unwrap_or(Line::ZERO));
    let longer = |state: &State| after.word(*state as u32) > before.word(*state as u32);
    if State::ALL.iter().any(longer) { sweep::expire(pins, ticks) } else { Ok(()) }
}

/// Returns the policy in force in the form that a start after a reboot puts in force again. `settings` is the
/// text of the settings with which the interfaces were attached.
///
/// # Errors
/// If the maps cannot be read.
pub fn confirmed(pins: &Pins, installed: &Installed, settings: String) -> Result<Confirmed, KernelError> {
    Ok(Confirmed::new(&installed.image, load::host_record(pins)?.installed_at, settings))
}

/// Returns the counter slots that have a row id in the kernel's labels, with the time of their last use.
fn held(pins: &Pins, labels: &Mapping<RowLabel>) -> Result<Vec<HeldSlot>, KernelError> {
    let used = labels.iter().zip(0_u16..).filter(|(label, _)| label.id[0] != 0);
    let used: Vec<(RowLabel, u16)> = used.collect();
    let past: Vec<u16> = used.iter().filter(|(label, _)| label.live == 0).map(|&(_, slot)| slot).collect();
    // One tally for each label that is not in force, in the same order.
    let mut tallies = tallies(pins, &past)?.into_iter();
    let held = used.iter().filter_map(|(label, slot)| {
        let tally = if label.live == 0 { tallies.next() } else { None };
        HeldSlot::of_label(*slot, label, tally.map_or(u64::MAX, |tally| tally.last))
    });
    Ok(held.collect())
}

/// Writes an image into a new array, freezes and verifies the array, and puts the array into a slot that is not
/// `taken`. Returns the slot after every packet that began before is over.
fn put(pins: &Pins, image: &Image, taken: &[u8]) -> Result<u8, KernelError> {
    let slot = (0..limits::GENERATIONS as u8).find(|slot| !taken.contains(slot)).unwrap_or(0);
    let data = image_array::fresh()?;
    fill(&data, image)?;
    raw::freeze(data.fd().as_fd()).map_err(KernelError::system("BPF_MAP_FREEZE", "of the new image"))?;
    verify(&data, image)?;
    pin(&data, &pins.image(slot))?;
    let array = Array::try_from(aya::maps::Map::Array(data)).map_err(KernelError::map(names::MAP_POLICY))?;
    generation::enter(pins, slot, &array)?;
    Ok(slot)
}

/// Pins an image and replaces the pin of the slot's former image. No packet uses that slot, so the pin may be
/// ahead of the map of maps for a moment.
fn pin(data: &MapData, path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(KernelError::system("unlink", path.display().to_string())(error));
        }
        _ => {}
    }
    data.pin(path).map_err(|source| KernelError::Pin { path: path.to_owned(), source: Box::new(source) })
}

/// Copies an image into an array.
pub(super) fn fill(data: &MapData, image: &Image) -> Result<(), KernelError> {
    let mut mapping = Mapping::<Line>::new(data.fd().as_fd(), limits::IMAGE_LINES, true)
        .map_err(KernelError::system("mmap", "of the new image"))?;
    for (index, line) in image.lines().iter().enumerate() {
        mapping.set(index, *line);
    }
    Ok(())
}

/// Compares the contents of an array with an image.
pub(super) fn verify(data: &MapData, image: &Image) -> Result<(), KernelError> {
    let mapping = Mapping::<Line>::new(data.fd().as_fd(), image.lines().len(), false)
        .map_err(KernelError::system("mmap", "of the new image"))?;
    match mapping.iter().zip(image.lines()).position(|(read, written)| read != *written) {
        Some(line) => Err(KernelError::ReadBack { line }),
        None if mapping.len() == image.lines().len() => Ok(()),
        None => Err(KernelError::Unreadable),
    }
}

/// Writes the labels of the rows in force, marks all other labels except the exceptions' as past, and zeroes
/// the counters of a slot that another row takes.
fn relabel(pins: &Pins, mapping: &mut Mapping<RowLabel>, new: &[(u16, RowLabel)]) -> Result<(), KernelError> {
    let exceptions: Vec<usize> = control::overrides(pins)?
        .into_iter()
        .filter(|line| line.marks & Override::EXCEPTION != 0)
        .map(|line| line.row.into())
        .collect();
    for slot in 0..mapping.len() {
        if let Some(mut label) = mapping.get(slot)
            && label.live != 0
            && !exceptions.contains(&slot)
            && !new.iter().any(|(held, _)| usize::from(*held) == slot)
        {
            label.live = 0;
            mapping.set(slot, label);
        }
    }
    for (slot, label) in new {
        let before = mapping.get(usize::from(*slot));
        let same = before.is_some_and(|old| old.id == label.id && old.direction == label.direction);
        if !same && before.is_some_and(|old| old.id[0] != 0) {
            zero_tally(pins, *slot)?;
        }
        mapping.set(usize::from(*slot), *label);
    }
    Ok(())
}

/// Binds the failsafe tuples to the slot of the new generation and replaces the active word: one store switches
/// policy and failsafe tuples. Every step that can fail comes before the switch: after an error the old policy
/// is in force, with nothing of the new one.
fn bring_in_force(pins: &Pins, next: Active, parts: &Parts) -> Result<(), KernelError> {
    let Parts { host, matrix, labels, failsafe, lines: _ } = parts;
    let mut table = control::Table::open(pins)?;
    let mut mapping = pins.mapped::<HostRecord>(names::MAP_HOST, 1, true)?;
    let record = mapping.get(0).ok_or(KernelError::Unreadable)?;
    // The step that may find no room comes before the labels, and the labels before the switch: a counter that
    // counts has a label. Slots keep their meaning across changes.
    table.bind(next.installed(), failsafe)?;
    let mut old_labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, true)?;
    relabel(pins, &mut old_labels, labels)?;
    table.switch_to(pins, next);
    mapping.set(
        0,
        HostRecord {
            host: FixedText::new(host),
            matrix: FixedText::new(matrix),
            installed_at: unix_now(),
            ..record
        },
    );
    Ok(())
}
