//! Emergency verbs. Each writes first to disk (who asks, for what and why), then to the maps, then to the
//! history. The daemon calls these functions; so does the command line if no daemon answers.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use log::error;
use pomguard_common::control::{Timed, over};

use crate::{
    control::protocol::SuspensionKind,
    daemon::context::{DETACHED, boot_id},
    history::{By, Event, History},
    input::settings::Paths,
    kernel::{
        KernelError,
        clock::{Ticks, unix_now},
        control, load,
        pins::Pins,
    },
    render::quantity::duration,
    state::{
        runtime::Runtime,
        suspension::{self, Suspension},
    },
};

/// The longest bypass or lockdown, in seconds: a day. A longer one has to be a policy.
const LONGEST: u32 = 86_400;

/// The person who asks, and the reason.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The user and process.
    pub by: By,
    /// The reason, in the operator's words.
    pub why: Option<String>,
}

/// The maps and folders that the emergency verbs write to.
#[derive(Clone, Debug)]
pub struct Scene {
    pub(super) pins: Pins,
    pub(super) state: PathBuf,
    runtime: PathBuf,
    pub(super) ticks: Ticks,
}

impl Scene {
    /// Opens the pinned maps, with the clock of their deadlines.
    ///
    /// # Errors
    /// If nothing is pinned, or the maps are of another layout.
    pub fn open(paths: &Paths) -> Result<Self, KernelError> {
        let pins = Pins::new(&paths.pins);
        let ticks = load::ticks(&pins)?;
        Ok(Self::new(pins, paths, ticks))
    }

    pub(super) fn new(pins: Pins, paths: &Paths, ticks: Ticks) -> Self {
        Self { pins, state: paths.state.clone(), runtime: paths.runtime.clone(), ticks }
    }

    /// Returns an error while the host is open on purpose: no program of pomguard judges packets then.
    pub(super) fn check_attached(&self) -> anyhow::Result<()> {
        if Runtime::new(&self.runtime).detached() {
            bail!(DETACHED);
        }
        Ok(())
    }

    /// Suspends the policy. Returns a sentence about it.
    ///
    /// # Errors
    /// If the time is out of bounds, or the maps cannot be written; then nothing was changed.
    pub fn suspend(&self, kind: SuspensionKind, seconds: u32, asker: &Asker) -> anyhow::Result<String> {
        if seconds == 0 || seconds > LONGEST {
            bail!(
                "a {} lasts from one second to {}: what is to last longer is a policy",
                kind.name(),
                duration(LONGEST.into())
            );
        }
        self.check_attached()?;
        control::suspension(&self.pins).with_context(|| format!("begin the {}", kind.name()))?;
        let deadline = self.ticks.deadline(seconds)?;
        let now = unix_now();
        let suspension = Suspension {
            kind,
            boot: boot_id().context("read the boot's id")?,
            deadline,
            since: now,
            until: now + u64::from(seconds),
            by: Some(asker.by.clone()),
            why: asker.why.clone(),
        };
        self.record(Some(&suspension));
        control::set_suspension(&self.pins, Timed::until(kind.number(), deadline))
            .with_context(|| format!("begin the {}", kind.name()))?;
        let message = format!("{} for {}", kind.name(), duration(seconds.into()));
        self.note(kind.name(), &message, asker);
        Ok(message)
    }

    /// Ends a bypass or lockdown before the deadline. Returns a sentence about the end.
    ///
    /// # Errors
    /// If neither holds, or the maps cannot be written.
    pub fn resume(&self, asker: &Asker) -> anyhow::Result<String> {
        self.check_attached()?;
        let held = control::suspension(&self.pins)?.holds(self.ticks.now()? as u32);
        self.record(None);
        control::set_suspension(&self.pins, Timed::NONE).context("end bypass and lockdown")?;
        let Some(kind) = SuspensionKind::of_number(held) else {
            bail!("neither a bypass nor a lockdown is to be ended")
        };
        let message = format!("{} is over: the policy holds again", kind.name());
        self.note("off", &message, asker);
        Ok(message)
    }

    /// Returns the bypass or lockdown that holds by the record on disk.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn recorded(&self) -> anyhow::Result<Option<Suspension>> {
        let now = self.ticks.now()? as u32;
        let boot = boot_id().context("read the boot's id")?;
        let found = suspension::load(&self.runtime)
            .context("read the record of the bypass or lockdown that holds")?;
        Ok(found.filter(|it| it.boot == boot && !over(it.deadline, now)))
    }

    /// Returns the bypass or lockdown that holds by the word in the maps.
    #[must_use]
    pub fn in_force(&self) -> Option<SuspensionKind> {
        let now = self.ticks.now().ok()? as u32;
        SuspensionKind::of_number(control::suspension(&self.pins).ok()?.holds(now))
    }

    /// Writes the record of the bypass or lockdown that holds. In an emergency a failed write is no reason to
    /// stop: the programs go by the word in the maps.
    pub(super) fn record(&self, suspension: Option<&Suspension>) {
        if let Err(error) = suspension::save(&self.runtime, suspension) {
            error!(
                "the bypass or lockdown is not on disk: a start with other maps will not know of it: {error}"
            );
        }
    }

    /// Adds a line to the history of emergency verbs.
    pub(super) fn note(&self, verb: &str, about: &str, asker: &Asker) {
        let event = Event {
            at: unix_now(),
            verb: verb.to_owned(),
            about: about.to_owned(),
            by: Some(asker.by.clone()),
            why: asker.why.clone(),
        };
        if let Err(error) = History::open(&self.state).note(&event) {
            error!("the history does not say `{about}`: {error}");
        }
    }
}
