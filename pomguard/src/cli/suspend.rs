//! `pomguard bypass` and `pomguard lockdown`: suspend the policy for a limited time.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;

use super::{
    Usage, duration,
    emergency::Verb,
    output::Output,
    way_in::{self, ToCome},
};
use crate::{
    control::protocol::{Request, SuspensionKind},
    input::settings::Settings,
    kernel::clock::unix_now,
    paths,
    render::quantity,
    terminals,
};

/// Options of `bypass` and `lockdown`.
#[derive(Clone, Debug, clap::Args)]
pub struct SuspendArgs {
    /// Duration (10m, 2h), at most a day; the kernel ends the suspension on time, also without the daemon
    #[arg(long = "for", value_name = "TIME", value_parser = duration::up_to::<{ duration::DAY }>, required_unless_present = "off")]
    pub time: Option<u32>,
    /// End the bypass or the lockdown: the policy holds again
    #[arg(long, conflicts_with = "time")]
    pub off: bool,
    #[command(flatten)]
    pub(super) common: SuspendOptions,
}

/// Options of every way to suspend the policy.
#[derive(Clone, Debug, clap::Args)]
pub struct SuspendOptions {
    /// The reason, for the journal
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Do not ask, and go on even if this cuts the session of this command
    #[arg(long)]
    pub yes: bool,
    /// Do not notify the users who are logged in
    #[arg(long)]
    pub quiet: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
}

/// The argument of `panic`, the former spelling.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Former {
    /// `lockdown`
    Isolate,
    /// `bypass`
    Open,
    /// `bypass --off`
    Off,
}

/// Options of `panic`, the former spelling.
#[derive(Clone, Debug, clap::Args)]
pub struct FormerArgs {
    /// The kind
    #[arg(value_enum)]
    pub what: Former,
    /// As for `bypass`
    #[arg(long = "for", value_name = "TIME", value_parser = duration::up_to::<{ duration::DAY }>, required_if_eq_any = [("what", "isolate"), ("what", "open")])]
    pub time: Option<u32>,
    #[command(flatten)]
    pub(super) common: SuspendOptions,
}

/// The answer of a verb that begins or ends a suspension.
#[derive(Serialize)]
struct Suspended<'a> {
    /// The bypass or lockdown that holds now, as in `status`.
    suspension: Option<Held>,
    /// The sentence for people.
    message: &'a str,
}

/// A suspension that holds.
#[derive(Serialize)]
struct Held {
    kind: SuspensionKind,
    /// Seconds since 1970 at which the suspension ends.
    ends: u64,
}

/// Runs `bypass` or `lockdown`. Returns exit code 0 on success.
pub fn run(kind: SuspensionKind, args: &SuspendArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    suspend((!args.off).then_some(kind), args.time, &args.common, out)
}

/// Runs `panic`, the former spelling of both.
pub fn run_former(args: &FormerArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let kind = match args.what {
        Former::Isolate => Some(SuspensionKind::Lockdown),
        Former::Open => Some(SuspensionKind::Bypass),
        Former::Off => None,
    };
    suspend(kind, args.time, &args.common, out)
}

/// Suspends the policy, or ends a suspension if there is no `kind`.
fn suspend(
    kind: Option<SuspensionKind>,
    time: Option<u32>,
    args: &SuspendOptions,
    out: &mut Output,
) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings_in_use(&args.config, out);
    if !args.yes
        && let Some(refused) = refusal(kind, &settings, out)
    {
        return Ok(refused);
    }
    let Some(kind) = kind else { return say(args, &settings, &Request::Resume, out) };
    let Some(seconds) = time else { return Err(Usage("say for how long: --for 10m".to_owned()).into()) };
    if !args.yes {
        ask(kind, seconds, out)?;
    }
    say(args, &settings, &Request::Suspend { kind, seconds }, out)
}

/// Returns the exit code if this would cut the operator's access. A lockdown leaves only failsafe rows, and the
/// end of a bypass leaves only the rows of the policy.
fn refusal(kind: Option<SuspensionKind>, settings: &Settings, out: &mut Output) -> Option<ExitCode> {
    if kind == Some(SuspensionKind::Bypass) {
        return None;
    }
    let policy = way_in::in_force(settings)?;
    let failsafe_only = kind.is_some();
    way_in::refusal(&ToCome { before: Some(&policy), after: &policy, failsafe_only }, settings, out)
}

fn say(
    args: &SuspendOptions,
    settings: &Settings,
    request: &Request,
    out: &mut Output,
) -> anyhow::Result<ExitCode> {
    let verb = Verb { request: request.clone(), why: args.why.clone(), at_any_rate: true };
    let message: String = verb.run(settings, out, |scene, asker| match request {
        Request::Suspend { kind, seconds } => scene.suspend(*kind, *seconds, asker),
        _ => scene.resume(asker),
    })?;
    if !args.quiet {
        terminals::tell(&message);
    }
    let (suspension, back) = match request {
        Request::Suspend { kind, seconds } => (
            Some(Held { kind: *kind, ends: unix_now() + u64::from(*seconds) }),
            format!(", then the policy holds again: `pomguard {} --off` ends it before", kind.name()),
        ),
        _ => (None, String::new()),
    };
    if args.json {
        out.json(&Suspended { suspension, message: &message })?;
    } else {
        out.folded(format!("{message}{back}\n").as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(kind: SuspensionKind, seconds: u32, out: &mut Output) -> anyhow::Result<()> {
    let effect = match kind {
        SuspensionKind::Lockdown => "drops everything but failsafe rows, live calls too,",
        SuspensionKind::Bypass => "drops nothing, whoever sends it,",
    };
    let time = quantity::duration(seconds.into());
    let answer = out.ask(
        &format!("This {effect} for {time}. Type `{}` to go on: ", kind.name()),
        &format!("this {effect} for {time}: say --yes to do it without being asked"),
    )?;
    if answer.trim() != kind.name() {
        bail!("nothing was changed");
    }
    Ok(())
}
