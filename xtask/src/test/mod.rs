//! `cargo xtask test`: everything that can be checked, in stages; what was not run is named.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::setup;

pub(crate) mod kernel;
pub(crate) mod other_kernel;
mod shipped;
mod source;
mod stages;

use stages::{Outcome, STAGES, Stage};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing; stages that lack their tool are not run
    #[arg(long)]
    no_install: bool,
    /// A stage that was not run is a failure
    #[arg(long)]
    no_skips: bool,
    /// Which eBPF object the in-kernel tests run on
    #[arg(long, value_enum, default_value_t = Objects::Committed)]
    object: Objects,
    /// Name the stages and end
    #[arg(long)]
    list: bool,
    /// Run only these stages
    #[arg(long, value_name = "STAGE", num_args = 1.., value_parser = stages::names())]
    only: Vec<String>,
    /// Leave these stages out
    #[arg(long, value_name = "STAGE", num_args = 1.., value_parser = stages::names())]
    skip: Vec<String>,
}

/// Which objects the in-kernel tests run on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Objects {
    /// Built now, from the sources.
    Fresh,
    /// The one in the tree.
    Committed,
    /// One after the other.
    Both,
}

/// What one stage came to.
enum Verdict {
    Passed(String),
    Failed(String),
    NotRun(String),
}

struct Finished {
    stage: &'static Stage,
    verdict: Verdict,
    took: Duration,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&'static Stage> = STAGES.iter().filter(|stage| is_chosen(args, stage)).collect();
    if args.list {
        for stage in chosen {
            println!("{:<22} {}", stage.name, stage.title);
        }
        return Ok(());
    }
    if chosen.is_empty() {
        bail!("no stage is left: `cargo xtask test --list` names them");
    }
    install(args, &chosen);
    let mut finished = Vec::new();
    for stage in chosen {
        println!("\n=== {}: {}", stage.name, stage.title);
        let start = Instant::now();
        let verdict = match (stage.run)(args.object) {
            Ok(Outcome::Passed(note)) => Verdict::Passed(note),
            Ok(Outcome::NotRun(reason)) => Verdict::NotRun(reason),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        let took = start.elapsed();
        let note = verdict.note();
        let separator = if note.is_empty() { "" } else { ": " };
        let word = verdict.word();
        println!("=== {}: {word} after {:.1} s{separator}{note}", stage.name, took.as_secs_f32());
        finished.push(Finished { stage, verdict, took });
    }
    conclude(&finished, args.no_skips)
}

fn is_chosen(args: &Args, stage: &Stage) -> bool {
    let by_object = match stage.object {
        None => true,
        Some(object) => args.object == Objects::Both || args.object == object,
    };
    let named = |list: &[String]| list.iter().any(|name| name == stage.name);
    by_object && (args.only.is_empty() || named(&args.only)) && !named(&args.skip)
}

/// Installs what the chosen stages need. What cannot be had shows again at its stage, with its reason.
fn install(args: &Args, chosen: &[&Stage]) {
    if args.no_install {
        return;
    }
    let mut needed: Vec<_> = chosen.iter().flat_map(|stage| stage.needs).copied().collect();
    needed.dedup();
    if let Err(error) = setup::install(&needed) {
        println!("not everything could be installed: {error:#}");
    }
}

/// The table, and the line that a program may read.
fn conclude(finished: &[Finished], no_skips: bool) -> Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["stage", "", "s", ""]);
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), Vec::new());
    for Finished { stage, verdict, took } in finished {
        match verdict {
            Verdict::Passed(_) => passed += 1,
            Verdict::Failed(_) => failed.push(stage.name),
            Verdict::NotRun(_) => skipped.push(stage.name),
        }
        // The whole of a long reason stands at its stage.
        let first_line: String = verdict.note().lines().next().unwrap_or_default().chars().take(90).collect();
        table.add_row([stage.name, verdict.word(), &format!("{:.1}", took.as_secs_f32()), &first_line]);
    }
    println!("\n{table}\n\n{passed} passed, {} failed, {} skipped", failed.len(), skipped.len());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if no_skips && !skipped.is_empty() {
        bail!("not run, and --no-skips was given: {}", skipped.join(", "));
    }
    Ok(())
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "passed",
            Self::Failed(_) => "FAILED",
            Self::NotRun(_) => "not run",
        }
    }

    fn note(&self) -> &str {
        match self {
            Self::Passed(note) | Self::Failed(note) | Self::NotRun(note) => note,
        }
    }
}
