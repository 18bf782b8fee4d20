//! A compiled image into the kernel: written alongside the one in force, frozen, read back, switched to.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use aya::maps::{Array, ArrayOfMaps, MapData};
use pomguard_common::{
    control::Override,
    counter::{HostRecord, RowLabel},
    flow,
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

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Generation, counted from 1.
    pub generation: u32,
    /// The slot it lies in.
    pub slot: u8,
    /// Digest of the image.
    pub digest: String,
    /// The image, to check the kernel's copy against.
    pub image: Image,
}

/// Why a policy could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The kernel did not take it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Compiles a policy and puts it in force. Whatever fails, what was in force stays.
///
/// With a deadline (see [`Ticks::deadline`]) the programs return to what is in force now when it has
/// passed, unless [`control::record_active`] comes first. The failsafe tuples change with the policy, at the deadline
/// too.
///
/// [`Ticks::deadline`]: super::clock::Ticks::deadline
///
/// # Errors
/// When a limit is exceeded (before the first map write) or the kernel refuses.
pub fn install(
    pins: &Pins,
    policy: &Policy,
    clock: Clock,
    deadline: Option<u32>,
) -> Result<Installed, InstallError> {
    let mut old_labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, true)?;
    let slots = SlotTable::assign(&held(pins, &old_labels)?, policy)?;
    let active = control::active(pins)?;
    let generation = generation::generation_of(pins, active.installed())?.map_or(1, flow::next_generation);
    let image = compile(policy, &slots, clock, generation)?;
    let failsafe = overrides(policy, &slots)?;
    // Labels first: a counter that moves has a name. Slots keep their meaning across changes.
    relabel(pins, &mut old_labels, &labels(policy, &slots))?;
    let slot = put(pins, &image, active)?;
    let next = match deadline {
        Some(deadline) => Active::until(slot, active.slot(Ticks::probe()?.now()? as u32) as u8, deadline),
        None => Active::confirmed(slot),
    };
    bring_in_force(pins, next, &failsafe, &policy.host, &policy.matrix.id)?;
    Ok(Installed { generation, slot, digest: image.digest(), image })
}

/// Puts the policy in force again on a machine whose addresses changed, and alongside it `base`, the policy that
/// returns unless the change before is confirmed. Generation, deadline, rows, failsafe tuples and flows stay as they
/// are. Whatever fails, what was in force stays.
///
/// # Errors
/// When a limit is exceeded or the kernel refuses, and when a change waits for its confirmation and `base` is `None`.
pub fn readdress(
    pins: &Pins,
    policy: &Policy,
    base: Option<&Policy>,
    clock: Clock,
) -> Result<Installed, InstallError> {
    let active = control::active(pins)?;
    let labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, false)?;
    let held = held(pins, &labels)?;
    let again = |policy: &Policy, slot: u8| -> Result<Image, InstallError> {
        let generation = generation::generation_of(pins, slot)?.ok_or(KernelError::Unreadable)?;
        Ok(compile(policy, &SlotTable::assign(&held, policy)?, clock, generation)?)
    };
    let image = again(policy, active.installed())?;
    let generation = generation::generation_of(pins, active.installed())?.ok_or(KernelError::Unreadable)?;
    let mut taken = vec![active.installed(), active.fallback()];
    let slot = put_alongside(pins, &image, &taken)?;
    let mut table = control::Table::open(pins)?;
    table.rebind(active.installed(), slot);
    let next = if active.deadline() == 0 {
        Active::confirmed(slot)
    } else {
        let base = again(base.ok_or(KernelError::Unreadable)?, active.fallback())?;
        taken.push(slot);
        let fallback = put_alongside(pins, &base, &taken)?;
        table.rebind(active.fallback(), fallback);
        Active::until(slot, fallback, active.deadline())
    };
    table.flip(next);
    table.keep_live(next);
    Ok(Installed { generation, slot, digest: image.digest(), image })
}

/// Puts a policy in force that was compiled and confirmed before. Whatever fails, what was in force stays.
///
/// # Errors
/// When the kernel refuses, or what was kept is no image of this version.
pub fn reinstall(pins: &Pins, confirmed: &Confirmed, clock: Clock) -> Result<Installed, KernelError> {
    let active = control::active(pins)?;
    let generation = generation::generation_of(pins, active.installed())?.map_or(1, flow::next_generation);
    let image = Image::again(confirmed.lines.clone(), clock, generation).ok_or(KernelError::Unreadable)?;
    let mut labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, true)?;
    relabel(pins, &mut labels, &confirmed.labels)?;
    let slot = put(pins, &image, active)?;
    let About { host, matrix, .. } = &confirmed.about;
    bring_in_force(pins, Active::confirmed(slot), &confirmed.overrides, host, matrix)?;
    Ok(Installed { generation, slot, digest: image.digest(), image })
}

/// What is in force now, to be put in force again after a reboot. `settings` is the text of the
/// settings that it was attached by.
///
/// # Errors
/// When the maps cannot be read.
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

/// Which row ids hold which counter slots, as the kernel's labels say, and when each was last used.
fn held(pins: &Pins, labels: &Mapping<RowLabel>) -> Result<Vec<HeldSlot>, KernelError> {
    let used = labels.iter().zip(0_u16..).filter(|(label, _)| label.id[0] != 0);
    let used: Vec<(RowLabel, u16)> = used.collect();
    let past: Vec<u16> = used.iter().filter(|(label, _)| label.live == 0).map(|&(_, slot)| slot).collect();
    // One for each label that is not in force, in the same order.
    let mut tallies = tallies(pins, &past)?.into_iter();
    let held = used.iter().filter_map(|(label, slot)| {
        let tally = if label.live == 0 { tallies.next() } else { None };
        HeldSlot::of_label(*slot, label, tally.map_or(u64::MAX, |tally| tally.last))
    });
    Ok(held.collect())
}

/// One line of the image that was installed last.
///
/// # Errors
/// When there is none, or it cannot be read.
pub(super) fn line(pins: &Pins, index: u32) -> Result<Line, KernelError> {
    let array = generation::inner(pins, control::active(pins)?.installed())?;
    array.get(&index, 0).map_err(KernelError::map(names::MAP_POLICY))
}

/// The lines of the image that was installed last.
///
/// # Errors
/// When there is none, or it cannot be read.
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

/// Writes an image into a fresh array, freezes it, reads it back and hangs it into a slot that no
/// packet looks at.
fn put(pins: &Pins, image: &Image, active: Active) -> Result<u8, KernelError> {
    put_alongside(pins, image, &[active.installed(), active.fallback()])
}

/// The same, into a slot that is none of `taken`.
fn put_alongside(pins: &Pins, image: &Image, taken: &[u8]) -> Result<u8, KernelError> {
    let slot = (0..limits::GENERATIONS as u8).find(|slot| !taken.contains(slot)).unwrap_or(0);
    let data = image_array::fresh()?;
    fill(&data, image)?;
    raw::freeze(data.fd().as_fd()).map_err(KernelError::system("BPF_MAP_FREEZE", "of the new image"))?;
    verify(&data, image)?;
    pin(&data, &pins.image(slot))?;
    let array = Array::try_from(aya::maps::Map::Array(data)).map_err(KernelError::map(names::MAP_POLICY))?;
    let mut policy: ArrayOfMaps<MapData, Array<MapData, Line>> = pins.typed(names::MAP_POLICY)?;
    // The kernel waits here until no program can still be using what the slot held before.
    policy.set(u32::from(slot), &array, 0).map_err(KernelError::map(names::MAP_POLICY))?;
    Ok(slot)
}

/// Pins an image in the place of the one that its slot held. No packet looks at that slot, so it does
/// not matter that for a moment the pin is ahead of the map of maps.
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

/// Compares what an array holds with an image.
pub(super) fn verify(data: &MapData, image: &Image) -> Result<(), KernelError> {
    let mapping = Mapping::<Line>::new(data.fd().as_fd(), image.lines().len(), false)
        .map_err(KernelError::system("mmap", "of the new image"))?;
    match mapping.iter().zip(image.lines()).position(|(read, written)| read != *written) {
        Some(line) => Err(KernelError::ReadBack { line }),
        None if mapping.len() == image.lines().len() => Ok(()),
        None => Err(KernelError::Unreadable),
    }
}

/// Writes the labels of the rows in force, marks the others but the exceptions as past, and zeroes the
/// counters of a slot that has changed hands.
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

/// Binds the failsafe tuples to the slot of the new generation, and flips the word, which switches policy and failsafe
/// tuples in one store. Afterwards the lines that no generation needs are freed. All that can fail does so before
/// the flip: whoever is told of a failure has the old policy, and nothing of the new one.
fn bring_in_force(
    pins: &Pins,
    next: Active,
    failsafe: &[Override],
    host: &str,
    matrix: &str,
) -> Result<(), KernelError> {
    let mut table = control::Table::open(pins)?;
    let mut mapping = pins.mapped::<HostRecord>(names::MAP_HOST, 1, true)?;
    let record = mapping.get(0).ok_or(KernelError::Unreadable)?;
    table.bind(next.installed(), failsafe)?;
    table.flip(next);
    table.keep_live(next);
    mapping.set(
        0,
        HostRecord { host: padded(host), matrix: padded(matrix), installed_at: unix_now(), ..record },
    );
    Ok(())
}
