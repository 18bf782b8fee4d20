//! `pomguard detach`: detaches the programs and opens the host.

use std::{fmt, path::PathBuf, process::ExitCode};

use anyhow::{anyhow, bail};
use serde::Serialize;

use super::output::Output;
use crate::{
    daemon::audit,
    history::History,
    input::settings::Settings,
    kernel::{attach, interface, minimal, pins::Pins},
    paths,
    state::runtime::Runtime,
};

/// Options of `detach`.
#[derive(Debug, clap::Args)]
pub struct DetachArgs {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// Reason, kept in the history and in the journal
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
}

/// The answer of `detach`.
#[derive(Serialize)]
struct Answer<'a> {
    /// The interfaces that are open now.
    detached: &'a [&'a str],
    /// The interfaces that are still guarded; the error says why.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    kept: &'a [&'a str],
    /// The problem that is left, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Returns exit code 0 if nothing of pomguard is attached any more.
pub fn run(args: &DetachArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings_in_use(&args.config, out);
    let pins = Pins::new(&settings.paths.pins);
    let runtime = Runtime::new(&settings.paths.runtime);
    pins.readable()?;
    let attached = attach::attached(&pins);
    if attached.is_empty() {
        // A host that is held closed has none of the real programs.
        if runtime.not_enforcing().is_none()
            && let Some(other) = other_program(&settings)
        {
            bail!("nothing was changed: {other}");
        }
        say(args, out, format_args!("nothing is attached by the pins in {}", settings.paths.pins.display()));
    }
    if !args.yes {
        confirm(&attached.iter().map(|info| info.interface.as_str()).collect::<Vec<_>>().join(", "), out)?;
    }
    // A running daemon changes nothing meanwhile, and sees the mark before its next check.
    let _change = runtime.change()?;
    runtime.mark_detached()?;
    // An interface that cannot be detached does not keep the others attached.
    let (mut opened, mut kept, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for info in &attached {
        match attach::detach(&pins, &info.interface) {
            Ok(()) => {
                say(args, out, format_args!("{}: detached, every packet passes", info.interface));
                opened.push(info.interface.as_str());
            }
            Err(error) => {
                kept.push(info.interface.as_str());
                problems.push(format!("{}: {:#}", info.interface, anyhow!(error)));
            }
        }
    }
    let event = audit::detached(&opened, &problems, args.why.as_deref());
    // The host is open already: a disk that takes no line is no reason to stop.
    if let Err(error) = History::open(&settings.paths.state).note(&event) {
        out.complain(format_args!("pomguard: warning: the history does not have this detach: {error}"));
    }
    if !kept.is_empty() {
        let error =
            format!("still attached, `pomguard detach` again once this is mended: {}", problems.join("; "));
        if args.json {
            out.json(&Answer { detached: &opened, kept: &kept, error: Some(&error) })?;
        }
        bail!(error);
    }
    if let Some(mark) = runtime.not_enforcing() {
        minimal::end(&pins, mark.table)?;
        runtime.clear_not_enforcing()?;
        say(args, out, "what held the host closed while its kernel refused the programs is gone");
    }
    pins.remove()?;
    if let Some(other) = other_program(&settings) {
        out.complain(format_args!("pomguard: warning: {other}"));
    }
    if args.json {
        out.json(&Answer { detached: &opened, kept: &kept, error: None })?;
    }
    say(
        args,
        out,
        "counters and flows are gone; a daemon that still runs leaves the host open until it is restarted: \
         `systemctl restart pomguard`",
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes a line for people. JSON is one object at the end.
fn say(args: &DetachArgs, out: &mut Output, line: impl fmt::Display) {
    if !args.json {
        out.folded(format!("{line}\n").as_bytes());
    }
}

/// Returns a sentence about an interface of the settings on which a program runs that no pin there holds. Other
/// settings may have attached the program: the folder of the pins may have changed since.
fn other_program(settings: &Settings) -> Option<String> {
    let name = settings.interfaces.iter().map(|at| at.value.as_str());
    let mut found =
        name.filter_map(|name| Some((name, interface::xdp(interface::index(name).ok()?).ok()??.program)));
    let (name, program) = found.next()?;
    Some(format!(
        "{name} runs the XDP program {program}, which no pin in {} holds: if pomguard attached it, say the \
         `paths.pins` of then, and detach again (`bpftool prog show id {program}` names it)",
        settings.paths.pins.display()
    ))
}

fn confirm(interfaces: &str, out: &mut Output) -> anyhow::Result<()> {
    let answer = out.ask(
        &format!("This opens {interfaces} to every packet, and forgets the counters. Type `open` to go on: "),
        &format!("this opens {interfaces} to every packet: say --yes to do it without being asked"),
    )?;
    if answer.trim() != "open" {
        bail!("nothing was changed");
    }
    Ok(())
}
