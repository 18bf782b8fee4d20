//! The messages between the parts of the daemon.

use std::collections::BTreeMap;

use crate::{
    input::settings::Settings,
    observe::{
        condition::{Condition, Repair},
        snapshot::ImageInForce,
    },
};

/// Conditions with a text about each.
pub(super) type Conditions = BTreeMap<Condition, String>;

/// A message of the changes to the reporter.
pub(super) enum Report {
    /// The files were accepted.
    Accepted,
    /// A change failed.
    Failed,
    /// An image is in force, with the settings that name the interfaces and the address of the metrics page.
    InForce { settings: Box<Settings>, installed: ImageInForce },
    /// One line about the policy in force.
    Line(String),
}

/// The result of one check, which the parts fill one after the other.
#[derive(Default)]
pub(super) struct Check {
    pub(super) conditions: Conditions,
    pub(super) repairs: Vec<Repair>,
    /// The number of flows that were freed because their socket is gone.
    pub(super) freed: u64,
}

impl Check {
    /// Adds a finding to a condition.
    pub(super) fn note(&mut self, condition: Condition, about: &str) {
        let message = self.conditions.entry(condition).or_default();
        if !message.is_empty() {
            message.push_str(", ");
        }
        message.push_str(about);
    }
}
