//! State alongside a policy, expressed in rows: the scenarios' form of [`crate::control_state::ControlState`].

use pomguard::{
    compile::lines_of,
    policy::{Row, RowId},
};
use pomguard_common::{
    control::{Override, suspension},
    limits,
};

use crate::control_state::ControlState;

/// The beginning of the id of every row in this state.
const PREFIX: &str = "held/";

/// A kind of suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspension {
    /// Only failsafe rows are in force.
    Lockdown,
    /// The programs drop nothing.
    Bypass,
}

/// State alongside the policy, or in its place.
#[derive(Clone, Debug, Default)]
pub struct OperatorState {
    /// The kind of suspension and the duration in seconds.
    pub suspension: Option<(Suspension, u32)>,
    /// The duration of the grace period in seconds.
    pub grace: Option<u32>,
    /// The duration in seconds for which the policy is up to date about who holds floating addresses.
    pub holders: Option<u32>,
    /// Failsafe rows and timed exceptions, each with a duration in seconds.
    pub rows: Vec<(Row, u32)>,
    /// Failsafe rows of other generations, which are pending or were replaced. These rows change nothing.
    pub elsewhere: Vec<Row>,
    /// True if there is no policy.
    pub no_policy: bool,
    /// True if XDP is in generic mode.
    pub generic: bool,
}

/// Returns the id of the row with this number.
#[must_use]
pub fn id(number: usize) -> RowId {
    RowId(format!("{PREFIX}{number}"))
}

/// Returns the counter slot of such a row. The rows take the last slots, which no policy of these tests
/// reaches.
#[must_use]
pub fn slot(id: &RowId) -> Option<u16> {
    let number: u16 = id.0.strip_prefix(PREFIX)?.parse().ok()?;
    Some(limits::ROW_SLOTS as u16 - 1 - number)
}

/// Returns true for the counter slot of such a row.
#[must_use]
pub const fn is_slot(slot: u16) -> bool {
    slot >= limits::ROW_SLOTS as u16 - 16 && slot < limits::ROW_SLOTS as u16
}

impl OperatorState {
    /// Returns the same state in the form of the kernel's maps.
    #[must_use]
    pub fn control_state(&self) -> ControlState {
        let kind = |kind| match kind {
            Suspension::Lockdown => suspension::LOCKDOWN,
            Suspension::Bypass => suspension::BYPASS,
        };
        let lines = |(row, seconds): &(Row, u32)| -> Vec<(Override, u32)> {
            let exception = if row.failsafe { 0 } else { Override::EXCEPTION };
            let row_slot = slot(&row.id).unwrap_or_default();
            let marked = |line: &Override| Override { marks: line.marks | exception, row: row_slot, ..*line };
            let (_, lines) = lines_of(row, 0);
            lines.iter().map(|line| (marked(line), *seconds)).collect()
        };
        let mut overrides: Vec<(Override, u32)> = self.rows.iter().flat_map(lines).collect();
        for row in &self.elsewhere {
            let elsewhere = lines(&(row.clone(), u32::MAX / 8));
            overrides.extend(elsewhere.into_iter().map(|(line, seconds)| {
                (Override { slots: Override::slot_bit(1) | Override::slot_bit(2), ..line }, seconds)
            }));
        }
        ControlState {
            suspension: self.suspension.map(|(suspension, seconds)| (kind(suspension), seconds)),
            grace: self.grace,
            holders: self.holders,
            overrides,
            no_policy: self.no_policy,
            generic: self.generic,
        }
    }
}
