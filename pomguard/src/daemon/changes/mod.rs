//! The changes of policy: the request, the policy in force, the pending change, and the history.
//!
//! A change installs a generation, has the reconciler attach and record the baseline, and notes each step in the
//! history. The order of these steps is the promise of this part, so it calls the reconciler itself; the interface is
//! narrow: attach, record the baseline, name the interfaces. To the reporter it leaves messages ([`Report`]), which
//! the loop passes on.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::anyhow;
use log::error;

use self::{identity::Unplaced, transition::Waiting};
use super::{
    context::Context,
    message::{Conditions, Report},
    reconciler::Reconciler,
};
use crate::{
    history::History,
    input::{Draft, settings::Settings},
    kernel::{install::Installed, interface},
    observe::{condition::Condition, reading, snapshot::ImageInForce},
    policy::{self, Policy, own::Addresses},
    state::confirmed::Confirmed,
};

mod addresses;
mod begin;
mod boot;
mod change;
mod confirm;
mod existing;
mod identity;
mod install;
mod record;
mod transition;

pub(super) use boot::{StartSource, start_source};
use transition::ActivePolicy;
pub(super) use transition::ChangeRequest;

/// The state of the changes.
pub(super) struct Changes {
    /// The settings file.
    config: PathBuf,
    /// The settings that were accepted last.
    settings: Settings,
    history: History,
    /// The policy in force, to which the daemon returns if a pending change is not confirmed; `None` before
    /// the first policy.
    held: Option<ActivePolicy>,
    /// The pending change.
    waiting: Option<Waiting>,
    /// True if the time to confirm the pending change, or the last one, was made shorter.
    hurried: bool,
    /// The start, if no address told which host this machine is.
    unplaced: Option<Unplaced>,
    /// The policy that could not be saved for the next boot, and the time of the next attempt.
    unsaved: Option<(Confirmed, Instant)>,
    /// The image in force; `None` before the first one.
    installed: Option<ImageInForce>,
    /// The conditions that stay until something is done about them.
    conditions: Conditions,
    /// Messages that the loop has not passed on yet.
    reports: Vec<Report>,
}

impl Changes {
    /// Opens the history. Nothing is in force yet.
    pub(super) fn new(config: PathBuf, settings: Settings) -> Self {
        Self {
            config,
            history: History::open(&settings.paths.state),
            settings,
            held: None,
            waiting: None,
            hurried: false,
            unplaced: None,
            unsaved: None,
            installed: None,
            conditions: Conditions::new(),
            reports: Vec::new(),
        }
    }

    /// Takes the messages for the reporter.
    pub(super) fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Returns the settings that were accepted last.
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the settings in force: those of the pending change, if there is one.
    pub(super) fn settings_in_force(&self) -> &Settings {
        self.waiting.as_ref().map_or(&self.settings, |waiting| &waiting.next.settings)
    }

    /// Returns the conditions that stay until something is done about them.
    pub(super) const fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Raises a condition that stays until the state folder takes a policy again.
    pub(super) fn note_unreadable(&mut self, about: String) {
        self.conditions.insert(Condition::StateUnreadable, about);
    }

    /// Returns true if a change waits for its confirmation.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Returns the time at which the pending change is rolled back, in seconds since 1970.
    pub(super) fn rollback_at(&self) -> Option<u64> {
        self.waiting.as_ref().and_then(Waiting::until)
    }

    /// Returns the policy in force for the addresses that the machine has now, and these addresses.
    pub(super) fn here(&self, context: &Context, reconciler: &Reconciler) -> Option<(Policy, Addresses)> {
        let here = self.machine_addresses(context, reconciler, None).ok()?;
        Some((self.policy_in_force()?.clone().on(&here), here))
    }

    /// Returns the digest of the image that the daemon considers to be in force; empty before the first.
    pub(super) fn image(&self) -> String {
        self.installed.as_ref().map(|installed| installed.image.clone()).unwrap_or_default()
    }

    /// Returns one line about the policy in force, for systemd.
    fn line(&self) -> String {
        let waiting = self.waiting.as_ref().map(|waiting| &waiting.next);
        let Some(held) = waiting.or(self.held.as_ref()) else { return "nothing in force yet".to_owned() };
        let policy = &held.policy;
        format!(
            "{} {}: inbound {}, outbound {}, generation {}, {} tuples",
            policy.host,
            policy.matrix.id,
            policy.inbound.name(),
            policy.outbound.name(),
            self.installed.as_ref().map_or(0, |installed| installed.generation),
            policy.tuples().values().sum::<usize>()
        )
    }

    /// Records that the files were accepted, and which image is in force.
    fn succeeded(&mut self, settings: &Settings, installed: &Installed) {
        for over in [Condition::FilesRefused, Condition::ResourcesExhausted, Condition::NotConfirmed] {
            self.conditions.remove(&over);
        }
        self.in_force(settings, installed.into());
        self.reports.push(Report::Accepted);
    }

    /// Records the image in force as the maps have it: the daemon could not put another one in order.
    fn in_force_by_maps(&mut self, context: &Context) {
        match reading::image(&context.pins) {
            Ok(image) => {
                let settings = self.settings.clone();
                self.in_force(&settings, image);
            }
            Err(error) => error!("the image in force cannot be read: {:#}", anyhow!(error)),
        }
    }

    /// Records the image in force for the metrics page, and moves the page to the address of the settings.
    fn in_force(&mut self, settings: &Settings, installed: ImageInForce) {
        self.installed = Some(installed.clone());
        self.reports.push(Report::InForce { settings: Box::new(settings.clone()), installed });
    }
}

/// Reads the files and resolves them for this host.
pub(super) fn read_policy(config: &Path) -> anyhow::Result<(Draft, Policy)> {
    let draft = Draft::load(config)?;
    let policy = policy::resolve(&draft, &interface::addresses()?)?;
    Ok((draft, policy))
}
