//! `pomguard doctor`: examines this machine for obstacles to enforcement.

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;

use super::{ATTENTION, FAULT, output::Output};
use crate::{
    input::settings::Settings,
    kernel::{doctor::MachineFacts, pins::Pins},
    observe::doctor::{self, Finding, Severity},
    paths, render,
};

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The daemon's settings, whose interfaces are examined; without such a file, all interfaces are
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// The findings as `--json` writes them.
#[derive(Serialize)]
struct Report<'a> {
    /// The worst severity of all findings.
    worst: Severity,
    findings: &'a [Finding],
}

/// Returns exit code 0 if all is good, 3 if something needs attention, 1 if pomguard cannot enforce here.
pub fn run(args: &DoctorArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    // `check` reports settings that are missing or broken.
    let mut settings = Settings::load(&args.config).ok();
    if let Some(settings) = &mut settings {
        super::paths::go_by_those_in_use(settings, out);
    }
    let pins = settings.as_ref().map_or_else(|| paths::PINS.into(), |it| it.paths.pins.clone());
    let interfaces: Vec<String> =
        settings.iter().flat_map(|it| &it.interfaces).map(|interface| interface.value.clone()).collect();
    let findings = doctor::judge(&MachineFacts::read(&Pins::new(&pins)), &interfaces);
    let worst = doctor::worst(&findings);
    if args.json {
        out.json(&Report { worst, findings: &findings })?;
    } else {
        render::doctor::print(&findings, out)?;
    }
    Ok(match worst {
        Severity::Failed => ExitCode::from(FAULT),
        Severity::Attention => ExitCode::from(ATTENTION),
        Severity::Note | Severity::Good => ExitCode::SUCCESS,
    })
}
