//! The reporter: everything by which others see the state of the daemon. It answers `status`, `explain` and the
//! metrics page, speaks to systemd, and keeps the records of drops and counters.
//!
//! The reporter changes nothing that a packet meets. It learns the state by messages and by reading the maps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::watch, task::JoinHandle};

use self::{
    counts::Counting,
    drops::Recorder,
    metrics_listener::{DesiredAddress, Fault},
    notify::Systemd,
    questions::{Questions, Task},
};
use super::{
    context::Context,
    message::{Check, Conditions, Report},
};
use crate::{
    input::settings::{AttachMode, Drops, Paths},
    kernel::{clock::unix_now, pins::Pins, takeover},
    observe::{condition::Condition, metrics::DaemonState},
    policy::Policy,
};

mod counts;
mod drops;
pub(super) mod metrics_listener;
pub(super) mod notify;
pub(super) mod questions;
mod status;

/// The reports of the daemon.
pub(super) struct Reporter {
    /// The state that the metrics page shows next to the maps.
    state: Arc<Mutex<DaemonState>>,
    /// One line about the policy in force.
    line: String,
    /// The conditions of the last check.
    conditions: Conditions,
    /// The address of the metrics page.
    listen: DesiredAddress,
    /// The reason for which the metrics page is not served.
    unserved: Fault,
    systemd: Systemd,
    /// The status that systemd received last.
    last_status: String,
    recorder: Recorder,
    counting: Counting,
    questions: Questions,
}

impl Reporter {
    /// Continues with the records in the state folder.
    pub(super) fn new(paths: &Paths, systemd: Systemd) -> Self {
        let state = DaemonState { version: env!("CARGO_PKG_VERSION").to_owned(), ..DaemonState::default() };
        Self {
            state: Arc::new(Mutex::new(state)),
            line: String::new(),
            conditions: Conditions::new(),
            listen: DesiredAddress::new(None),
            unserved: Fault::default(),
            systemd,
            last_status: String::new(),
            recorder: Recorder::new(&paths.state),
            counting: Counting::new(&paths.state),
            // The place of the pins after the start, also if maps of another layout are replaced.
            questions: Questions::new(Pins::new(&paths.pins)),
        }
    }

    fn state(&self) -> MutexGuard<'_, DaemonState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts serving the metrics page. The first attempt is over when this function returns.
    pub(super) async fn serve_metrics(
        &self,
        context: &Context,
        stopped: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let source = self.metrics_source(context);
        metrics_listener::serve(self.listen.subscribe(), source, self.unserved.clone(), stopped).await
    }

    /// Takes a message of the changes.
    pub(super) fn take(&mut self, report: Report) {
        match report {
            Report::Accepted => {
                let mut state = self.state();
                state.last_reload_success = Some(unix_now());
                state.last_reload_successful = true;
            }
            Report::Failed => self.failed(),
            Report::InForce { settings, installed } => {
                self.listen.want(settings.metrics.as_ref());
                let mut state = self.state();
                match settings.attach.mode {
                    AttachMode::Auto => "auto",
                    AttachMode::Native => "native",
                    AttachMode::Generic => "generic",
                }
                .clone_into(&mut state.attach_wanted);
                state.installed = Some(installed);
                state.interfaces = settings.interfaces.iter().map(|at| at.value.clone()).collect();
            }
            Report::Line(line) => self.line = line,
        }
    }

    /// Counts a change that failed.
    pub(super) fn failed(&self) {
        let mut state = self.state();
        state.reload_failures += 1;
        state.last_reload_successful = false;
    }

    /// Hands a question to the thread that answers.
    pub(super) fn explain(&mut self, task: Task) {
        self.questions.put(task);
    }

    /// Returns the condition of a metrics page that is not served.
    pub(super) fn condition(&self) -> Option<(Condition, String)> {
        Some((Condition::MetricsUnserved, self.unserved.get()?))
    }

    /// Reads the table of drops, if the next reading is due, and returns the resulting condition.
    pub(super) fn record_drops(
        &mut self,
        context: &Context,
        settings: Drops,
        policy: Option<&Policy>,
    ) -> Option<(Condition, String)> {
        self.recorder.record(context, settings, policy, &self.state)
    }

    /// Makes the readings of the counters that are due.
    pub(super) fn keep_counts(&mut self, context: &Context) {
        self.counting.keep(&context.pins);
    }

    /// Writes the records of drops and counters to the disk, at the end of the daemon.
    pub(super) fn save_records(&mut self, settings: Drops) {
        self.recorder.save(settings);
        self.counting.save();
    }

    /// Sends messages to systemd that are still queued. Must be called regularly.
    pub(super) fn tell_again(&mut self) {
        self.systemd.tell_again();
    }

    /// Reports to systemd that the policy is in force, with the present status and the losses of this start.
    pub(super) fn started(&mut self, context: &Context) {
        let status = match context.replaced {
            Some(found) => {
                format!(
                    "in place of maps of layout {found} ({}); {}",
                    takeover::losses(found),
                    self.last_status
                )
            }
            None => self.last_status.clone(),
        };
        self.systemd.ready(&status);
    }

    /// Reports to systemd that the files are being taken anew.
    pub(super) fn reloading(&mut self) {
        self.systemd.reloading();
    }

    /// Reports to systemd that the files were taken.
    pub(super) fn reloaded(&mut self, notes: &[String]) {
        if notes.is_empty() {
            self.systemd.ready(&self.line);
        } else {
            self.systemd.ready(&format!("{}; {}", notes.join("; "), self.line));
        }
        self.last_status = String::new();
    }

    /// Reports to systemd that the files were refused.
    pub(super) fn reload_refused(&mut self, about: &str) {
        self.systemd.ready(about);
        self.last_status = String::new();
    }

    /// Reports to systemd that the daemon is about to end.
    pub(super) fn stopping(&mut self) {
        self.systemd.stopping();
    }

    /// Reports the result of a check. `rollback_at` is the time at which the pending change is rolled back.
    pub(super) fn report(&mut self, check: Check, rollback_at: Option<u64>) {
        {
            let mut state = self.state();
            for repair in check.repairs {
                *state.repairs.entry(repair).or_default() += 1;
                state.self_check_mismatches += 1;
            }
            state.flows_freed += check.freed;
            state.rollback_at = rollback_at;
            state.conditions = check.conditions.keys().copied().collect();
        }
        // Pings the watchdog unless the self-check itself failed. A reported condition counts as a completed
        // check.
        if !check.conditions.contains_key(&Condition::SelfCheckFailed) {
            self.systemd.ping();
        }
        self.conditions = check.conditions;
        let message: Vec<String> = self
            .conditions
            .iter()
            .map(|(condition, about)| format!("{}: {about}", condition.name()))
            .collect();
        let message = if message.is_empty() {
            self.line.clone()
        } else {
            format!("DEGRADED: {}; {}", message.join("; "), self.line)
        };
        if message != self.last_status {
            self.systemd.status(&message);
            self.last_status = message;
        }
    }
}
