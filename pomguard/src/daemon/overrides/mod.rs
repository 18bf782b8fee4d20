//! The overrides: timed exceptions, bypass and lockdown, and the grace period. All of them are deadlines in the
//! maps, which the programs judge by themselves. This part begins, restores, shortens and clears the overrides, and
//! keeps their records on disk.
//!
//! A method that writes to the maps says so by its result: the caller then records the new baseline, under the same
//! lock.

use std::time::Instant;

use self::{clocks::Clocks, emergency::Scene};
use super::context::Context;
use crate::{
    observe::{condition::Condition, status::Status},
    state::{exceptions::Exception, suspension::Suspension},
};

mod clocks;
pub mod emergency;
pub mod exceptions;
pub(super) mod grace;
mod suspension;

pub(super) use clocks::Shortened;

/// The overrides that hold.
#[derive(Default)]
pub(super) struct Overrides {
    /// The timed exceptions that hold.
    exceptions: Vec<Exception>,
    /// The time of the next comparison with the exceptions on disk; `None` for now.
    compare_at: Option<Instant>,
    /// A sentence about exceptions that could not be written to disk.
    unsaved: Option<String>,
    /// The bypass or lockdown that the record on disk and the maps had when both last agreed.
    suspension: Option<Suspension>,
    /// The deadline of the bypass whose end was announced.
    announced_end: Option<u32>,
    clocks: Clocks,
}

impl Overrides {
    /// Returns the timed exceptions that hold.
    pub(super) fn exceptions(&self) -> &[Exception] {
        &self.exceptions
    }

    /// Returns the bypass or lockdown that suspends the policy by the maps, as a condition.
    pub(super) fn condition(context: &Context) -> Option<(Condition, String)> {
        Some((Condition::Suspended, scene(context).in_force()?.name().to_owned()))
    }

    /// Adds to a status who granted each exception and who began the bypass or lockdown, since when, and why.
    pub(super) fn explain(&self, status: &mut Status) {
        exceptions::explained(status, &self.exceptions, self.suspension.as_ref());
    }
}

/// Returns the maps and folders that the verbs of the overrides write to.
fn scene(context: &Context) -> Scene {
    Scene::new(context.pins.clone(), &context.paths, context.ticks)
}
