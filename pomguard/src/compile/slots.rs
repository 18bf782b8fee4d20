//! Counter slots: a row keeps one slot for as long as the row has counters, across every change.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use pomguard_common::{
    Direction,
    counter::{LABEL_ID, RowLabel},
    limits,
    text::cut,
};
use sha2::{Digest as _, Sha256};

use super::error::CompileError;
use crate::{
    digest::hex,
    policy::{Policy, RowId},
};

/// A slot in use, according to the labels in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSlot {
    /// The slot.
    pub slot: u16,
    /// Id of the row as in the label.
    pub id: String,
    /// Direction of the row.
    pub direction: Direction,
    /// Time when the row was last in force or last hit, in any unit that grows. Among rows that left the
    /// policy, the row with the lowest value gives up its slot first.
    pub last_used: u64,
}

impl HeldSlot {
    /// Decodes a label. Returns `None` if the slot is free or the label is damaged.
    pub fn of_label(slot: u16, label: &RowLabel, last_used: u64) -> Option<Self> {
        let id = label.id.as_str().filter(|id| !id.is_empty())?;
        let direction = Direction::ALL.into_iter().find(|&direction| direction as u8 == label.direction)?;
        Some(Self { slot, id: id.to_owned(), direction, last_used })
    }
}

/// A slot that a row which left the policy had to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reused {
    /// The former user of the slot. The old counters are lost: they must be set to zero.
    pub from: HeldSlot,
    /// Id of the row that has the slot now.
    pub to: RowId,
}

/// Assigns a counter slot to each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotTable {
    live: BTreeMap<(String, Direction), u16>,
    departed: Vec<HeldSlot>,
    reused: Vec<Reused>,
}

/// Returns the id for a label: an id that is too long is truncated and ends in a digest of the whole id.
pub fn label_id(id: &RowId) -> Cow<'_, str> {
    const DIGEST: usize = 12;
    if id.0.len() <= LABEL_ID {
        return Cow::Borrowed(&id.0);
    }
    let mut short = cut(&id.0, LABEL_ID - DIGEST - 1).to_owned();
    short.push('~');
    short.push_str(&hex(&Sha256::digest(&id.0)[..DIGEST / 2]));
    Cow::Owned(short)
}

impl SlotTable {
    /// Assigns slots to the rows of `policy`. A row that has a slot keeps the slot; others get free slots, and
    /// if there are none, slots of rows that left the policy, longest unused first.
    pub fn assign(previous: &[HeldSlot], policy: &Policy) -> Result<Self, CompileError> {
        for direction in Direction::ALL {
            let found = policy.rows_in(direction).count();
            if found > limits::ROWS {
                return Err(CompileError::Rows { direction, found });
            }
        }
        let mut free: BTreeSet<u16> = (0..limits::ROW_SLOTS as u16).collect();
        let mut held: BTreeMap<(String, Direction), &HeldSlot> = BTreeMap::new();
        for entry in previous {
            // A slot or a row that occurs twice is damage; the first entry counts.
            let key = (entry.id.clone(), entry.direction);
            if !held.contains_key(&key) && free.remove(&entry.slot) {
                held.insert(key, entry);
            }
        }
        let mut slots = Self::default();
        let mut fresh: Vec<(&RowId, (String, Direction))> = Vec::new();
        for row in &policy.rows {
            let key = (label_id(&row.id).into_owned(), row.direction);
            match held.remove(&key) {
                Some(entry) => {
                    slots.live.insert(key, entry.slot);
                }
                None => fresh.push((&row.id, key)),
            }
        }
        slots.departed = held.into_values().cloned().collect();
        // The last entry is reused first.
        slots.departed.sort_by_key(|entry| std::cmp::Reverse((entry.last_used, entry.slot)));
        for (id, key) in fresh {
            if slots.live.contains_key(&key) {
                continue;
            }
            let slot = if let Some(slot) = free.pop_first() {
                slot
            } else if let Some(from) = slots.departed.pop() {
                let slot = from.slot;
                slots.reused.push(Reused { from, to: id.clone() });
                slot
            } else {
                return Err(CompileError::Slot { row: id.0.clone() });
            };
            slots.live.insert(key, slot);
        }
        slots.departed.sort_by_key(|entry| entry.slot);
        Ok(slots)
    }

    /// Returns the slot of a row.
    pub fn of(&self, id: &RowId, direction: Direction) -> Option<u16> {
        self.live.get(&(label_id(id).into_owned(), direction)).copied()
    }

    /// Returns the rows that left the policy and keep their slots and counters.
    pub fn departed(&self) -> &[HeldSlot] {
        &self.departed
    }

    /// Returns the slots that changed owner.
    pub fn reused(&self) -> &[Reused] {
        &self.reused
    }
}
