//! `pomguard status`: what is in force, and what is not as it should be.

use std::{path::PathBuf, process::ExitCode};

use super::{ATTENTION, fates, machine, output::Output};
use crate::{
    control::{client, protocol::Request},
    daemon::{emergency::Scene, exceptions::explained},
    input::settings::Settings,
    kernel::{attach, clock::unix_now, pins::Pins},
    observe::{condition::Condition, in_force, status::Status},
    paths, render,
    state::runtime::Runtime,
};

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when all is as it should be, 3 when something is not, 1 when nothing is in force.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings(&args.config, out);
    let mut status = Status { flows: fates::read(&settings), ..read(&settings)? };
    if status.daemon.is_none() {
        status.attention.extend(machine::attention(&args.config));
    }
    if args.json {
        out.json(&status)?;
    } else {
        render::status::print(&status, unix_now(), out)?;
    }
    Ok(if status.attention.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(ATTENTION) })
}

/// The daemon's answer; without a daemon what the kernel says.
pub(super) fn read(settings: &Settings) -> anyhow::Result<Status> {
    match client::ask(&settings.paths.runtime, Request::Status, None) {
        Err(error) if error.is::<client::NoDaemon>() => {
            let interfaces: Vec<String> = settings.interfaces.iter().map(|at| at.value.clone()).collect();
            let pins = Pins::new(&settings.paths.pins);
            let mut status = match Runtime::new(&settings.paths.runtime).not_enforcing() {
                Some(mark) => {
                    let attach = interfaces.iter().map(|name| attach::describe(&pins, name)).collect();
                    Status::not_enforcing(
                        format!("{}: {}", Condition::NotEnforcing.name(), mark.about),
                        attach,
                    )
                }
                None => in_force::status(&pins, &interfaces)?,
            };
            // Without a daemon the disk says who granted what, and why.
            if let Ok(scene) = Scene::open(&settings.paths) {
                let held = scene.exceptions().unwrap_or_default();
                explained(&mut status, &held, scene.recorded().unwrap_or_default().as_ref());
            }
            status.attention.push(format!("{error}"));
            Ok(status)
        }
        answer => answer,
    }
}
