//! `pomguard run`: puts the policy in force, and keeps the policy in force in step with the files.
//!
//! Enforcement does not depend on the daemon: programs, maps and links are pinned. The daemon loads and
//! attaches, takes new policies, serves metrics and reports to systemd.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, bail};
use log::{debug, error, info};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use self::{
    phases::Phases,
    transition::Waiting,
    transition::{ActivePolicy, ChangeRequest},
};
use crate::{
    control::server::Requests,
    history::{Cause, History},
    input::{Draft, settings::Settings},
    kernel::{
        capabilities,
        clock::Ticks,
        install::Installed,
        interface,
        load::{Loaded, Share},
        minimal,
        pins::Pins,
        programs::{self, Staged},
        takeover::Takeover,
    },
    observe::condition::Condition,
    policy::{self, Policy},
    state::{confirmed::Confirmed, runtime::Runtime},
};

mod addresses;
pub mod audit;
mod boot;
mod change;
mod check;
mod command;
mod confirm;
mod context;
mod flows;
mod identity;
pub mod journal;
mod message;
pub mod overrides;
mod phases;
mod reconciler;
mod refused;
mod reporter;
mod timed;
mod transition;

use boot::StartSource;
use confirm::Earlier;
use context::{Context, DETACHED};
use identity::Unplaced;
use message::{InForce, Report};
use overrides::Overrides;
use reconciler::{ReconcileTimer, Reconciler, check_interfaces};
use refused::Refused;
use reporter::{Reporter, notify::Systemd};

/// Options of the daemon that are not in the settings file.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings file.
    pub config: PathBuf,
    /// Level of the log of the eBPF programs: 0 = off.
    pub program_log: u8,
}

/// The state of the running daemon.
struct Daemon {
    options: Options,
    /// The settings that were accepted last.
    settings: Settings,
    history: History,
    /// The policy in force, to which the daemon returns if a pending change is not confirmed; `None` before
    /// the first policy.
    held: Option<ActivePolicy>,
    /// The pending change.
    waiting: Option<Waiting>,
    /// The start, if no address told which host this machine is.
    unplaced: Option<Unplaced>,
    /// True if the time to confirm the pending change, or the last one, was made shorter.
    hurried: bool,
    context: Context,
    overrides: Overrides,
    reconciler: Reconciler,
    reporter: Reporter,
    /// The image in force; `None` before the first one.
    installed: Option<InForce>,
    /// The conditions that stay until something is done about them.
    lasting_conditions: BTreeMap<Condition, String>,
    /// The policy that could not be saved for the next boot, and the time of the next attempt.
    unsaved: Option<(Confirmed, Instant)>,
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
    let (settings, start_source) = boot::start_source(&options.config)?;
    if settings.interfaces.is_empty() {
        bail!("{}: `interfaces` names none: there is nothing to enforce on", settings.file);
    }
    let runtime = Runtime::new(&settings.paths.runtime);
    let lock = runtime.only_daemon()?;
    raise_locked_memory();
    let pins = Pins::new(&settings.paths.pins);
    let begun =
        start(options.clone(), settings.clone(), start_source, runtime.clone(), pins.clone(), systemd);
    let Started { mut daemon, mut timer } = match begun {
        Ok(started) => started,
        Err(error) => {
            let refused = Refused::instead(error, &options, settings, runtime, pins)?;
            let ending = refused.serve(hangup, shutdown).await;
            drop(lock);
            return ending;
        }
    };
    let settings = daemon.settings.clone();
    let (stop, stopped) = watch::channel(false);
    let metrics = daemon.reporter.serve_metrics(&daemon.context, stopped).await;
    let requests = command::listen(&settings);
    // The policy is reported as in force only after it was read back and the programs were asked.
    daemon.check();
    daemon.reconciler.judge(&daemon.context).context("ask the programs that are in force")?;
    daemon.reporter.started(&daemon.context);
    daemon.serve(&mut timer, hangup, requests, shutdown).await;
    daemon.reporter.save_records(daemon.settings.drops);
    daemon.reporter.stopping();
    info!("stopping; what is in force stays in force (`pomguard detach` opens the host)");
    // An error means that no receiver is left, which is as good.
    let _ = stop.send(true);
    metrics.await.context("the metrics listener")?;
    drop(lock);
    Ok(Ending::Enforcing)
}

/// A daemon whose programs judge packets, with the timer of the checks.
struct Started {
    daemon: Daemon,
    timer: ReconcileTimer,
}

/// Loads the programs, puts a policy in force and attaches.
fn start(
    options: Options,
    settings: Settings,
    start_source: StartSource,
    runtime: Runtime,
    pins: Pins,
    systemd: Systemd,
) -> anyhow::Result<Started> {
    let mut phases = Phases::begin();
    check_interfaces(&pins, &settings, |_| true)?;
    // Before the first check: changes of the meantime are announced, and then checked.
    let timer = ReconcileTimer::new()?;
    let change = runtime.change()?;
    runtime.clear_detached()?;
    pins.prepare().context("prepare the folder for the pins")?;
    pins.finish_migration()
        .and_then(|()| programs::retire(&pins))
        .context("decide what an earlier start left")?;
    // Unless `finish` is called below, dropping this value restores the state before this start.
    let takeover = Takeover::begin(&pins).context("take the place of maps of another layout")?;
    let pins = takeover.as_ref().map_or(pins, Takeover::pins);
    let ticks = Ticks::probe()?;
    phases.end("decide the pins");
    info!("loading the programs");
    let loaded = Loaded::new(&pins, Share::All, ticks, options.program_log);
    let loaded = loaded.map_err(|error| for_want_of_capabilities(error.into()))?;
    // Before the first program is attached: see `programs`.
    let staged = Staged::new(&loaded, &pins).context("pin the programs")?;
    phases.end("load the programs");
    let carry = takeover.as_ref().and_then(|takeover| takeover.counters(ticks));
    let reconciler = Reconciler::new(loaded, carry)?;
    let context = Context {
        pins,
        runtime,
        ticks,
        paths: settings.paths.clone(),
        replaced: takeover.as_ref().map(Takeover::found),
    };
    let mut daemon = Daemon {
        options,
        context,
        history: History::open(&settings.paths.state),
        reporter: Reporter::new(&settings.paths, systemd),
        settings,
        held: None,
        waiting: None,
        unplaced: None,
        hurried: false,
        overrides: Overrides::default(),
        reconciler,
        installed: None,
        lasting_conditions: BTreeMap::new(),
        unsaved: None,
    };
    if daemon.options.program_log != 0 {
        daemon.reconciler.follow_program_log();
    }
    // The policy before the programs: the first packet that a program sees is judged by the policy.
    daemon.continue_overrides()?;
    let earlier = daemon.continue_waiting()?;
    if matches!(earlier, Earlier::Waits) {
        daemon.expect_failsafe();
        daemon.take_over()?;
    } else {
        match start_source {
            StartSource::Files(files, by_last_name) => {
                daemon.start(*files)?;
                daemon.unplaced = by_last_name.map(|draft| Unplaced::by_last_name(*draft));
            }
            StartSource::ConfirmedPolicy(confirmed_policy) => {
                daemon.keep(*confirmed_policy)?;
                let settings = daemon.settings.clone();
                daemon.attach_at_start(&settings)?;
            }
        }
    }
    if let Earlier::Returned { message, image } = earlier {
        daemon.note_returned(message, &image);
    }
    phases.end("put the policy in force and attach");
    staged.finish().context("give the new programs their place")?;
    if let Some(takeover) = takeover {
        daemon.context.pins = takeover.finish().context("give the new maps their place")?;
    }
    daemon.end_closing();
    daemon.reconciler.record_baseline(&daemon.context);
    drop(change);
    Ok(Started { daemon, timer })
}

impl Daemon {
    /// Removes the means that held the host closed while the kernel refused the programs.
    fn end_closing(&self) {
        let table = self.context.runtime.not_enforcing().is_some_and(|mark| mark.table);
        let ended = minimal::end(&self.context.pins, table)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(self.context.runtime.clear_not_enforcing()?));
        if let Err(error) = ended {
            error!("what held the host closed is still there alongside the policy: {error:#}");
        }
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
            let deadline = self.until_deadline();
            tokio::select! {
                () = &mut shutdown => return,
                _ = hangup.recv() => self.reload(),
                Some(command) = requests.next() => {
                    self.follow_clocks();
                    self.command(command);
                }
                () = timer.due() => self.check(),
                () = tokio::time::sleep(deadline.unwrap_or_default()), if deadline.is_some() => self.at_deadline(),
            }
        }
    }

    /// Takes the files anew. If the files contain an error, the policy in force stays.
    fn reload(&mut self) {
        self.reporter.reloading();
        match self.take_files(&ChangeRequest::own(Cause::Reload)) {
            Ok(changed) => self.reporter.reloaded(&changed.notes),
            Err(error) => {
                error!("reload refused, the policy in force stays: {error:#}");
                audit::reload_refused(&error, &self.image());
                self.reporter.failed();
                if self.context.runtime.detached() {
                    self.reporter.reload_refused(&format!("reload refused: {DETACHED}"));
                } else {
                    if self.waiting.is_none() {
                        self.refused(&error);
                    }
                    self.reporter
                        .reload_refused("reload refused: the policy before it is in force (see the journal)");
                }
            }
        }
    }

    /// Returns the digest of the image that the daemon considers to be in force; empty before the first.
    fn image(&self) -> String {
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
            self.lasting_conditions.remove(&over);
        }
        self.in_force(settings, installed.digest(), installed.generation().into());
        self.reporter.take(Report::Accepted);
    }

    /// Records the image in force for the metrics page, and moves the page to the address of the settings.
    fn in_force(&mut self, settings: &Settings, image: String, generation: u64) {
        let installed = InForce { image, generation };
        self.installed = Some(installed.clone());
        self.reporter.take(Report::InForce { settings: Box::new(settings.clone()), installed });
    }
}

/// Adds the missing capabilities to an error: without them, the verifier's message names anything but the
/// cause.
fn for_want_of_capabilities(error: anyhow::Error) -> anyhow::Error {
    let missing = capabilities::missing();
    if missing.is_empty() {
        return error;
    }
    error.context(format!("this process lacks {}, which the unit has", missing.join(" and ")))
}

/// Reads the files and resolves them for this host.
fn read_policy(config: &Path) -> anyhow::Result<(Draft, Policy)> {
    let draft = Draft::load(config)?;
    let policy = policy::resolve(&draft, &interface::addresses()?)?;
    Ok((draft, policy))
}

/// Raises the limit of locked memory, against which Linux before 5.11 counts maps.
fn raise_locked_memory() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        debug!("the limit of locked memory stays as it is ({error}); only kernels before 5.11 mind");
    }
}
