//! `pomguard apply`, `confirm` and `rollback`: change what is in force, through the daemon.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;

use super::{duration, output::Output, session};
use crate::{
    control::{
        client,
        protocol::{Changed, Request},
    },
    input::{Draft, Files, settings::Settings},
    kernel::{clock::unix_now, interface},
    paths,
    policy::{self, impact::WayIn},
    render::{explain::described, quantity},
    terminals,
};

/// Options that every change has.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// What for: kept in the history and in the journal
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Do not tell those who are logged in
    #[arg(long)]
    pub quiet: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `apply`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Those of every change
    #[command(flatten)]
    pub common: Common,
    /// Return to what is in force now unless `pomguard confirm` comes within this time (60s, 10m)
    #[arg(long, value_name = "TIME", value_parser = duration::seconds)]
    pub confirm_within: Option<u32>,
    /// Apply even what would cut the session that this is typed in
    #[arg(long)]
    pub yes: bool,
}

/// Options of `confirm`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfirmArgs {
    /// Those of every change
    #[command(flatten)]
    pub common: Common,
}

/// Options of `rollback`.
#[derive(Clone, Debug, clap::Args)]
pub struct RollbackArgs {
    /// The change to return to, as `pomguard history` numbers it; without it what waits for its
    /// confirmation is taken back, or else the change before the one in force returns
    #[arg(value_name = "NUMBER")]
    pub to: Option<u64>,
    /// Those of every change
    #[command(flatten)]
    pub common: Common,
    /// Undo the return unless `pomguard confirm` comes within this time
    #[arg(long, value_name = "TIME", value_parser = duration::seconds)]
    pub confirm_within: Option<u32>,
}

/// Exit code 0 when it is in force, 1 when it was refused and nothing was changed.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    if args.confirm_within.is_none() && !args.yes {
        hold_the_way_in(&args.common.config)?;
    }
    change(&args.common, Request::Apply { confirm_within: args.confirm_within }, out)
}

/// Exit code 0 when what waited is confirmed.
pub fn confirm(args: &ConfirmArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    change(&args.common, Request::Confirm, out)
}

/// Exit code 0 when the earlier policy is in force.
pub fn rollback(args: &RollbackArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    change(&args.common, Request::Rollback { to: args.to, confirm_within: args.confirm_within }, out)
}

/// Refuses what would lock out whoever types it. What is wrong with the files is for the daemon to say.
fn hold_the_way_in(config: &Path) -> anyhow::Result<()> {
    let Some(session) = session::ssh() else { return Ok(()) };
    let Ok(draft) = Draft::load(config) else { return Ok(()) };
    let Ok(policy) = policy::resolve(&draft, &interface::addresses()?) else { return Ok(()) };
    if policy.local.contains(&session.destination) && WayIn::under(&policy, &session) == WayIn::Cut {
        bail!(
            "this would cut your own session ({}): add an [[allow]] for it with failsafe = true, or try it with \
             --confirm-within 60s, or say --yes",
            described(&session)
        );
    }
    Ok(())
}

fn change(common: &Common, request: Request, out: &mut Output) -> anyhow::Result<ExitCode> {
    let runtime = runtime(&common.config);
    let verb = request.verb();
    let changed: Changed = client::ask(&runtime, request, common.why.as_deref())?;
    if !common.quiet {
        terminals::tell(&message(verb, &changed));
    }
    if common.json {
        out.json(&changed)?;
    } else {
        print(verb, &changed, out)?;
    }
    if changed.notes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("{}", changed.notes.join("; "))
}

/// Returns the folder of the socket. Settings that are broken, or in other hands, are the daemon's to refuse, with
/// all that is wrong with them; whoever asks makes sure that it is the daemon who answers.
pub(super) fn runtime(config: &Path) -> PathBuf {
    Settings::read(&mut Files::reported(), config)
        .map_or_else(|_| paths::RUNTIME.into(), |settings| settings.paths.runtime)
}

/// A sentence for those who are logged in.
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
    writeln!(
        out,
        "{verb}: {number}, generation {}: inbound {}, outbound {}, {} tuples ({} rows), {} ms",
        changed.generation,
        changed.inbound.name(),
        changed.outbound.name(),
        quantity::grouped(changed.tuples as u64),
        changed.summary,
        changed.took_ms
    )?;
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
