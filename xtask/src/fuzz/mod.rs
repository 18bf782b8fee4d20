//! `cargo xtask fuzz`: generated inputs.

use anyhow::{Result, bail};

use crate::test::kernel;

pub(crate) mod target;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Send this number of random packets through the loaded programs and two models, instead of running the
    /// targets
    #[arg(long, conflicts_with_all = ["target", "seconds"])]
    packets: Option<u64>,
    /// Repeat a run of packets: the seed that the run printed
    #[arg(long, requires = "packets")]
    seed: Option<u64>,
    /// A coverage-guided target of `fuzz/`; without this option all targets, one after another
    #[arg(long, value_parser = target::TARGETS)]
    target: Option<String>,
    /// Seconds that each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Args {
    /// Chooses all coverage-guided targets, each for this number of seconds.
    pub(crate) fn targets(seconds: u32) -> Self {
        Self { packets: None, seed: None, target: None, seconds }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(packets) = args.packets {
        if let Some(reason) = kernel::obstacle()? {
            bail!("the programs cannot be loaded here: {reason}");
        }
        return kernel::differential(packets, args.seed);
    }
    target::TARGETS
        .into_iter()
        .filter(|name| args.target.as_deref().is_none_or(|wanted| wanted == *name))
        .try_for_each(|name| target::run(name, args.seconds))
}
