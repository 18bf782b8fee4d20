//! A daemon whose kernel refuses the programs while no guard is attached. The daemon holds the host closed,
//! or reports that the host is open, and answers requests. It ends when the kernel accepts the programs, so
//! that systemd starts a new daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    future::Future,
    io::Write as _,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{error, info, warn};
use pomguard_common::Direction;
use tokio::{
    signal::unix::Signal,
    sync::{oneshot, watch},
    time::{Interval, MissedTickBehavior},
};

use super::{
    Ending,
    changes::read_policy,
    command,
    context::DETACHED,
    reporter::{metrics_listener, notify::Systemd},
};
use crate::{
    compile::{SlotTable, overrides},
    control::{
        protocol::{Reply, Request},
        server::Command,
    },
    input::settings::{OnLoadFailure, Settings},
    kernel::{
        KernelError, attach,
        clock::Ticks,
        load::{Loaded, Share},
        machine,
        minimal::{self, Closed, Closing, Content},
        pins::Pins,
    },
    observe::{
        condition::Condition,
        metrics::{self, DaemonState},
        printable::printable,
        status::{DaemonStatus, Status},
    },
    policy::Mode,
    state::{
        confirmed::{self, Confirmed},
        runtime::{NotEnforcing, Runtime},
    },
    terminals,
};

/// The interval at which the watchdog is pinged.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// The interval at which the interfaces are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The delay before the kernel is asked again if it accepts the programs; doubled after each attempt.
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// The longest such delay.
const LAST_RETRY: Duration = Duration::from_secs(600);
/// The longest reason in a sentence, in characters; the journal has the complete reason.
const REASON: usize = 300;

/// The replacement of a daemon that could not start.
pub(super) struct Refused {
    settings: Settings,
    runtime: Runtime,
    pins: Pins,
    /// The hooks that hold the host closed; `None` if the host is to be open.
    closing: Option<Closing>,
    confirmed: Option<Confirmed>,
    /// The reason for which the start failed.
    why: String,
    /// A sentence about the present state.
    about: String,
    systemd: Systemd,
    checked: Option<Instant>,
}

/// Returns the setting for a kernel that refuses the programs: the host is closed or open.
fn decision(settings: &Settings, confirmed: Option<&Confirmed>) -> OnLoadFailure {
    settings.attach.on_load_failure.unwrap_or_else(|| match confirmed {
        Some(confirmed) if confirmed.mode(Direction::Inbound) == Mode::Enforce => OnLoadFailure::Closed,
        // A host that was never guarded, or was only audited, is not cut off.
        _ => OnLoadFailure::Open,
    })
}

/// Returns true if the kernel refused objects that every start needs, and not a demand of these files.
fn kernel_refuses(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref()).any(|error| {
        matches!(
            error,
            KernelError::Load(_)
                | KernelError::Program { .. }
                | KernelError::Map { .. }
                | KernelError::Interpreted
        )
    })
}

impl Refused {
    /// Takes the place of a daemon whose start failed. Returns the error if the start is simply over: the
    /// real programs of an earlier start enforce, or the files are at fault and the host is to stay open.
    pub(super) fn instead(
        error: anyhow::Error,
        options: &super::Options,
        settings: Settings,
        runtime: Runtime,
        pins: Pins,
    ) -> anyhow::Result<Self> {
        match minimal::real_programs_enforce(&pins) {
            Ok(false) => {}
            // Links that cannot be read may be the ones that enforce; without BPF there are no links.
            Ok(true) => return Err(error),
            Err(unknown) => warn!("{:#}", anyhow!(unknown)),
        }
        let confirmed = confirmed::load(&settings.paths.state).unwrap_or_else(|unreadable| {
            error!("{:#}", anyhow!(unreadable));
            None
        });
        let closed = decision(&settings, confirmed.as_ref()) == OnLoadFailure::Closed;
        if !closed && !kernel_refuses(&error) {
            return Err(error);
        }
        error!("{error:#}");
        let why = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
        let why = why.chars().take(REASON).collect();
        let systemd = Systemd::of_environment()?;
        let closing = closed.then(|| {
            let content = content(options, &settings, confirmed.as_ref());
            Closing::begin(&pins, content, settings.attach)
        });
        Ok(Self {
            settings,
            runtime,
            pins,
            closing,
            confirmed,
            why,
            about: String::new(),
            systemd,
            checked: None,
        })
    }

    /// Runs until `shutdown` completes, the files are to be taken anew, or the kernel accepts the programs.
    pub(super) async fn serve(
        mut self,
        mut hangup: Signal,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<Ending> {
        self.check();
        let mut requests = command::listen(&self.settings);
        let (stop, stopped) = watch::channel(false);
        let desired = metrics_listener::DesiredAddress::new(self.settings.metrics.clone());
        let error = metrics_listener::Fault::default();
        let served = metrics_listener::serve(desired.subscribe(), Arc::new(page), error, stopped).await;
        self.systemd.ready(&self.message());
        tokio::pin!(shutdown);
        let mut timer = regular();
        let mut wait = FIRST_RETRY;
        let mut retry = Box::pin(tokio::time::sleep(wait));
        let mut asked: Option<oneshot::Receiver<bool>> = None;
        loop {
            let asking = asked.is_some();
            let answer = async {
                if let Some(asked) = &mut asked { asked.await } else { std::future::pending().await }
            };
            tokio::select! {
                () = &mut shutdown => break,
                _ = hangup.recv() => {
                    info!("asked to take the files: ending, so that systemd starts pomguard anew");
                    break;
                }
                Some(command) = requests.next() => self.command(command),
                _ = timer.tick() => {
                    self.systemd.tell_again();
                    if self.checked.is_none_or(|checked| checked.elapsed() >= CHECK_INTERVAL) {
                        self.check();
                    }
                    self.systemd.ping();
                }
                taken = answer => {
                    asked = None;
                    if taken == Ok(true) {
                        warn!("the kernel takes the programs now: ending, so that systemd starts pomguard anew");
                        break;
                    }
                    wait = (2 * wait).min(LAST_RETRY);
                    retry = Box::pin(tokio::time::sleep(wait));
                }
                () = &mut retry, if !asking => asked = Some(ask(&self.pins)),
            }
        }
        self.systemd.stopping();
        let _ = stop.send(true);
        served.await?;
        Ok(Ending::NotEnforcing)
    }

    /// Closes interfaces that are not closed yet, and reports the state if it has changed.
    fn check(&mut self) {
        // An operator who changes something by hand has the lock meanwhile.
        let Ok(Some(_change)) = self.runtime.try_change() else { return };
        self.checked = Some(Instant::now());
        if self.runtime.detached() {
            self.closing = None;
            self.say(DETACHED.to_owned(), false);
            return;
        }
        let (about, table) = match &mut self.closing {
            None => (
                sentence(&format!("OPEN: nothing is filtered on {}", names(&self.settings)), &self.why),
                false,
            ),
            Some(closing) => {
                let state = closing.check(self.settings.interfaces.iter().map(|at| &at.value));
                let about = sentence(&closed(state), &self.why);
                (about, closing.has_table())
            }
        };
        self.say(about, table);
    }

    /// Records the state for commands that run without a daemon. Reports a new state once in the log, in the
    /// kernel's log, which the console shows, and on the terminals.
    fn say(&mut self, about: String, table: bool) {
        if about == self.about {
            return;
        }
        let mark = NotEnforcing { about: about.clone(), table };
        let message = self.runtime.not_enforcing().is_some_and(|before| before == mark);
        if let Err(error) = self.runtime.mark_not_enforcing(&mark) {
            error!("{:#}", anyhow!(error));
        }
        error!("{}: {about}", Condition::NotEnforcing.name());
        if !message {
            console(&about);
            terminals::tell(&about);
        }
        self.about = about;
        let message = self.message();
        self.systemd.status(&message);
    }

    fn message(&self) -> String {
        format!("{}: {}", Condition::NotEnforcing.name(), self.about)
    }

    fn command(&self, command: Command) {
        let reply = match command.message.request {
            Request::Status => Reply::from_result(Ok(self.status())),
            Request::Metrics => Reply::from_result(page()),
            other => Reply::Refused(format!("no `{}` now: {}", other.verb(), self.about)),
        };
        // The client may be gone by now.
        let _ = command.answer.send(reply);
    }

    fn status(&self) -> Status {
        let attach = self.settings.interfaces.iter().map(|at| attach::describe(&self.pins, &at.value));
        let mut status = Status::not_enforcing(self.message(), attach.collect());
        if let Some(confirmed) = &self.confirmed {
            status.host.clone_from(&confirmed.about.host);
            status.matrix.clone_from(&confirmed.about.matrix);
        }
        status.daemon = Some(DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            last_success: None,
            last_successful: false,
            replaced_layout: None,
        });
        status
    }
}

/// Makes the metrics page.
fn page() -> anyhow::Result<String> {
    let daemon = DaemonState {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        conditions: BTreeSet::from([Condition::NotEnforcing]),
        ..DaemonState::default()
    };
    Ok(metrics::page_without_maps(daemon, Vec::new())?)
}

fn regular() -> Interval {
    let mut timer = tokio::time::interval(RECONCILE_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// Asks the kernel if it accepts the programs, which takes seconds, on a thread of its own.
fn ask(pins: &Pins) -> oneshot::Receiver<bool> {
    let (answer, asked) = oneshot::channel();
    let pins = pins.clone();
    let takes = move || {
        let taken = pins
            .prepare()
            .and_then(|()| Ticks::probe())
            .and_then(|ticks| Loaded::new(&pins, Share::Nothing, ticks, 0));
        // A daemon that ends does not wait for the answer.
        let _ = answer.send(taken.is_ok());
    };
    if let Err(error) = thread::Builder::new().spawn(takes) {
        error!("no thread to ask the kernel on: {error}");
    }
    asked
}

/// Returns the rules of the closed host: the failsafe tuples that were confirmed last, or those of the files.
fn content(options: &super::Options, settings: &Settings, confirmed: Option<&Confirmed>) -> Content {
    let tuples = confirmed.map_or_else(
        || {
            let (_, policy) = read_policy(&options.config).ok()?;
            overrides(&policy, &SlotTable::assign(&[], &policy).ok()?).ok()
        },
        |confirmed| Some(confirmed.overrides.clone()),
    );
    let outbound = confirmed.map_or(settings.outbound, |confirmed| confirmed.mode(Direction::Outbound));
    Content {
        tuples: tuples.unwrap_or_default(),
        vlans: vlans(settings),
        dhcp: settings.packets.dhcp,
        outbound: outbound == Mode::Enforce,
    }
}

/// Returns the VLAN ids of the settings, and those of guarded VLAN devices on guarded cards.
fn vlans(settings: &Settings) -> Vec<u16> {
    let names = settings.interfaces.iter().map(|at| at.value.as_str()).collect();
    let between = match machine::devices() {
        Ok(machine) => machine.vlans_between(&names),
        Err(error) => {
            warn!("the VLANs of the guarded interfaces cannot be read: {:#}", anyhow!(error));
            BTreeSet::new()
        }
    };
    settings.packets.vlans.iter().copied().chain(between).collect()
}

fn names(settings: &Settings) -> String {
    settings.interfaces.iter().map(|at| at.value.as_str()).collect::<Vec<_>>().join(", ")
}

fn closed(state: &BTreeMap<String, Closed>) -> String {
    let open = state.values().any(|it| matches!(it, Closed::Open(_)));
    let each: Vec<String> = state
        .iter()
        .map(|(name, how)| match how {
            Closed::Program => format!("{name} by the minimal program"),
            Closed::Nftables => format!("{name} by nftables"),
            Closed::Missing => format!("{name} does not exist yet"),
            Closed::Open(why) => format!("{name} is OPEN ({why})"),
        })
        .collect();
    let word = if open { "not closed everywhere" } else { "closed" };
    format!("{word}: only failsafe rows, neighbours and leases pass: {}", each.join(", "))
}

fn sentence(what: &str, why: &str) -> String {
    format!(
        "the policy is not enforced, because pomguard could not start; the host is {what}. Boot the kernel \
         before, or install a pomguard that this kernel takes. Why: {why}"
    )
}

/// Writes a line to the kernel's log at a level that the console shows.
fn console(sentence: &str) {
    /// KERN_CRIT, linux/kern_levels.h.
    const CRITICAL: &str = "<2>";
    let line = format!("{CRITICAL}pomguard: {}\n", printable(sentence));
    let written =
        OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut log| log.write_all(line.as_bytes()));
    if let Err(error) = written {
        warn!("the console is not told: /dev/kmsg: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_guarded_host_stays_open_unless_a_setting_says() {
        let with = |text: &str| {
            Settings::parse("t", &format!("site = \"s\"\ninterfaces = [\"e\"]\n[attach]\n{text}\n")).unwrap()
        };
        assert_eq!(decision(&with(""), None), OnLoadFailure::Open);
        assert_eq!(decision(&with("on_load_failure = \"closed\""), None), OnLoadFailure::Closed);
        assert_eq!(decision(&with("on_load_failure = \"open\""), None), OnLoadFailure::Open);
    }
}
