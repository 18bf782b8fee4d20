//! `pomguard run`: puts the policy in force, and keeps the policy in force in step with the files.
//!
//! Enforcement does not depend on the daemon: programs, maps and links are pinned. The daemon loads and
//! attaches, takes new policies, serves metrics and reports to systemd.
//!
//! The daemon is a loop around four parts, each with its own state: `Changes`, `Reconciler`, `Overrides` and
//! `Reporter`. The loop hands each event to the parts in order and passes their messages on. No part holds another
//! one.

use std::{future::Future, path::PathBuf};

use anyhow::{Context as _, anyhow, bail};
use log::{debug, error, info, warn};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use self::{
    changes::{ChangeRequest, Changes},
    context::{Context, DETACHED},
    overrides::Overrides,
    reconciler::{ReconcileTimer, Reconciler},
    refused::Refused,
    reporter::{Reporter, notify::Systemd},
    start::Started,
};
use crate::{control::server::Requests, history::Cause, kernel::pins::Pins, state::runtime::Runtime};

pub mod audit;
mod changes;
mod check;
mod command;
mod context;
pub mod journal;
mod memory;
mod message;
pub mod overrides;
mod phases;
mod reconciler;
mod refused;
mod reporter;
mod start;
mod timed;

/// Options of the daemon that are not in the settings file.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings file.
    pub config: PathBuf,
    /// Level of the log of the eBPF programs: 0 = off.
    pub program_log: u8,
}

/// The running daemon: the four parts, and the values that all of them use.
struct Daemon {
    context: Context,
    changes: Changes,
    overrides: Overrides,
    reconciler: Reconciler,
    reporter: Reporter,
}

/// The state in which a daemon ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The policy in force stays in force.
    Enforcing,
    /// The kernel refuses the programs: the host is closed by other means, or open.
    NotEnforcing,
}

/// Runs until `shutdown` completes. The policy in force stays in force.
///
/// # Errors
/// If the policy cannot be read or put in force at the start. Later errors are logged and counted.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> anyhow::Result<Ending> {
    // First of all: without a handler, SIGHUP ends the process. An early signal is answered later.
    let hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let systemd = Systemd::of_environment().context("find the way to systemd, by NOTIFY_SOCKET")?;
    let (settings, start_source) = changes::start_source(&options.config)?;
    if settings.interfaces.is_empty() {
        bail!("{}: `interfaces` names none: there is nothing to enforce on", settings.file);
    }
    let runtime = Runtime::new(&settings.paths.runtime);
    let lock = runtime.only_daemon()?;
    if let Err(error) = runtime.record_paths(&settings.paths) {
        warn!("the commands go by the folders of the files: {:#}", anyhow!(error));
    }
    raise_locked_memory();
    let pins = Pins::new(&settings.paths.pins);
    let begun =
        start::start(&options, settings.clone(), start_source, runtime.clone(), pins.clone(), systemd);
    let Started { mut daemon, mut timer } = match begun {
        Ok(started) => started,
        Err(error) => {
            let refused = Refused::instead(error, &options, settings, runtime, pins)?;
            let ending = refused.serve(hangup, shutdown).await;
            drop(lock);
            return ending;
        }
    };
    let settings = daemon.changes.settings().clone();
    let (stop, stopped) = watch::channel(false);
    let metrics = daemon.reporter.serve_metrics(&daemon.context, stopped).await;
    let requests = command::listen(&settings);
    // The policy is reported as in force only after it was read back and the programs were asked.
    daemon.check();
    daemon.reconciler.judge(&daemon.context).context("ask the programs that are in force")?;
    daemon.reporter.started(&daemon.context);
    memory::give_back();
    daemon.serve(&mut timer, hangup, requests, shutdown).await;
    daemon.reporter.save_records(daemon.changes.settings().drops);
    daemon.reporter.stopping();
    info!("stopping; what is in force stays in force (`pomguard detach` opens the host)");
    // An error means that no receiver is left, which is as good.
    let _ = stop.send(true);
    metrics.await.context("the metrics listener")?;
    drop(lock);
    Ok(Ending::Enforcing)
}

impl Daemon {
    /// Lets the changes act, and passes their messages on to the reporter.
    fn change<T>(&mut self, act: impl FnOnce(&mut Changes, &Context, &mut Reconciler) -> T) -> T {
        let result = act(&mut self.changes, &self.context, &mut self.reconciler);
        for report in self.changes.take_reports() {
            self.reporter.take(report);
        }
        result
    }

    /// Handles events until `shutdown` completes.
    async fn serve(
        &mut self,
        timer: &mut ReconcileTimer,
        mut hangup: Signal,
        mut requests: Requests,
        shutdown: impl Future<Output = ()>,
    ) {
        tokio::pin!(shutdown);
        loop {
            let deadline = self.changes.until_deadline(&self.context);
            tokio::select! {
                () = &mut shutdown => return,
                _ = hangup.recv() => {
                    self.catch_up();
                    self.reload();
                    memory::give_back();
                }
                Some(command) = requests.next() => {
                    self.catch_up();
                    self.command(command);
                    memory::give_back();
                }
                () = timer.due() => self.check(),
                () = tokio::time::sleep(deadline.unwrap_or_default()), if deadline.is_some() => {
                    self.change(Changes::at_deadline);
                    memory::give_back();
                }
            }
        }
    }

    /// Takes note of the time that has passed. A process that stood still may read a request before the timer of a
    /// deadline that is over.
    fn catch_up(&mut self) {
        self.follow_clocks();
        self.change(Changes::at_deadline);
    }

    /// Takes the files anew. If the files contain an error, the policy in force stays.
    fn reload(&mut self) {
        self.reporter.reloading();
        let request = ChangeRequest::own(Cause::Reload);
        match self.change(|changes, context, reconciler| changes.take_files(context, reconciler, &request)) {
            Ok(changed) => self.reporter.reloaded(&changed.notes),
            Err(error) => {
                error!("reload refused, the policy in force stays: {error:#}");
                audit::reload_refused(&error, &self.changes.image());
                self.reporter.failed();
                if self.context.runtime.detached() {
                    self.reporter.reload_refused(&format!("reload refused: {DETACHED}"));
                } else {
                    if !self.changes.is_waiting() {
                        self.changes.refused(&self.context, &error);
                    }
                    self.reporter
                        .reload_refused("reload refused: the policy before it is in force (see the journal)");
                }
            }
        }
    }
}

/// Raises the limit of locked memory, against which Linux before 5.11 counts maps.
fn raise_locked_memory() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        debug!("the limit of locked memory stays as it is ({error}); only kernels before 5.11 mind");
    }
}
