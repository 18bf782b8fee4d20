//! `pomguard explain`: the verdict on a packet and the reason, from the policy and from the kernel.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use pomguard_common::decide::NO_ROW;
use serde::Serialize;

use super::{ATTENTION, FAULT, Usage, output::Output, own_addresses};
use crate::{
    input::Draft,
    kernel::{KernelError, counters, frame, interface, pins::Pins, probe::Probe},
    paths,
    policy::{self, Mode, RowId, explain, oracle::Opening},
    render,
};

/// Options of `explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Source: an address, with or without a port (`10.50.0.7`, `10.50.0.7:40000`, `[fd00::7]:40000`)
    #[arg(value_name = "SRC[:PORT]")]
    pub source: String,
    /// Destination: address, port and protocol (`10.20.0.11:9970/tcp`)
    #[arg(value_name = "DST:PORT/PROTO")]
    pub destination: String,
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Use only the files, not the kernel
    #[arg(long)]
    pub offline: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// The verdict of the loaded program.
#[derive(Clone, Debug, Serialize)]
struct Kernel {
    passes: bool,
    reason: &'static str,
    help: &'static str,
    audited: bool,
    row: Option<RowId>,
}

/// The answers of the policy and of the kernel.
#[derive(Serialize)]
struct Answer<'a> {
    policy: &'a explain::Explanation,
    kernel: Option<Kernel>,
    agree: Option<bool>,
}

/// Returns exit code 0 if the packet passes, 3 if it is dropped or would be dropped in enforce, and 1 if policy
/// and kernel disagree.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    let draft = Draft::load(&args.config)?;
    let policy = policy::resolve(&draft, &interface::addresses()?)?;
    let policy = own_addresses::on(&draft.settings, policy.clone()).map_or(policy, |(on, _)| on);
    let opening = explain::question(&policy, &args.source, &args.destination)
        .map_err(|error| Usage(format!("{}: {}", error.problem, error.remedy)))?;
    let explanation = explain::explain(&policy, &opening);
    let kernel = if args.offline { None } else { ask(&Pins::new(&draft.settings.paths.pins), &opening)? };
    let agree = kernel.as_ref().map(|kernel| {
        kernel.passes == explanation.passes
            && kernel.row == explanation.row.as_ref().map(|row| row.id.clone())
    });
    let drops = match &kernel {
        Some(kernel) => !kernel.passes || kernel.audited,
        None => explanation.row.is_none() && explanation.mode != Mode::Track,
    };
    if args.json {
        let answer = Answer { policy: &explanation, kernel, agree };
        out.json(&answer)?;
    } else {
        render::explain::print(&explanation, out)?;
        match &kernel {
            Some(kernel) => tell(kernel, out),
            None => out.line("  kernel   not asked: nothing is in force here, or --offline"),
        }
    }
    if agree == Some(false) {
        out.complain(
            "pomguard: DISAGREEMENT: the files say one thing, the kernel does another. Either the files \
             were changed and not applied (`systemctl reload pomguard`), or this is a fault in pomguard: report it",
        );
        return Ok(ExitCode::from(FAULT));
    }
    Ok(if drops { ExitCode::from(ATTENTION) } else { ExitCode::SUCCESS })
}

fn tell(kernel: &Kernel, out: &mut Output) {
    let verdict = match (kernel.passes, kernel.audited) {
        (true, true) => "PASS in audit, would be dropped",
        (true, false) => "PASS",
        (false, _) => "DROP",
    };
    let row = kernel.row.as_ref().map_or_else(String::new, |row| format!(", row {row}"));
    out.line(format_args!("  kernel   {verdict}: {}{row}. {}", kernel.reason, kernel.help));
}

/// Runs the opening packet through the program, on the policy in force. Returns `None` if nothing is in force.
fn ask(pins: &Pins, opening: &Opening) -> anyhow::Result<Option<Kernel>> {
    let names = match counters::row_slots(pins) {
        Ok(names) => names,
        Err(KernelError::NotInstalled { .. }) => return Ok(None),
        Err(error) => return Err(error).context("ask the kernel (`--offline` does without)"),
    };
    let frame = frame::opening(opening).context("source and destination are of different IP versions")?;
    let mut probe = Probe::of_installed(pins, names.iter().map(|(slot, ..)| *slot).collect())?;
    let finding = probe.run(opening.direction, &frame)?;
    let row = names
        .into_iter()
        .find(|(slot, ..)| finding.row != NO_ROW && *slot == finding.row)
        .map(|(_, id, _)| id);
    Ok(Some(Kernel {
        passes: finding.passes,
        reason: finding.reason.name(),
        help: finding.reason.help(),
        audited: finding.audited,
        row,
    }))
}
