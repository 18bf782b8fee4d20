//! A policy in force, with the inputs of its compilation.

use anyhow::{Context as _, Result};
use pomguard::{
    compile::{self, Clock, Image, SlotTable},
    policy::{Direction, Policy, Row, RowId},
};
use pomguard_common::{
    control::Override,
    flow::{self, State, Tag},
};

/// Seconds after which every entry has expired.
pub(crate) const FOREVER: u32 = State::Established.age_seconds() + 60;

/// The policy of a guarded host, with its counter slots, clock and generation.
#[derive(Clone, Debug)]
pub struct InForce {
    policy: Policy,
    slots: SlotTable,
    clock: Clock,
    generation: u32,
}

impl InForce {
    /// Takes a policy as generation 1.
    ///
    /// # Errors
    /// If the counter slots do not suffice for the rows.
    pub fn new(policy: Policy, clock: Clock) -> Result<Self> {
        Ok(Self { slots: SlotTable::assign(&[], &policy)?, policy, clock, generation: 1 })
    }

    /// Replaces the policy, under the next generation.
    ///
    /// # Errors
    /// If the counter slots do not suffice for the rows.
    pub fn replace(&mut self, policy: Policy) -> Result<()> {
        self.slots = SlotTable::assign(&[], &policy)?;
        self.policy = policy;
        self.generation = flow::next_generation(self.generation);
        Ok(())
    }

    /// Advances the clock by `seconds`.
    pub fn wait(&mut self, seconds: u32) {
        let ticks = u64::from(seconds) * u64::from(self.clock.ticks_per_1000s) / 1_000;
        self.clock.offset = self.clock.offset.wrapping_add(ticks as u32);
    }

    /// Advances the clock until every entry of the tables has expired. Returns true if the tables must be
    /// emptied besides, which is once in nine years: the time of a tag wraps after 17 years, and an entry that
    /// nobody has cleared would seem to be fresh.
    #[must_use]
    pub fn wait_for_all_ages(&mut self) -> bool {
        let before = self.clock.offset;
        self.wait(FOREVER);
        (before ^ self.clock.offset) & !(Tag::TIME >> 1) != 0
    }

    /// Advances the clock by a number of ticks.
    pub const fn wait_ticks(&mut self, ticks: u32) {
        self.clock.offset = self.clock.offset.wrapping_add(ticks);
    }

    /// Sets the generation of the policy in force.
    pub const fn count_from(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Compiles the policy.
    ///
    /// # Errors
    /// If the policy does not compile.
    pub fn image(&self) -> Result<Image> {
        Ok(compile::compile(&self.policy, &self.slots, self.clock, self.generation)?)
    }

    /// Returns the overrides of the policy's failsafe rows.
    ///
    /// # Errors
    /// If there are too many.
    pub fn overrides(&self) -> Result<Vec<Override>> {
        Ok(compile::overrides(&self.policy, &self.slots)?)
    }

    /// Returns the policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the number of the policy's generation.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns the relation of ticks to time, and the offset that waits have added.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns the counter slots of all rows, in the order of the policy.
    pub fn slots(&self) -> impl Iterator<Item = u16> {
        self.policy.rows.iter().filter_map(|row| self.slot_of(row))
    }

    fn slot_of(&self, row: &Row) -> Option<u16> {
        self.slots.of(&row.id, row.direction)
    }

    /// Returns the counter slot of a row.
    ///
    /// # Errors
    /// If the policy does not have the row.
    pub fn slot(&self, id: &str, direction: Direction) -> Result<u16> {
        self.slots.of(&RowId(id.to_owned()), direction).with_context(|| format!("{id}: no such row"))
    }

    /// Returns the id of the row that a counter slot belongs to.
    #[must_use]
    pub fn row_name(&self, slot: u16) -> &str {
        let row = self.policy.rows.iter().find(|row| self.slot_of(row) == Some(slot));
        row.map_or("no row", |row| &row.id.0)
    }
}
