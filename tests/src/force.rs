//! A policy in force, with all that compiling it takes.

use anyhow::{Context as _, Result};
use pomguard::{
    compile::{self, Clock, Image, SlotTable},
    policy::{Direction, Policy, Row, RowId},
};
use pomguard_common::{control::Override, flow};

/// What a guarded host enforces, and since when.
#[derive(Clone, Debug)]
pub struct InForce {
    policy: Policy,
    slots: SlotTable,
    clock: Clock,
    generation: u32,
}

impl InForce {
    /// A first policy.
    ///
    /// # Errors
    /// When its rows have no room.
    pub fn new(policy: Policy, clock: Clock) -> Result<Self> {
        Ok(Self { slots: SlotTable::assign(&[], &policy)?, policy, clock, generation: 1 })
    }

    /// Another policy, under a generation of its own.
    ///
    /// # Errors
    /// When its rows have no room.
    pub fn replace(&mut self, policy: Policy) -> Result<()> {
        self.slots = SlotTable::assign(&[], &policy)?;
        self.policy = policy;
        self.generation = flow::next_generation(self.generation);
        Ok(())
    }

    /// Lets `seconds` go by.
    pub fn wait(&mut self, seconds: u32) {
        let ticks = u64::from(seconds) * u64::from(self.clock.ticks_per_1000s) / 1_000;
        self.clock.offset = self.clock.offset.wrapping_add(ticks as u32);
    }

    /// Lets so many ticks go by.
    pub const fn wait_ticks(&mut self, ticks: u32) {
        self.clock.offset = self.clock.offset.wrapping_add(ticks);
    }

    /// Has the policy in force be this generation.
    pub const fn count_from(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// The compiled policy.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn image(&self) -> Result<Image> {
        Ok(compile::compile(&self.policy, &self.slots, self.clock, self.generation)?)
    }

    /// The overrides of its failsafe rows.
    ///
    /// # Errors
    /// When there are too many.
    pub fn overrides(&self) -> Result<Vec<Override>> {
        Ok(compile::overrides(&self.policy, &self.slots)?)
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The number of its generation.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// How ticks relate to time, and how many were added.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The counter slots of all rows, in the order of the policy.
    pub fn slots(&self) -> impl Iterator<Item = u16> {
        self.policy.rows.iter().filter_map(|row| self.slot_of(row))
    }

    fn slot_of(&self, row: &Row) -> Option<u16> {
        self.slots.of(&row.id, row.direction)
    }

    /// The counter slot of a row.
    ///
    /// # Errors
    /// When the policy has no such row.
    pub fn slot(&self, id: &str, direction: Direction) -> Result<u16> {
        self.slots.of(&RowId(id.to_owned()), direction).with_context(|| format!("{id}: no such row"))
    }

    /// The id of the row that is counted in a slot.
    #[must_use]
    pub fn row_name(&self, slot: u16) -> &str {
        let row = self.policy.rows.iter().find(|row| self.slot_of(row) == Some(slot));
        row.map_or("no row", |row| &row.id.0)
    }
}
