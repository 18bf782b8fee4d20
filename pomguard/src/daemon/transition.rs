//! The data of a change of policy: the request, the states before and after, and the change that waits.

use crate::{
    control::protocol::Changed,
    history::{By, Cause, Existing, Outcome, Record},
    input::{Draft, Settings, Sources},
    kernel::install::Installed,
    policy::Policy,
};

/// A change that is wanted.
pub(super) struct ChangeRequest {
    /// What brings it about.
    pub(super) cause: Cause,
    /// Who wants it; none for the daemon itself.
    pub(super) by: Option<By>,
    /// What for.
    pub(super) why: Option<String>,
    /// Taken back unless confirmed within so many seconds.
    pub(super) confirm_within: Option<u32>,
    /// The treatment of live flows that no row of the change allows.
    pub(super) existing: Existing,
    /// Interfaces may lose their guard by it.
    pub(super) yes: bool,
}

/// The interfaces that lose their guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// No interface.
    None,
    /// These, where they have one.
    These(Vec<String>),
    /// Every interface that the settings do not name.
    Unnamed,
}

impl Leave {
    /// Those that settings name and later ones do not.
    pub(super) fn named_by(before: &Settings, after: &Settings) -> Self {
        Self::These(no_longer_named(before, after))
    }

    /// Returns true if an interface that the settings do not name loses its guard.
    pub(super) fn names(&self, interface: &str) -> bool {
        match self {
            Self::None => false,
            Self::These(names) => names.iter().any(|name| name == interface),
            Self::Unnamed => true,
        }
    }
}

impl ChangeRequest {
    /// Of the daemon itself.
    pub(super) const fn own(cause: Cause) -> Self {
        Self { cause, by: None, why: None, confirm_within: None, existing: Existing::ByPolicy, yes: false }
    }
}

/// What is to be put in force.
pub(super) struct DesiredState {
    pub(super) settings: Settings,
    pub(super) policy: Policy,
    pub(super) sources: Sources,
}

impl DesiredState {
    pub(super) fn new(draft: Draft, policy: Policy) -> Self {
        Self { sources: draft.sources(), settings: draft.settings, policy }
    }
}

/// What was in force, and is again when a change is not confirmed.
#[derive(Clone)]
pub(super) struct ActivePolicy {
    pub(super) settings: Settings,
    pub(super) policy: Policy,
    pub(super) record: Option<Record>,
}

/// The change that waits.
pub(super) struct Waiting {
    /// The tick at which it is taken back.
    pub(super) deadline: u32,
    /// Its record.
    pub(super) record: Record,
    /// What is in force until then, and stays if it is confirmed.
    pub(super) next: ActivePolicy,
    /// What becomes then of what it replaces.
    pub(super) replaced: Outcome,
    /// Its image, to be saved for the next boot; none when another daemon installed it.
    pub(super) installed: Option<Installed>,
    /// What confirming it takes the guard off.
    pub(super) leave: Leave,
}

impl Waiting {
    /// Seconds since 1970 when it is taken back.
    pub(super) fn until(&self) -> Option<u64> {
        match &self.record.outcome {
            Outcome::Pending(pending) => Some(pending.until),
            _ => None,
        }
    }
}

/// The interfaces that settings name and later ones do not.
pub(super) fn no_longer_named(before: &Settings, after: &Settings) -> Vec<String> {
    let confirmed_policy = |name: &str| after.interfaces.iter().any(|at| at.value == name);
    let names = before.interfaces.iter().map(|at| at.value.clone());
    names.filter(|name| !confirmed_policy(name)).collect()
}

/// What is in force, without a change.
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

/// What becomes of the change that another one takes the place of.
pub(super) const fn replaced_by(cause: Cause) -> Outcome {
    match cause {
        Cause::Rollback(_) => Outcome::RolledBack,
        Cause::Start | Cause::Reload | Cause::Apply => Outcome::Replaced,
    }
}

/// A name for the time since the machine started: ticks and pins mean nothing beyond it.
pub(super) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
