//! `cargo xtask bench`: the cost of a packet on this machine, against a floor measured in the same run.
//!
//! ```text
//! policy ─┬─ guard (a real pomguard with that policy) ─┬─ program: ns per run of the programs
//!         └─ traffic ──────────────────────────────────┴─ live: ns per packet of the whole receive path
//! ```

#![expect(
    clippy::cast_precision_loss,
    reason = "packets, bytes and nanoseconds of a bench are far below 2^52"
)]

mod change;
mod figures;
mod filter;
mod footprint;
mod guard;
mod host;
mod live;
mod mix;
mod policy;
mod program;
mod random;
mod report;
mod sender;
mod service;
mod shuffler;
mod traffic;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use pomguard_netlab::sandbox::{self, Sandbox};
use pomguard_workspace::{
    self as workspace,
    build::{self, Profile},
    process,
};

use self::figures::{Circumstances, Figures};

/// Measure the cost of a packet, over a floor of the same run
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Args {
    /// Measure only this part
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Measure fewer policies with fewer repeats
    #[arg(long)]
    quick: bool,
    /// Also measure this eBPF object, alongside the committed one in the same run (repeatable)
    #[arg(long, value_name = "PATH")]
    object: Vec<PathBuf>,
    #[command(flatten)]
    programs: program::Only,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write figures and plots into `docs/performance`, for the parts that were measured
    #[arg(long)]
    record: bool,
    /// Use this pomguard instead of building one
    #[arg(long, value_name = "PATH")]
    pomguard: Option<PathBuf>,
}

/// A part of the bench that can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Nanoseconds per run of the programs, over varied packets
    Program,
    /// Processor time per packet of the whole receive path, compared with other filters
    Live,
    /// Duration of policy changes, and packets lost, under full load
    Change,
    /// Throughput and latency of TCP
    Service,
    /// Memory, processor time at rest, and scrapes
    Footprint,
}

/// The common settings of all parts.
struct Setting {
    /// The pomguard that compiles and installs the policies.
    binary: PathBuf,
    sandbox: Sandbox,
    quick: bool,
    started: Instant,
}

impl Setting {
    /// Prints one line on stderr about the next step.
    fn say(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.started.elapsed().as_secs_f32());
    }
}

fn main() -> ExitCode {
    pomguard_workspace::exit(run(&Args::parse()))
}

/// Installs the filters that pomguard is compared with, if they are missing.
fn install_filters() -> Result<()> {
    process::run(workspace::cargo("xtask").args(["setup", "--only", "filters"]))
}

/// Runs the benches, one after the other.
fn run(args: &Args) -> Result<()> {
    sandbox::require_root()?;
    let binary = match &args.pomguard {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => build::daemon(Profile::Release)?,
    };
    let objects =
        args.object.iter().map(|path| path.canonicalize().with_context(|| path.display().to_string()));
    let objects = objects.collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let setting = Setting { binary, sandbox: sandbox::enter()?, quick: args.quick, started };
    let asked = |part| args.only.is_empty() || args.only.contains(&part);
    let circumstances = Circumstances::now()?;
    let mut figures = Figures::default();
    // Stores the figures after each part, so that a part that fails does not lose the figures before it.
    let keep = |figures: &Figures| -> Result<()> {
        if let Some(path) = &args.json {
            figures.write(path)?;
        }
        if args.record { report::record(figures) } else { Ok(()) }
    };
    if asked(Part::Program) {
        figures.program = Some(circumstances.measured(program::run(&setting, &objects, &args.programs)?));
        keep(&figures)?;
    }
    if [Part::Live, Part::Change, Part::Service].into_iter().any(asked) {
        install_filters()?;
    }
    if asked(Part::Live) {
        figures.live = Some(circumstances.measured(live::run(&setting)?));
        keep(&figures)?;
    }
    if asked(Part::Change) {
        figures.change = Some(circumstances.measured(change::run(&setting)?));
        keep(&figures)?;
    }
    if asked(Part::Service) {
        figures.service = Some(circumstances.measured(service::run(&setting)?));
        keep(&figures)?;
    }
    if asked(Part::Footprint) {
        figures.footprint = Some(circumstances.measured(footprint::run(&setting)?));
        keep(&figures)?;
    }
    setting.say("done");
    report::print(&figures)?;
    Ok(())
}
