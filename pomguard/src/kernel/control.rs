//! State in the pinned maps that does not belong to one generation and holds with the daemon dead or alive: the
//! generation in force and the confirm deadline, bypass and lockdown, the grace period, failsafe tuples and
//! timed exceptions.
//!
//! The programs check every deadline by themselves. A deadline is a tick, see [`Ticks::deadline`]. Writers do
//! not lock each other out: the daemon is the only writer while the daemon lives.
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

/// Reads one word of the control line.
pub(super) fn word(pins: &Pins, index: usize) -> Result<u64, KernelError> {
    load::host_record(pins)?;
    let line = pins.mapped::<u64>(names::MAP_CONTROL, Control::WORDS, false)?;
    line.get(index).ok_or(KernelError::Unreadable)
}

/// Replaces one word of the control line with an aligned 64-bit store: no packet sees half of the word.
fn set_word(pins: &Pins, index: usize, value: u64) -> Result<(), KernelError> {
    load::host_record(pins)?;
    let mut line = pins.mapped::<u64>(names::MAP_CONTROL, Control::WORDS, true)?;
    if line.set(index, value) { Ok(()) } else { Err(KernelError::Unreadable) }
}

/// Returns the word with the generation in force and the deadline.
///
/// # Errors
/// [`KernelError::NotInstalled`] if nothing is pinned, [`KernelError::Layout`] for maps of another version.
pub fn active(pins: &Pins) -> Result<Active, KernelError> {
    word(pins, word::ACTIVE).map(Active)
}

/// Replaces the word with the generation in force.
///
/// # Errors
/// As [`active`].
pub fn set_active(pins: &Pins, active: Active) -> Result<(), KernelError> {
    set_word(pins, word::ACTIVE, active.0)
}

/// Sets the tick until which the images know the current holder of each address that several hosts may hold.
/// The programs check this deadline: if the daemon is dead, each of these hosts may hold the address.
///
/// # Errors
/// As [`active`].
pub fn set_holders(pins: &Pins, until: u32) -> Result<(), KernelError> {
    set_word(pins, word::HOLDERS, Timed::until(1, until).0)
}

/// Returns true if the programs know at `now` which floating addresses this machine holds.
///
/// # Errors
/// As [`active`].
pub fn holders_known(pins: &Pins, now: u32) -> Result<bool, KernelError> {
    Ok(Timed(word(pins, word::HOLDERS)?).holds(now) != 0)
}

/// Confirms the generation that is in force at `now`: before the deadline the pending change, after the
/// deadline the generation to which the programs returned.
///
/// # Errors
/// As [`active`].
pub fn record_active(pins: &Pins, now: u32) -> Result<Active, KernelError> {
    let confirmed = Active::confirmed(active(pins)?.slot(now) as u8);
    stay(pins, confirmed)?;
    Ok(confirmed)
}

/// Switches to a confirmed generation and frees the lines of failsafe rows that no generation has any more. The
/// active word alone decides which failsafe lines hold: freeing makes room and changes no verdict.
///
/// # Errors
/// As [`active`].
pub fn stay(pins: &Pins, confirmed: Active) -> Result<(), KernelError> {
    Table::open(pins)?.switch_to(pins, confirmed);
    Ok(())
}

/// Returns the number of the generation in force at `now`, or `None` before the first.
///
/// # Errors
/// As [`active`], and if the image cannot be read.
pub fn generation(pins: &Pins, now: u32) -> Result<Option<u32>, KernelError> {
    generation::generation_of(pins, active(pins)?.slot(now) as u8)
}

/// Returns the suspension of the policy: a kind of [`pomguard_common::control::suspension`] (bypass or lockdown),
/// and the end.
///
/// # Errors
/// As [`active`].
pub fn suspension(pins: &Pins) -> Result<Timed, KernelError> {
    word(pins, word::SUSPENSION).map(Timed)
}

/// Begins a bypass or lockdown, or ends the suspension ([`Timed::NONE`]).
///
/// # Errors
/// As [`active`].
pub fn set_suspension(pins: &Pins, suspension: Timed) -> Result<(), KernelError> {
    set_word(pins, word::SUSPENSION, suspension.0)
}

/// Returns the grace word: kind 1 during the grace period, in which mid-flow packets of unknown connections
/// pass.
///
/// # Errors
/// As [`active`].
pub fn grace(pins: &Pins) -> Result<Timed, KernelError> {
    word(pins, word::GRACE).map(Timed)
}

/// Begins or ends the grace period ([`Timed::NONE`]).
///
/// # Errors
/// As [`active`].
pub fn set_grace(pins: &Pins, grace: Timed) -> Result<(), KernelError> {
    set_word(pins, word::GRACE, grace.0)
}

/// Writes the interfaces in generic mode into the control words. Interfaces beyond the number of words count as
/// native: on those the host does not hear the multicast that the host sent.
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

/// Clears a suspension and a grace period that have ended at `now`. An ended one has no effect on a verdict,
/// but a word that is not zero sends every packet through the general path. Returns true if a word was cleared.
///
/// # Errors
/// As [`active`].
pub fn clear_ended(pins: &Pins, now: u32) -> Result<bool, KernelError> {
    load::host_record(pins)?;
    let mut line = pins.mapped::<u64>(names::MAP_CONTROL, Control::WORDS, true)?;
    let mut any = false;
    for index in [word::SUSPENSION, word::GRACE] {
        let held = Timed(line.get(index).ok_or(KernelError::Unreadable)?);
        if held != Timed::NONE && held.holds(now) == 0 {
            any |= line.set(index, Timed::NONE.0);
        }
    }
    Ok(any)
}

/// Returns every failsafe tuple and timed exception in the table, including those past their deadline.
///
/// # Errors
/// As [`active`].
pub fn overrides(pins: &Pins) -> Result<Vec<Override>, KernelError> {
    Ok(Table::open(pins)?.taken().map(|(_, line)| line).collect())
}

/// The table of overrides, with the control words.
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

    /// Replaces the word with the generation in force by an aligned 64-bit store. Afterwards frees the lines that
    /// no generation in force needs: a packet that began before the switch may still be let in by such a line,
    /// so the packets that began before must be over. If the kernel does not wait for them, the lines stay until
    /// the next switch.
    pub(super) fn switch_to(&mut self, pins: &Pins, active: Active) {
        self.control.set(word::ACTIVE, active.0);
        if generation::wait_for_packets(pins, active.installed()).is_ok() {
            self.keep_live(active);
        }
    }

    /// Binds the failsafe tuples of a generation to the generation's slot, by which no packet is judged yet.
    /// Lines of these tuples get the slot's bit, missing lines are added, and all other lines lose the bit. On
    /// an error nothing changes.
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

    /// Binds the failsafe tuples of slot `from` to slot `to` as well, by which no packet is judged yet. All
    /// other lines lose the bit of `to`.
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

    /// Frees the lines of failsafe tuples that belong neither to the generation in force nor to the one to
    /// return to.
    fn keep_live(&mut self, active: Active) {
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

    /// Changes the slots of a line; a line without a slot becomes free.
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

    /// Adds the lines that are not in the table yet. On an error nothing changes.
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
            // A line counts from its marks on: write the marks after the rest.
            self.lines.set(at, Override { marks: 0, ..line });
            fence(Ordering::Release);
            self.lines.set(at, line);
        }
        fence(Ordering::Release);
        self.announce();
        Ok(())
    }

    /// Frees the lines for which `keep` returns false.
    fn keep(&mut self, keep: impl Fn(&Override) -> bool) {
        let gone: Vec<(usize, Override)> = self.taken().filter(|(_, line)| !keep(line)).collect();
        for (at, line) in gone {
            self.free(at, line);
        }
        fence(Ordering::Release);
        self.announce();
    }

    /// Writes the number of lines to search and the port bloom into the control words.
    fn announce(&mut self) {
        let lines = self.taken().last().map_or(0, |(at, _)| at as u64 + 1);
        let port_bloom = self.taken().fold(0, |port_bloom, (_, line)| port_bloom | line.port_bloom());
        self.control.set(word::OVERRIDES, lines);
        self.control.set(word::PORT_BLOOM, port_bloom);
    }
}

/// Returns true if two lines have the same tuple and counter slot, regardless of the generations.
fn same_tuple(one: &Override, other: &Override) -> bool {
    Override { slots: 0, ..*one } == Override { slots: 0, ..*other }
}

/// Adds timed exceptions: finds a counter slot for `label` (the slot that the label already has, if any) and
/// counts `lines` there. In the lines, only the slot and the exception bit of the marks are set here. Returns
/// the slot.
///
/// # Errors
/// [`KernelError::Overrides`] or [`KernelError::NoSlot`] if there is no room; then nothing was added.
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

/// Ends every timed exception for which `over` returns true and returns the slots. The counters stay.
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

/// Sets the end of the timed exceptions for which `which` returns true to an earlier tick.
///
/// # Errors
/// As [`active`].
pub fn shorten_exceptions(
    pins: &Pins,
    tick: u32,
    which: impl Fn(&Override) -> bool,
) -> Result<(), KernelError> {
    let mut table = Table::open(pins)?;
    let exceptions = table.taken().filter(|(_, line)| line.marks & Override::EXCEPTION != 0 && which(line));
    let exceptions: Vec<(usize, Override)> = exceptions.collect();
    for (at, line) in exceptions {
        // No field but the end changes, so a packet sees either end.
        table.lines.set(at, Override { expires: tick, ..line });
    }
    Ok(())
}

/// Frees the lines of exceptions that have expired at `now` and returns the slots. An expired exception has no
/// effect on a verdict.
///
/// # Errors
/// As [`active`].
pub fn sweep(pins: &Pins, now: u32) -> Result<Vec<u16>, KernelError> {
    revoke(pins, |line| over(line.expires, now))
}

/// Returns the slot that the label has, or else a free slot, or else the slot of the past row that was used
/// longest ago.
fn exception_slot(pins: &Pins, labels: &Mapping<RowLabel>, label: &RowLabel) -> Result<u16, KernelError> {
    let mut free = None;
    let mut past = Vec::new();
    for (slot, held) in labels.iter().enumerate() {
        if held.id == label.id && held.direction == label.direction {
            return Ok(slot as u16);
        }
        if held.id[0] == 0 {
            // Take a free slot from the end: rows take slots from the beginning.
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
