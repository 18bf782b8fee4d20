//! `cargo xtask test`: all checks, in parts with a budget each. The result lists the stages that did not run.
//! `--long` runs the proofs that take too long to run for every change.

use std::{
    io::Write as _,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};

use crate::setup::{self, Tool};

mod budget;
mod build;
mod count;
mod guests;
pub(crate) mod kernel;
mod long;
pub(crate) mod other_kernel;
mod outcome;
mod packages;
mod packaging;
mod pool;
mod run;
mod shipped;
mod source;
mod stages;
mod times;

use budget::Spending;
use outcome::Outcome;
use run::Run;
use stages::{PARTS, Part, Stage};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Args {
    /// Install nothing; stages without their tool do not run
    #[arg(long)]
    no_install: bool,
    /// Fail if a stage did not run
    #[arg(long)]
    no_skips: bool,
    /// Run the proofs that take too long for every change, instead of the stages
    #[arg(long)]
    long: bool,
    /// List the stages and exit; with --long, with the minutes that each proof takes
    #[arg(long)]
    list: bool,
    /// Run only these stages
    #[arg(long, value_name = "STAGE", num_args = 1.., value_parser = all_names())]
    only: Vec<String>,
    /// Leave these stages out
    #[arg(long, value_name = "STAGE", num_args = 1.., value_parser = all_names())]
    skip: Vec<String>,
    /// The start of the run, in seconds since 1970: counts the build of this program into the build's budget
    #[arg(long, value_name = "SECONDS", hide = true)]
    began: Option<u64>,
}

fn all_names() -> Vec<&'static str> {
    stages::names().into_iter().chain(long::names()).collect()
}

/// The result of one stage.
enum Verdict {
    Passed(String),
    Failed(String),
    NotRun(String),
}

struct Finished {
    name: &'static str,
    verdict: Verdict,
    took: Duration,
}

/// A part that has ended.
struct Spent {
    part: &'static Part,
    took: Duration,
    /// How many times slower than the reference the machine was during the part.
    slowness: f64,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.long {
        return long::run(args);
    }
    let began = Instant::now();
    let before = args.began.map_or(Duration::ZERO, since);
    let is_chosen = |stage: &&Stage| args.is_chosen(stage.name);
    if args.list {
        for part in PARTS {
            println!("{} ({} s)", part.name, part.budget.as_secs());
            for stage in part.stages.iter().filter(is_chosen) {
                println!("    {:<12} {}", stage.name, stage.title);
            }
        }
        return Ok(());
    }
    if !PARTS.iter().flat_map(|part| part.stages).any(|stage| is_chosen(&stage)) {
        bail!("no stage is left: `cargo xtask test --list` names them");
    }
    let (mut run, mut finished, mut spent) = (Run::default(), Vec::new(), Vec::new());
    for part in PARTS {
        let chosen: Vec<&Stage> = part.stages.iter().filter(is_chosen).collect();
        if chosen.is_empty() {
            continue;
        }
        let slow_before = budget::slowness();
        let start = Instant::now();
        if part.name == "packages" && !args.no_install {
            let tools = PARTS.iter().flat_map(|part| part.stages).filter(is_chosen).flat_map(|it| it.needs);
            install(&tools.copied().collect::<Vec<_>>());
        }
        for stage in chosen {
            finished.push(attempt(stage.name, stage.title, || (stage.run)(&mut run)));
        }
        let extra = if part.name == "build" { before } else { Duration::ZERO };
        let slowness = slow_before.max(budget::slowness());
        spent.push(Spent { part, took: start.elapsed() + extra, slowness });
    }
    println!();
    print_table(&finished);
    times::print_slowest(&mut run.times);
    let over = print_parts(&spent);
    println!("{} tests, {} s in all", run.tests, (began.elapsed() + before).as_secs());
    conclude(&finished, &over, args.no_skips)
}

impl Args {
    fn is_chosen(&self, name: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|other| other == name);
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
}

/// Returns the time since a second of the wall clock, or zero if the clock was set back.
fn since(seconds: u64) -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .unwrap_or_default()
}

/// Runs a stage or proof between two lines with its name.
fn attempt(name: &'static str, title: &str, work: impl FnOnce() -> Result<Outcome>) -> Finished {
    println!("\n=== {name}: {title}");
    // The programs that follow write to the same output.
    let _ = std::io::stdout().flush();
    let start = Instant::now();
    let verdict = match work() {
        Ok(Outcome::Passed(note)) => Verdict::Passed(note),
        Ok(Outcome::NotRun(reason)) => Verdict::NotRun(reason),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    let took = start.elapsed();
    let note = verdict.note();
    let separator = if note.is_empty() { "" } else { ": " };
    println!("=== {name}: {} after {:.1} s{separator}{note}", verdict.word(), took.as_secs_f32());
    Finished { name, verdict, took }
}

/// Installs the tools that the chosen stages need. A failure is only printed: the stage reports the missing
/// tool and the reason.
fn install(tools: &[Tool]) {
    let mut needed: Vec<Tool> = Vec::new();
    for tool in tools {
        if !needed.contains(tool) {
            needed.push(*tool);
        }
    }
    if let Err(error) = setup::install(&needed) {
        println!("not everything could be installed: {error:#}");
    }
}

fn print_table(finished: &[Finished]) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["stage", "", "s", ""]);
    for Finished { name, verdict, took } in finished {
        // The complete reason is printed at its stage, and below if the stage failed.
        let first_line: String = verdict.note().lines().next().unwrap_or_default().chars().take(90).collect();
        table.add_row([*name, verdict.word(), &format!("{:.1}", took.as_secs_f32()), &first_line]);
    }
    println!("{table}");
}

/// Prints the seconds of each part alongside its budget. Returns the names of the parts that took far more.
fn print_parts(spent: &[Spent]) -> Vec<&'static str> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["part", "s", "budget", "machine", ""]);
    let mut over = Vec::new();
    for Spent { part, took, slowness } in spent {
        let budget = budget::stretched(part.budget, *slowness);
        let spending = budget::spending(*took, budget);
        if spending == Spending::TooMuch {
            over.push(part.name);
        }
        table.add_row([
            part.name,
            &format!("{:.0}", took.as_secs_f32()),
            &part.budget.as_secs().to_string(),
            &format!("{slowness:.1} x slower"),
            match spending {
                Spending::Within => "",
                Spending::Over => "over budget",
                Spending::TooMuch => "FAR OVER BUDGET",
            },
        ]);
    }
    println!("\n{table}");
    over
}

/// Prints the summary line, which a program can read, and returns the error that determines the exit code.
fn conclude(finished: &[Finished], over: &[&str], no_skips: bool) -> Result<()> {
    let names = |wanted: fn(&Verdict) -> bool| -> Vec<&str> {
        finished.iter().filter(|it| wanted(&it.verdict)).map(|it| it.name).collect()
    };
    let failed = names(|verdict| matches!(verdict, Verdict::Failed(_)));
    let skipped = names(|verdict| matches!(verdict, Verdict::NotRun(_)));
    let passed = finished.len() - failed.len() - skipped.len();
    println!("\n{passed} passed, {} failed, {} skipped", failed.len(), skipped.len());
    if !failed.is_empty() {
        // The end of a long output is what remains of it.
        for Finished { name, verdict, .. } in finished {
            if let Verdict::Failed(reason) = verdict {
                println!("{name} FAILED: {reason}");
            }
        }
        bail!("failed: {}", failed.join(", "));
    }
    if no_skips && !skipped.is_empty() {
        bail!("not run, and --no-skips was given: {}", skipped.join(", "));
    }
    if !over.is_empty() {
        bail!("far over budget: {} (the table above has the seconds)", over.join(", "));
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
