//! `pomguard status`: the policy in force, and the conditions that need attention.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use super::{ATTENTION, fates, output::Output, own_addresses};
use crate::{
    control::{client, protocol::Request},
    daemon::overrides::{emergency::Scene, exceptions::explained},
    history::{self, History},
    input::settings::Settings,
    kernel::{KernelError, attach, clock::unix_now, machine, pins::Pins},
    observe::{condition::Condition, in_force, status::Status},
    paths,
    policy::machine::needs_attention,
    render,
    state::runtime::Runtime,
};

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Returns exit code 0 if there is nothing to attend to, 3 if something needs attention, 1 if nothing was ever
/// in force.
pub fn run(args: &StatusArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings(&args.config, out);
    let mut status = Status { flows: fates::read(&settings), ..read(&settings, out)? };
    let used = super::paths::in_use(&settings);
    let other = super::paths::note(&used, &settings);
    status.attention.extend(other.map(|note| format!("{}: {}", note.kind, note.message)));
    if status.daemon.is_none() {
        status.attention.extend(own_addresses::attention(&args.config));
    }
    if args.json {
        out.json(&status)?;
    } else {
        let mut text = Vec::new();
        render::status::print(&status, unix_now(), &mut text, out.width(), out.colour())?;
        out.folded(&text);
    }
    Ok(if status.attention.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(ATTENTION) })
}

/// The longest time for an answer. A change of 100,000 tuples keeps the daemon busy for a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Message for a host that was detached, and whose daemon does not run.
const DETACHED_WITHOUT_DAEMON: &str =
    "`pomguard detach` opened this host: every packet passes; `systemctl start pomguard` enforces again";

/// Returns the remarks about this machine that need attention. Returns none if the policy in force is not
/// known.
fn machine_now(settings: &Settings) -> Vec<String> {
    let history = History::open(&settings.paths.state);
    let (records, _) = history.list();
    let known = history::in_force(&records).and_then(|record| history.policy(record).ok());
    let notes = known.and_then(|(draft, policy)| {
        let policy = own_addresses::on(&draft.settings, policy.clone()).map_or(policy, |(on, _)| on);
        machine::compare(&draft.settings, &policy).ok()
    });
    let notes = notes.unwrap_or_default().into_iter().filter(needs_attention);
    notes.map(|note| format!("{}: {}", note.kind, note.message)).collect()
}

/// Returns the daemon's answer, or the state in the kernel if no daemon runs or answers.
pub(super) fn read(settings: &Settings, out: &mut Output) -> anyhow::Result<Status> {
    let used = super::paths::in_use(settings);
    let ask = || client::ask_within(&used.runtime, Request::Status, None, PATIENCE);
    let answer = out.busy("waiting for the daemon, at most 10 s", ask);
    match answer {
        Err(error) if error.is::<client::NoDaemon>() || error.is::<client::NoAnswer>() => {
            let interfaces: Vec<String> = settings.interfaces.iter().map(|at| at.value.clone()).collect();
            let pins = Pins::new(&used.pins);
            let runtime = Runtime::new(&used.runtime);
            let mut status = match runtime.not_enforcing() {
                Some(mark) => {
                    let attach = interfaces.iter().map(|name| attach::describe(&pins, name)).collect();
                    Status::not_enforcing(
                        format!("{}: {}", Condition::NotEnforcing.name(), mark.about),
                        attach,
                    )
                }
                None => match in_force::status(&pins, &interfaces) {
                    Err(KernelError::NotInstalled { .. }) if runtime.detached() => {
                        let attach = interfaces.iter().map(|name| attach::describe(&pins, name)).collect();
                        Status::not_enforcing(
                            format!("{}: {DETACHED_WITHOUT_DAEMON}", Condition::Detached.name()),
                            attach,
                        )
                    }
                    status => status?,
                },
            };
            let deadlines = render::status::deadlines(&status, unix_now());
            status.attention.extend(deadlines);
            // Without an answer, the files on disk name the user and the reason of each exception.
            if let Ok(scene) = Scene::open(&used) {
                let held = scene.exceptions().unwrap_or_default();
                explained(&mut status, &held, scene.recorded().unwrap_or_default().as_ref());
            }
            let hangs = error.is::<client::NoAnswer>();
            let remedy =
                if hangs { ": `systemctl restart pomguard`; what is in force stays in force" } else { "" };
            status.attention.push(format!("{error}{remedy}"));
            status.attention.extend(machine_now(settings));
            Ok(status)
        }
        answer => answer,
    }
}
