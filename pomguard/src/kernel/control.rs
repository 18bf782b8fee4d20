//! What holds alongside the generations, by the pins, with the daemon dead or alive: which generation is
//! in force and until when, panic, grace, failsafe tuples and timed exceptions.
//!
//! The programs judge every deadline by themselves. A deadline is a tick, see [`Ticks::deadline`].
//! Writers do not lock each other out: the daemon is the only one while it lives.
//!
//! [`Ticks::deadline`]: super::clock::Ticks::deadline

use std::{
    iter,
    sync::atomic::{Ordering, fence},
};

use pomguard_common::{
    control::{Control, Override, Timed, generic, over, word},
    counter::RowLabel,
    image::Active,
    limits, names,
};

use super::{
    KernelError, generation, load,
    mapping::Mapping,
    pins::Pins,
    tally::{tallies, zero_tally},
};

/// One word of the control line.
pub(super) fn word(pins: &Pins, index: usize) -> Result<u64, KernelError> {
    load::host_record(pins)?;
    let line = pins.mapped::<u64>(names::MAP_CONTROL, Control::WORDS, false)?;
    line.get(index).ok_or(KernelError::Unreadable)
}

/// Replaces one word of the control line. An aligned 64-bit store: no packet sees half of it.
fn set_word(pins: &Pins, index: usize, value: u64) -> Result<(), KernelError> {
    load::host_record(pins)?;
    let mut line = pins.mapped::<u64>(names::MAP_CONTROL, Control::WORDS, true)?;
    if line.set(index, value) { Ok(()) } else { Err(KernelError::Unreadable) }
}

/// The word that says which generation is in force, and until when.
///
/// # Errors
/// [`KernelError::NotInstalled`] when nothing is pinned, [`KernelError::Layout`] for maps of another version.
pub fn active(pins: &Pins) -> Result<Active, KernelError> {
    word(pins, word::ACTIVE).map(Active)
}

/// Flips the word that says which generation is in force.
///
/// # Errors
/// As [`active`].
pub fn set_active(pins: &Pins, active: Active) -> Result<(), KernelError> {
    set_word(pins, word::ACTIVE, active.0)
}

/// Says until which tick the images are up to date about who holds the addresses that several hosts may hold.
/// The programs judge the deadline: when the daemon is dead, each of these hosts may hold them.
///
/// # Errors
/// As [`active`].
pub fn set_holders(pins: &Pins, until: u32) -> Result<(), KernelError> {
    set_word(pins, word::HOLDERS, Timed::until(1, until).0)
}

/// Makes the generation in force at `now` the one that stays: a pending confirmation is given, or, past
/// its deadline, the return to the generation before is final.
///
/// # Errors
/// As [`active`].
pub fn record_active(pins: &Pins, now: u32) -> Result<Active, KernelError> {
    let confirmed = Active::confirmed(active(pins)?.slot(now) as u8);
    stay(pins, confirmed)?;
    Ok(confirmed)
}

/// Switches to a generation that stays, and frees the lines of failsafe rows that no generation has any more. The
/// word alone decides which of them hold: freeing makes room and changes no verdict.
///
/// # Errors
/// As [`active`].
pub fn stay(pins: &Pins, confirmed: Active) -> Result<(), KernelError> {
    let mut table = Table::open(pins)?;
    table.flip(confirmed);
    table.keep_live(confirmed);
    Ok(())
}

/// Number of the generation in force at `now`; none before the first.
///
/// # Errors
/// As [`active`], and when the image cannot be read.
pub fn generation(pins: &Pins, now: u32) -> Result<Option<u32>, KernelError> {
    generation::generation_of(pins, active(pins)?.slot(now) as u8)
}

/// The panic word: a kind of [`pomguard_common::control::panic`], and when it ends.
///
/// # Errors
/// As [`active`].
pub fn panic(pins: &Pins) -> Result<Timed, KernelError> {
    word(pins, word::PANIC).map(Timed)
}

/// Begins or ends panic ([`Timed::NONE`]).
///
/// # Errors
/// As [`active`].
pub fn set_panic(pins: &Pins, panic: Timed) -> Result<(), KernelError> {
    set_word(pins, word::PANIC, panic.0)
}

/// The grace word: kind 1 while packets in the middle of unknown connections pass.
///
/// # Errors
/// As [`active`].
pub fn grace(pins: &Pins) -> Result<Timed, KernelError> {
    word(pins, word::GRACE).map(Timed)
}

/// Begins or ends grace ([`Timed::NONE`]).
///
/// # Errors
/// As [`active`].
pub fn set_grace(pins: &Pins, grace: Timed) -> Result<(), KernelError> {
    set_word(pins, word::GRACE, grace.0)
}

/// Tells the programs at which interfaces they are in generic mode. Those beyond the room that there is count as
/// native: there the host does not hear its own multicast.
///
/// # Errors
/// As [`active`].
pub fn set_generic(pins: &Pins, interfaces: &[u32]) -> Result<(), KernelError> {
    load::host_record(pins)?;
    let mut line = pins.mapped::<u64>(names::MAP_CONTROL, Control::WORDS, true)?;
    let words = interfaces.iter().map(|&interface| generic(interface)).chain(iter::repeat(0));
    for (index, value) in (word::GENERIC..).take(word::GENERIC_WORDS).zip(words) {
        if line.get(index).ok_or(KernelError::Unreadable)? != value {
            line.set(index, value);
        }
    }
    Ok(())
}

/// Clears panic and grace where their time is up at `now`. They hold no more in any case, but a word that is
/// not zero sends every packet the general path. Returns whether there was any.
///
/// # Errors
/// As [`active`].
pub fn clear_ended(pins: &Pins, now: u32) -> Result<bool, KernelError> {
    load::host_record(pins)?;
    let mut line = pins.mapped::<u64>(names::MAP_CONTROL, Control::WORDS, true)?;
    let mut any = false;
    for index in [word::PANIC, word::GRACE] {
        let held = Timed(line.get(index).ok_or(KernelError::Unreadable)?);
        if held != Timed::NONE && held.holds(now) == 0 {
            any |= line.set(index, Timed::NONE.0);
        }
    }
    Ok(any)
}

/// Every failsafe tuple and timed exception in the table, those past their deadline too.
///
/// # Errors
/// As [`active`].
pub fn overrides(pins: &Pins) -> Result<Vec<Override>, KernelError> {
    Ok(Table::open(pins)?.taken().map(|(_, line)| line).collect())
}

/// The table of overrides, and the words alongside it.
pub(super) struct Table {
    lines: Mapping<Override>,
    control: Mapping<u64>,
}

impl Table {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        load::host_record(pins)?;
        Ok(Self {
            lines: pins.mapped(names::MAP_OVERRIDES, limits::OVERRIDES, true)?,
            control: pins.mapped(names::MAP_CONTROL, Control::WORDS, true)?,
        })
    }

    fn taken(&self) -> impl Iterator<Item = (usize, Override)> + '_ {
        self.lines.iter().enumerate().filter(|(_, line)| line.marks != 0)
    }

    /// Flips the word that says which generation is in force. An aligned 64-bit store.
    pub(super) fn flip(&mut self, active: Active) {
        self.control.set(word::ACTIVE, active.0);
    }

    /// Binds the failsafe tuples of a generation to its slot, which no packet is judged by yet: lines of these
    /// tuples get its bit, missing ones are added, all others lose the bit. All of it or nothing.
    pub(super) fn bind(&mut self, slot: u8, tuples: &[Override]) -> Result<(), KernelError> {
        let bit = Override::slot_bit(slot.into());
        let mut missing: Vec<Override> = Vec::new();
        for tuple in tuples {
            if !missing.iter().any(|line| same_tuple(line, tuple)) {
                missing.push(Override { slots: bit, ..*tuple });
            }
        }
        let mut changed = Vec::new();
        for (at, line) in self.failsafe() {
            let held = missing.iter().position(|tuple| same_tuple(&line, tuple));
            let slots = if held.is_some() { line.slots | bit } else { line.slots & !bit };
            if let Some(held) = held {
                missing.swap_remove(held);
            }
            changed.push((at, Override { slots, ..line }));
        }
        let stay = self.taken().count() - changed.iter().filter(|(_, line)| line.slots == 0).count();
        if stay + missing.len() > limits::OVERRIDES {
            return Err(KernelError::Overrides { needed: stay + missing.len() });
        }
        for (at, line) in changed {
            self.change(at, line);
        }
        self.add(&missing)
    }

    /// Binds the failsafe tuples of slot `from` to slot `to` as well, by which no packet is judged yet. All others
    /// lose the bit of `to`.
    pub(super) fn rebind(&mut self, from: u8, to: u8) {
        let (from, to) = (Override::slot_bit(from.into()), Override::slot_bit(to.into()));
        let lines: Vec<(usize, Override)> = self.failsafe().collect();
        for (at, line) in lines {
            let slots = if line.slots & from == 0 { line.slots & !to } else { line.slots | to };
            self.change(at, Override { slots, ..line });
        }
        fence(Ordering::Release);
        self.announce();
    }

    /// Frees the lines of failsafe tuples that neither the generation in force nor the one to return to has.
    pub(super) fn keep_live(&mut self, active: Active) {
        let live =
            Override::slot_bit(active.installed().into()) | Override::slot_bit(active.fallback().into());
        let lines: Vec<(usize, Override)> = self.failsafe().collect();
        for (at, line) in lines {
            self.change(at, Override { slots: line.slots & live, ..line });
        }
        fence(Ordering::Release);
        self.announce();
    }

    fn failsafe(&self) -> impl Iterator<Item = (usize, Override)> + '_ {
        self.taken().filter(|(_, line)| line.marks & Override::EXCEPTION == 0)
    }

    /// Changes the slots that a line holds for; one that holds for none becomes free.
    fn change(&mut self, at: usize, line: Override) {
        if line.slots == 0 {
            self.free(at, line);
        } else if self.lines.get(at) != Some(line) {
            self.lines.set(at, line);
        }
    }

    fn free(&mut self, at: usize, line: Override) {
        self.lines.set(at, Override { marks: 0, ..line });
        fence(Ordering::Release);
        self.lines.set(at, Override::FREE);
    }

    /// Adds what is not there yet. All of it or nothing.
    pub(super) fn add(&mut self, new: &[Override]) -> Result<(), KernelError> {
        let held: Vec<Override> = self.taken().map(|(_, line)| line).collect();
        let mut missing: Vec<Override> = new.iter().filter(|line| !held.contains(line)).copied().collect();
        let free: Vec<usize> = (0..limits::OVERRIDES)
            .filter(|&at| self.lines.get(at).is_some_and(|line| line.marks == 0))
            .collect();
        if missing.len() > free.len() {
            return Err(KernelError::Overrides { needed: held.len() + missing.len() });
        }
        for (at, line) in free.into_iter().zip(missing.drain(..)) {
            // The marks make the line count: they come when the rest is there.
            self.lines.set(at, Override { marks: 0, ..line });
            fence(Ordering::Release);
            self.lines.set(at, line);
        }
        fence(Ordering::Release);
        self.announce();
        Ok(())
    }

    /// Frees the lines that are not to be kept.
    fn keep(&mut self, keep: impl Fn(&Override) -> bool) {
        let gone: Vec<(usize, Override)> = self.taken().filter(|(_, line)| !keep(line)).collect();
        for (at, line) in gone {
            self.free(at, line);
        }
        fence(Ordering::Release);
        self.announce();
    }

    /// Tells the programs how many lines to look at, and which ports are worth it.
    fn announce(&mut self) {
        let lines = self.taken().last().map_or(0, |(at, _)| at as u64 + 1);
        let port_bloom = self.taken().fold(0, |port_bloom, (_, line)| port_bloom | line.port_bloom());
        self.control.set(word::OVERRIDES, lines);
        self.control.set(word::PORT_BLOOM, port_bloom);
    }
}

/// Returns true if two lines are about the same tuple and counter slot, whatever generations they hold for.
fn same_tuple(one: &Override, other: &Override) -> bool {
    Override { slots: 0, ..*one } == Override { slots: 0, ..*other }
}

/// Lets timed exceptions in: a counter slot is found for `label` (its own, if it has one), and `lines`
/// count under it. The slot, the marks' exception bit and nothing else of the lines are set here.
///
/// # Errors
/// [`KernelError::Overrides`] or [`KernelError::NoSlot`] when there is no room, and then nothing was let in.
pub fn allow(pins: &Pins, label: &RowLabel, lines: &[Override]) -> Result<u16, KernelError> {
    let mut table = Table::open(pins)?;
    let mut labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, true)?;
    let slot = exception_slot(pins, &labels, label)?;
    let lines: Vec<Override> = lines
        .iter()
        .map(|line| Override { row: slot, marks: line.marks | Override::EXCEPTION, ..*line })
        .collect();
    let before = labels.get(usize::from(slot)).ok_or(KernelError::Unreadable)?;
    if before.id != label.id || before.direction != label.direction {
        zero_tally(pins, slot)?;
    }
    labels.set(usize::from(slot), RowLabel { live: 1, ..*label });
    if let Err(error) = table.add(&lines) {
        labels.set(usize::from(slot), before);
        return Err(error);
    }
    Ok(slot)
}

/// Ends every timed exception for which `over` says so; their counters stay. Returns their slots.
///
/// # Errors
/// As [`active`].
pub fn revoke(pins: &Pins, over: impl Fn(&Override) -> bool) -> Result<Vec<u16>, KernelError> {
    let mut table = Table::open(pins)?;
    let ends = |line: &Override| line.marks & Override::EXCEPTION != 0 && over(line);
    let mut ended: Vec<u16> =
        table.taken().filter(|(_, line)| ends(line)).map(|(_, line)| line.row).collect();
    ended.sort_unstable();
    ended.dedup();
    table.keep(|line| !ends(line));
    let still: Vec<u16> = table.taken().map(|(_, line)| line.row).collect();
    let mut labels = pins.mapped::<RowLabel>(names::MAP_LABELS, limits::ROW_SLOTS, true)?;
    for slot in ended.iter().filter(|slot| !still.contains(slot)) {
        if let Some(label) = labels.get(usize::from(*slot)) {
            labels.set(usize::from(*slot), RowLabel { live: 0, ..label });
        }
    }
    Ok(ended)
}

/// Frees the lines of exceptions whose time is up at `now`. They hold no more in any case.
///
/// # Errors
/// As [`active`].
pub fn sweep(pins: &Pins, now: u32) -> Result<Vec<u16>, KernelError> {
    revoke(pins, |line| over(line.expires, now))
}

/// The slot that the label has, or a free one, or that of a row which left the policy longest ago.
fn exception_slot(pins: &Pins, labels: &Mapping<RowLabel>, label: &RowLabel) -> Result<u16, KernelError> {
    let mut free = None;
    let mut past = Vec::new();
    for (slot, held) in labels.iter().enumerate() {
        if held.id == label.id && held.direction == label.direction {
            return Ok(slot as u16);
        }
        if held.id[0] == 0 {
            // From the end: rows take theirs from the beginning.
            free = Some(slot as u16);
        } else if held.live == 0 {
            past.push(slot as u16);
        }
    }
    if let Some(slot) = free {
        return Ok(slot);
    }
    let tallies = tallies(pins, &past)?;
    let oldest = past.into_iter().zip(tallies).min_by_key(|(_, tally)| tally.last);
    oldest.map(|(slot, _)| slot).ok_or(KernelError::NoSlot)
}
