//! `cargo xtask faults`: the fault tests with larger numbers than `cargo xtask test` has time for.

use std::time::Instant;

use anyhow::{Result, bail};
use pomguard_workspace::process;

use crate::{setup, test::kernel};

/// Arguments of `cargo xtask faults`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Daemons killed at random moments
    #[arg(long, default_value_t = 1_000)]
    kills: usize,
    /// Policies that alternate under load
    #[arg(long, default_value_t = 10_000)]
    changes: usize,
    /// Daemons started two at a time
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// Daemons stopped and started in order
    #[arg(long, default_value_t = 100)]
    restarts: usize,
    /// Of the system calls of a change, fail or kill at one in this many
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Seconds of each flood
    #[arg(long, default_value_t = 120)]
    flood: usize,
    /// Packets of each of eight floods in the loaded programs
    #[arg(long, default_value_t = 1_250_000)]
    strays: usize,
    /// Only tests whose name contains this
    filter: Option<String>,
}

impl Default for Args {
    fn default() -> Self {
        // The defaults are declared at the arguments: parsing an empty command line applies them.
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        <Line as clap::Parser>::parse_from(["faults"]).args
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::install(kernel::FAULT_TOOLS)?;
    if let Some(reason) = kernel::obstacle()? {
        bail!("{reason}");
    }
    let began = Instant::now();
    let Args { kills, changes, pairs, restarts, every, flood, strays, filter } = args;
    let mut command = kernel::fault_tests()?;
    let counts = [
        ("KILLS", kills),
        ("CHANGES", changes),
        ("PAIRS", pairs),
        ("RESTARTS", restarts),
        ("EVERY", every),
        ("FLOOD", flood),
        ("STRAYS", strays),
    ];
    for (name, count) in counts {
        command.env(format!("POMGUARD_FAULT_{name}"), count.to_string());
    }
    process::run(command.args(filter))?;
    println!("done in {} s", began.elapsed().as_secs());
    Ok(())
}
