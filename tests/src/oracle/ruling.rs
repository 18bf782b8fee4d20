//! The disposition of a packet as the oracle gives it.

use pomguard::policy::{Direction, RowId};
use pomguard_common::{decide::NO_ROW, reason::Reason};

use super::memory::{Phase, Talk};
use crate::{force::InForce, harness::Effect, operator_state};

/// The complete disposition of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The reason under which the packet is counted.
    pub reason: Reason,
    /// True if the packet passes although the reason is a drop: audit.
    pub audited: bool,
    /// The row under which the packet is counted.
    pub row: Option<RowId>,
    /// True if the packet counts as a new connection of the row.
    pub connection: bool,
    /// True if the packet's only fault is that nobody has the address of this host's side: overrides may admit the
    /// packet.
    pub(super) unclaimed: bool,
    /// The flow that the packet enters into the flow table, and true if this host has sent its FIN.
    pub(super) entry: Option<(Talk, Phase, bool)>,
}

impl Ruling {
    pub(super) const fn of(reason: Reason) -> Self {
        Self { reason, audited: false, row: None, connection: false, unclaimed: false, entry: None }
    }

    /// Returns true if a row allows the packet, or a row in audit spares the packet.
    pub(super) const fn is_listed(&self) -> bool {
        self.row.is_some() || self.audited
    }

    /// Returns the same drop, marked as not enforced if `audit`: a row in audit names the packet.
    pub(super) fn in_audit(self, audit: bool) -> Self {
        Self { audited: audit, ..self }
    }

    /// Returns the effect with the counter slot of the ruling's row, in the policy or alongside the policy. A
    /// row that is no longer in force, which a flow may outlive, has no slot.
    #[must_use]
    pub fn effect(&self, in_force: &InForce, direction: Direction) -> Effect {
        let of = |row| operator_state::slot(row).or_else(|| in_force.slot(&row.0, direction).ok());
        let slot = self.row.as_ref().and_then(of);
        Effect {
            reason: self.reason,
            audited: self.audited,
            row: slot.unwrap_or(NO_ROW),
            connection: self.connection,
            enters: self.entry.is_some(),
        }
    }

    /// Returns true if the packet passes.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.audited || self.reason.verdict().is_pass()
    }
}
