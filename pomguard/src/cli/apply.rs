//! `pomguard apply`, `confirm` and `rollback`: change the policy in force, through the daemon.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;

use super::{
    duration,
    output::Output,
    way_in::{self, ToCome},
};
use crate::{
    control::{
        client,
        protocol::{Changed, Request},
    },
    history::Existing,
    input::{Draft, Files, settings::Settings},
    kernel::{clock::unix_now, interface},
    paths,
    policy::{self, Policy},
    render::quantity,
    terminals,
};

/// Options of every change.
#[derive(Clone, Debug, clap::Args)]
pub struct ChangeOptions {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Reason, kept in the history and in the journal
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Go on even if this cuts the session that it is typed in or a flow on a failsafe row, or takes the guard off an
    /// interface
    #[arg(long)]
    pub yes: bool,
    /// Do not notify the users who are logged in
    #[arg(long)]
    pub quiet: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `apply`.
#[derive(Clone, Debug, clap::Args)]
pub struct ApplyArgs {
    /// Options of every change.
    #[command(flatten)]
    pub common: ChangeOptions,
    /// Return to the policy in force now unless `pomguard confirm` comes within this time (60s, 10m), at most a day
    #[arg(long, value_name = "TIME", value_parser = duration::up_to::<{ duration::DAY }>)]
    pub confirm_within: Option<u32>,
    /// End at once the live flows that no row allows, also flows that are older than the first start
    #[arg(long, conflicts_with = "keep_existing")]
    pub cut: bool,
    /// Let the live flows that no row allows go on until they end
    #[arg(long)]
    pub keep_existing: bool,
}

/// Options of `confirm`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfirmArgs {
    /// Options of every change.
    #[command(flatten)]
    pub common: ChangeOptions,
}

/// Options of `rollback`.
#[derive(Clone, Debug, clap::Args)]
pub struct RollbackArgs {
    /// The change to return to, as `pomguard history` numbers it; without a number, take back the pending
    /// change, or else return to the change before the one in force
    #[arg(value_name = "NUMBER")]
    pub to: Option<u64>,
    /// Options of every change.
    #[command(flatten)]
    pub common: ChangeOptions,
    /// Undo the return unless `pomguard confirm` comes within this time, at most a day
    #[arg(long, value_name = "TIME", value_parser = duration::up_to::<{ duration::DAY }>)]
    pub confirm_within: Option<u32>,
}

/// Returns exit code 0 if the files are in force, 1 if they were refused and nothing was changed, 3 if they
/// would cut the operator's access.
pub fn run(args: &ApplyArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    if let Some(refused) = refusal(&args.common, out, |settings| {
        // The daemon reports faults in the files.
        let draft = Draft::load(&args.common.config).ok()?;
        Some((way_in::in_force(settings), policy::resolve(&draft, &interface::addresses().ok()?).ok()?))
    }) {
        return Ok(refused);
    }
    let existing = match (args.cut, args.keep_existing) {
        (true, _) => Existing::Cut,
        (_, true) => Existing::Keep,
        _ => Existing::ByPolicy,
    };
    let request = Request::Apply { confirm_within: args.confirm_within, existing, yes: args.common.yes };
    change(&args.common, request, out)
}

/// Returns exit code 0 if the pending change is confirmed, 3 if that would cut the operator's access for good.
pub fn confirm(args: &ConfirmArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let pending = |settings: &Settings| Some((way_in::confirmed(settings), way_in::in_force(settings)?));
    if let Some(refused) = refusal(&args.common, out, pending) {
        return Ok(refused);
    }
    change(&args.common, Request::Confirm, out)
}

/// Returns exit code 0 if the earlier policy is in force, 3 if that would cut the operator's access.
pub fn rollback(args: &RollbackArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    if let Some(refused) = refusal(&args.common, out, |settings| {
        Some((way_in::in_force(settings), way_in::rolled_back(settings, args.to)?))
    }) {
        return Ok(refused);
    }
    let request =
        Request::Rollback { to: args.to, confirm_within: args.confirm_within, yes: args.common.yes };
    change(&args.common, request, out)
}

/// Returns the exit code if the change would cut the operator's access and there is no `--yes`. `policies`
/// returns the policy in force, if known, and the policy after the change. If the latter is not known, the
/// daemon decides.
fn refusal(
    common: &ChangeOptions,
    out: &mut Output,
    policies: impl FnOnce(&Settings) -> Option<(Option<Policy>, Policy)>,
) -> Option<ExitCode> {
    if common.yes {
        return None;
    }
    let settings = Settings::read(&mut Files::reported(), &common.config).ok()?;
    let (before, after) = policies(&settings)?;
    let to_come = ToCome { before: before.as_ref(), after: &after, failsafe_only: false };
    way_in::refusal(&to_come, &settings, out)
}

fn change(common: &ChangeOptions, request: Request, out: &mut Output) -> anyhow::Result<ExitCode> {
    let runtime = runtime(&common.config, out);
    let verb = request.verb();
    let why = common.why.as_deref();
    let changed: Changed = out.busy("the daemon is at work", || client::ask(&runtime, request, why))?;
    if !common.quiet && changed.changed {
        terminals::tell(&message(verb, &changed));
    }
    if common.json {
        out.json(&changed)?;
    } else {
        let mut text = Vec::new();
        print(verb, &changed, &mut text)?;
        out.folded(&text);
    }
    if changed.notes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("{}", changed.notes.join("; "))
}

/// Returns the folder of the socket. Settings that are broken, or that another user could change, are refused
/// by the daemon, with all faults; the client verifies that the daemon answers.
pub(super) fn runtime(config: &Path, out: &mut Output) -> PathBuf {
    let Ok(mut settings) = Settings::read(&mut Files::reported(), config) else {
        return paths::RUNTIME.into();
    };
    super::paths::go_by_those_in_use(&mut settings, out);
    settings.paths.runtime
}

/// Returns a sentence for the users who are logged in.
fn message(verb: &str, changed: &Changed) -> String {
    let number = changed.number.map_or_else(String::new, |number| format!(" {number}"));
    match changed.confirm_by {
        Some(at) => format!(
            "change{number} of the policy is in force and is taken back in {} unless somebody runs `pomguard confirm`",
            quantity::duration(at.saturating_sub(unix_now()))
        ),
        None => format!("{verb}: change{number} of the policy is in force"),
    }
}

fn print(verb: &str, changed: &Changed, out: &mut impl io::Write) -> io::Result<()> {
    let number =
        changed.number.map_or_else(|| "not in the history".to_owned(), |number| format!("change {number}"));
    if !changed.changed {
        return writeln!(
            out,
            "{verb}: nothing changes: {number}, generation {} is in force",
            changed.generation
        );
    }
    for interface in &changed.unguarded {
        let when = if changed.confirm_by.is_some() {
            "loses its guard at `pomguard confirm`"
        } else {
            "LOST ITS GUARD"
        };
        writeln!(out, "{interface} {when}: nothing that comes in by it is filtered then")?;
    }
    writeln!(
        out,
        "{verb}: {number}, generation {}: inbound {}, outbound {}, {} tuples (rows {}), {} ms",
        changed.generation,
        changed.inbound.name(),
        changed.outbound.name(),
        quantity::grouped(changed.tuples as u64),
        changed.summary,
        changed.took_ms
    )?;
    if let Some(flows) = changed.existing {
        writeln!(out, "{flows} live flows that no row allows were ended or kept, as asked for")?;
    }
    for setting in &changed.settings {
        writeln!(out, "  {}", setting.text())?;
    }
    if let Some(at) = changed.confirm_by {
        writeln!(
            out,
            "NOT CONFIRMED: in {} the policy before it returns by itself. Open a new session to see that you \
             still can, then: pomguard confirm",
            quantity::duration(at.saturating_sub(unix_now()))
        )?;
    }
    Ok(())
}
