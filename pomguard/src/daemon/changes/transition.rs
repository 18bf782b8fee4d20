//! The data of a change of policy: the request, the states before and after, and the change that waits.

use crate::{
    control::protocol::Changed,
    daemon::reconciler::Leave,
    history::{By, Cause, Existing, Outcome, Record},
    input::{Draft, Settings, Sources},
    kernel::install::Installed,
    policy::Policy,
    state::exceptions::Exception,
};

/// A request to change the policy.
pub(in crate::daemon) struct ChangeRequest {
    /// The cause of the change.
    pub(in crate::daemon) cause: Cause,
    /// The user who asks for the change; `None` for the daemon itself.
    pub(in crate::daemon) by: Option<By>,
    /// The reason that the user gave.
    pub(in crate::daemon) why: Option<String>,
    /// The time within which the change must be confirmed, in seconds; otherwise the change is rolled back.
    pub(in crate::daemon) confirm_within: Option<u32>,
    /// The treatment of live flows that no row of the change allows.
    pub(in crate::daemon) existing: Existing,
    /// The timed exceptions that hold: their flows go on.
    pub(in crate::daemon) exceptions: Vec<Exception>,
    /// True if interfaces may lose their guard.
    pub(in crate::daemon) yes: bool,
}

impl ChangeRequest {
    /// Returns the request of the daemon itself.
    pub(in crate::daemon) const fn own(cause: Cause) -> Self {
        Self {
            cause,
            by: None,
            why: None,
            confirm_within: None,
            existing: Existing::ByPolicy,
            exceptions: Vec::new(),
            yes: false,
        }
    }
}

/// The settings and the policy that a change puts in force.
pub(in crate::daemon) struct DesiredState {
    pub(super) settings: Settings,
    pub(super) policy: Policy,
    pub(super) sources: Sources,
}

impl DesiredState {
    pub(super) fn new(draft: Draft, policy: Policy) -> Self {
        Self { sources: draft.sources(), settings: draft.settings, policy }
    }
}

/// The policy in force, to which the daemon returns if a change is not confirmed.
#[derive(Clone)]
pub(super) struct ActivePolicy {
    pub(super) settings: Settings,
    pub(super) policy: Policy,
    pub(super) record: Option<Record>,
}

/// The pending change.
pub(super) struct Waiting {
    /// The tick at which the change is rolled back.
    pub(super) deadline: u32,
    /// The record of the change.
    pub(super) record: Record,
    /// The policy in force until the deadline, which stays if the change is confirmed.
    pub(super) next: ActivePolicy,
    /// The outcome of the replaced change, if this change is confirmed.
    pub(super) replaced: Outcome,
    /// The installed image, to be saved for the next boot; `None` if another daemon installed the image.
    pub(super) installed: Option<Installed>,
    /// The interfaces whose guard is taken off on confirmation.
    pub(super) leave: Leave,
}

impl Waiting {
    /// Returns the time of the rollback, in seconds since 1970.
    pub(super) fn until(&self) -> Option<u64> {
        match &self.record.outcome {
            Outcome::Pending(pending) => Some(pending.until),
            _ => None,
        }
    }
}

/// Returns the policy in force as the answer to a request that changed nothing.
pub(super) fn message(held: &ActivePolicy, notes: Vec<String>) -> Changed {
    let record = held.record.as_ref();
    Changed {
        changed: false,
        number: record.map(|record| record.number),
        generation: record.map_or(0, |record| record.generation),
        image: record.map(|record| record.image.clone()).unwrap_or_default(),
        inbound: held.policy.inbound,
        outbound: held.policy.outbound,
        tuples: held.policy.tuples().values().sum(),
        summary: record.map(|record| record.summary).unwrap_or_default(),
        settings: record.map(|record| record.settings.clone()).unwrap_or_default(),
        unguarded: Vec::new(),
        took_ms: 0,
        confirm_by: None,
        existing: None,
        notes,
    }
}

/// Returns the outcome of a change that is replaced because of `cause`.
pub(super) const fn replaced_by(cause: Cause) -> Outcome {
    match cause {
        Cause::Rollback(_) => Outcome::RolledBack,
        Cause::Start | Cause::Reload | Cause::Apply => Outcome::Replaced,
    }
}
