//! Installs a compiled image: writes the image into a new array, freezes the array, reads the lines back, and
//! switches to the new generation.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use aya::maps::{Array, MapData};
use pomguard_common::{
    control::Override,
    counter::{HostRecord, RowLabel},
    image::{Active, Line, SECTIONS},
    limits, names,
};

use super::{
    KernelError,
    clock::{Ticks, unix_now},
    control, generation, image_array,
    load::{self, padded},
    mapping::Mapping,
    pins::Pins,
    raw,
    tally::{tallies, zero_tally},
};
use crate::{
    compile::{Clock, CompileError, HeldSlot, Image, Record, SlotTable, compile, labels, overrides},
    policy::Policy,
    state::confirmed::{About, Confirmed},
};

/// The generation in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Number of the generation, counted from 1.
    pub generation: u32,
    /// The slot of the generation.
    pub slot: u8,
    /// Digest of the image.
    pub digest: String,
    /// The image, for comparison with the kernel's copy.
    pub image: Image,
}

/// The images that took the place of those in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readdressed {
    /// The generation in force, with its new image.
    pub installed: Installed,
    /// Digest of the new image of the policy that returns unless the pending change is confirmed.
    pub base: Option<String>,
}

/// The error if a policy could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The policy does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The kernel refused the image.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Compiles a policy and puts the policy in force. On any error the former policy stays in force.
///
/// With a deadline (see [`Ticks::deadline`]) the programs return to the former policy when the deadline passes,
/// unless [`control::record_active`] comes first. The failsafe tuples change together with the policy, also at
/// the deadline.
///
/// [`Ticks::deadline`]: super::clock::Ticks::deadline
///
/// # Errors
/// If a limit is exceeded (before the first map write) or the kernel refuses.
pub fn install(
    pins: &Pins,
    policy: &Policy,
    clock: Clock,
    deadline: Option<u32>,
) -> Result<Installed, InstallError> {
    let old_labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let slots = SlotTable::assign(&held(pins, &old_labels)?, policy)?;
    let active = control::active(pins)?;
    let generation = generation::next(pins, active)?;
    let image = compile(policy, &slots, clock, generation)?;
    let failsafe = overrides(policy, &slots)?;
    let labels = labels(policy, &slots);
    let slot = put(pins, &image, &[active.installed(), active.fallback()])?;
    let next = match deadline {
        Some(deadline) => Active::until(slot, active.slot(Ticks::probe()?.now()? as u32) as u8, deadline),
        None => Active::confirmed(slot),
    };
    bring_in_force(pins, next, &failsafe, &labels, &policy.host, &policy.matrix.id)?;
    Ok(Installed { generation, slot, digest: image.digest(), image })
}

/// Compiles the policy again for the new addresses of this machine and puts the image in force, together
/// with an image of `base`, the policy that returns unless the pending change is confirmed. Generation,
/// deadline, rows, failsafe tuples and flows stay the same. On any error the former images stay in force.
///
/// # Errors
/// If a limit is exceeded, the kernel refuses, or a change is pending and `base` is `None`.
pub fn readdress(
    pins: &Pins,
    policy: &Policy,
    base: Option<&Policy>,
    clock: Clock,
) -> Result<Readdressed, InstallError> {
    let active = control::active(pins)?;
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let held = held(pins, &labels)?;
    let again = |policy: &Policy, slot: u8| -> Result<(Image, u32), InstallError> {
        let generation = generation::generation_of(pins, slot)?.ok_or(KernelError::Unreadable)?;
        Ok((compile(policy, &SlotTable::assign(&held, policy)?, clock, generation)?, generation))
    };
    let (image, generation) = again(policy, active.installed())?;
    let base = match active.deadline() {
        0 => None,
        _ => Some(again(base.ok_or(KernelError::Unreadable)?, active.fallback())?.0),
    };
    let mut table = control::Table::open(pins)?;
    let slot = put(pins, &image, &[active.installed(), active.fallback()])?;
    let next = match &base {
        None => Active::confirmed(slot),
        Some(base) => {
            let fallback = put(pins, base, &[active.installed(), active.fallback(), slot])?;
            Active::until(slot, fallback, active.deadline())
        }
    };
    table.rebind(active.installed(), slot);
    if base.is_some() {
        table.rebind(active.fallback(), next.fallback());
    }
    table.switch_to(pins, next);
    let base = base.map(|base| base.digest());
    Ok(Readdressed { installed: Installed { generation, slot, digest: image.digest(), image }, base })
}

/// Puts a policy in force that was compiled and confirmed before. On any error the former policy stays in
/// force.
///
/// # Errors
/// If the kernel refuses, or the saved lines are no image of this version.
pub fn reinstall(pins: &Pins, confirmed: &Confirmed, clock: Clock) -> Result<Installed, KernelError> {
    let active = control::active(pins)?;
    let generation = generation::next(pins, active)?;
    let image = Image::again(confirmed.lines.clone(), clock, generation).ok_or(KernelError::Unreadable)?;
    let slot = put(pins, &image, &[active.installed(), active.fallback()])?;
    let About { host, matrix, .. } = &confirmed.about;
    bring_in_force(pins, Active::confirmed(slot), &confirmed.overrides, &confirmed.labels, host, matrix)?;
    Ok(Installed { generation, slot, digest: image.digest(), image })
}

/// Returns the policy in force in the form that a start after a reboot puts in force again. `settings` is the
/// text of the settings with which the interfaces were attached.
///
/// # Errors
/// If the maps cannot be read.
pub fn confirmed(pins: &Pins, installed: &Installed, settings: String) -> Result<Confirmed, KernelError> {
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let record = load::host_record(pins)?;
    let overrides = control::overrides(pins)?;
    let of_generation = Override::slot_bit(installed.slot.into());
    let failsafe = |it: &&Override| it.marks & Override::EXCEPTION == 0 && it.slots & of_generation != 0;
    let excepted: Vec<u16> =
        overrides.iter().filter(|it| it.marks & Override::EXCEPTION != 0).map(|it| it.row).collect();
    let of_rows =
        labels.iter().zip(0_u16..).filter(|(label, slot)| label.live != 0 && !excepted.contains(slot));
    Ok(Confirmed {
        about: About {
            host: load::unpadded(&record.host),
            matrix: load::unpadded(&record.matrix),
            since: record.installed_at,
            settings,
        },
        labels: of_rows.map(|(label, slot)| (slot, label)).collect(),
        overrides: overrides
            .iter()
            .filter(failsafe)
            .map(|it| Override { slots: Override::EVERY_SLOT, ..*it })
            .collect(),
        lines: installed.image.lines().to_vec(),
    })
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

/// Returns one line of the image that was installed last.
///
/// # Errors
/// If there is no image, or the image cannot be read.
pub(super) fn line(pins: &Pins, index: u32) -> Result<Line, KernelError> {
    let array = generation::inner(pins, control::active(pins)?.installed())?;
    array.get(&index, 0).map_err(KernelError::map(names::MAP_POLICY))
}

/// Returns the lines of the image that was installed last.
///
/// # Errors
/// If there is no image, or the image cannot be read.
pub(super) fn lines(pins: &Pins) -> Result<Vec<Line>, KernelError> {
    let path = pins.image(control::active(pins)?.installed());
    let image =
        raw::open_pin(&path).map_err(KernelError::system("BPF_OBJ_GET", path.display().to_string()))?;
    let mapping = Mapping::<Line>::new(image.as_fd(), limits::IMAGE_LINES, false)
        .map_err(KernelError::system("mmap", path.display().to_string()))?;
    let head: Vec<Line> = mapping.iter().take(SECTIONS as usize).collect();
    let used = Record::read(&head).ok_or(KernelError::Unreadable)?.lines as usize;
    Ok(mapping.iter().take(used).collect())
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
fn bring_in_force(
    pins: &Pins,
    next: Active,
    failsafe: &[Override],
    labels: &[(u16, RowLabel)],
    host: &str,
    matrix: &str,
) -> Result<(), KernelError> {
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
        HostRecord { host: padded(host), matrix: padded(matrix), installed_at: unix_now(), ..record },
    );
    Ok(())
}
