//! `pomguard panic`: suspends the policy for a while, one way or the other.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::ValueEnum;

use super::{apply::runtime, duration, output::Output};
use crate::{
    control::{
        client,
        protocol::{Panic, Request},
    },
    paths,
    render::quantity,
    terminals,
};

/// What to do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// Only failsafe rows hold; everything else is dropped
    Isolate,
    /// Nothing is dropped; everything is counted as the policy would have judged it
    Open,
    /// The policy holds again
    Off,
}

/// Options of `panic`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[arg(value_enum)]
    pub what: What,
    /// For how long (10m, 2h), at most a day; it ends by itself, whether or not the daemon lives
    #[arg(long = "for", value_name = "TIME", value_parser = duration::seconds, required_if_eq_any = [("what", "isolate"), ("what", "open")])]
    pub time: Option<u32>,
    /// What for: kept in the journal
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Do not tell those who are logged in
    #[arg(long)]
    pub quiet: bool,
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
}

/// Exit code 0 when it was done.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    let kind = match args.what {
        What::Isolate => Panic::Isolate,
        What::Open => Panic::Open,
        What::Off => return say(args, Request::PanicOff, out),
    };
    let Some(seconds) = args.time else { bail!("say for how long: --for 10m") };
    if !args.yes {
        ask(kind, seconds, out)?;
    }
    say(args, Request::Panic { kind, seconds }, out)
}

fn say(args: &Args, request: Request, out: &mut Output) -> anyhow::Result<ExitCode> {
    let message: String = client::ask(&runtime(&args.config), request, args.why.as_deref())?;
    if !args.quiet {
        terminals::tell(&message);
    }
    out.line(message);
    Ok(ExitCode::SUCCESS)
}

fn ask(kind: Panic, seconds: u32, out: &mut Output) -> anyhow::Result<()> {
    let effect = match kind {
        Panic::Isolate => "drops everything but failsafe rows, live calls too,",
        Panic::Open => "drops nothing, whoever sends it,",
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
