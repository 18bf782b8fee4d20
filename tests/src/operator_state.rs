//! What an operator has hold alongside a policy, in the words of rows: the scenarios' side of
//! [`crate::control_state::ControlState`].

use pomguard::{
    compile::lines_of,
    policy::{Row, RowId},
};
use pomguard_common::{
    control::{Override, panic},
    limits,
};

use crate::control_state::ControlState;

/// What every id of a row that is held begins with.
const PREFIX: &str = "held/";

/// A kind of panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panic {
    /// Only failsafe rows hold.
    Isolate,
    /// Nothing is dropped.
    Open,
}

/// What is to hold from now on, alongside the policy or in its place.
#[derive(Clone, Debug, Default)]
pub struct OperatorState {
    /// A panic, for so many seconds.
    pub panic: Option<(Panic, u32)>,
    /// Grace, for so many seconds.
    pub grace: Option<u32>,
    /// Rows, each for so many seconds: failsafe ones, and timed exceptions.
    pub rows: Vec<(Row, u32)>,
    /// There is no policy.
    pub no_policy: bool,
    /// XDP is in generic mode.
    pub generic: bool,
}

/// The id of a row that is held.
#[must_use]
pub fn id(number: usize) -> RowId {
    RowId(format!("{PREFIX}{number}"))
}

/// The counter slot of a row that is held: the last ones, which no policy here gets to.
#[must_use]
pub fn slot(id: &RowId) -> Option<u16> {
    let number: u16 = id.0.strip_prefix(PREFIX)?.parse().ok()?;
    Some(limits::ROW_SLOTS as u16 - 1 - number)
}

impl OperatorState {
    /// The same as the kernel's maps say it.
    #[must_use]
    pub fn control_state(&self) -> ControlState {
        let kind = |kind| match kind {
            Panic::Isolate => panic::ISOLATE,
            Panic::Open => panic::OPEN,
        };
        let lines = |(row, seconds): &(Row, u32)| -> Vec<(Override, u32)> {
            let exception = if row.failsafe { 0 } else { Override::EXCEPTION };
            let row_slot = slot(&row.id).unwrap_or_default();
            let marked = |line: &Override| Override { marks: line.marks | exception, row: row_slot, ..*line };
            let (_, lines) = lines_of(row, 0);
            lines.iter().map(|line| (marked(line), *seconds)).collect()
        };
        ControlState {
            panic: self.panic.map(|(panic, seconds)| (kind(panic), seconds)),
            grace: self.grace,
            overrides: self.rows.iter().flat_map(lines).collect(),
            no_policy: self.no_policy,
            generic: self.generic,
        }
    }
}
