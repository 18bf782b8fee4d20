//! `cargo xtask fuzz`: inputs that nobody wrote.

use anyhow::{Result, bail};

use crate::test::kernel;

pub(crate) mod target;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// So many random packets through the loaded programs and two models, instead of the targets
    #[arg(long, conflicts_with_all = ["target", "seconds"])]
    packets: Option<u64>,
    /// Repeats a run of packets: the seed that it printed
    #[arg(long, requires = "packets")]
    seed: Option<u64>,
    /// A coverage-guided target of `fuzz/`; all of them, one after the other, where none is named
    #[arg(long, value_parser = target::TARGETS)]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Args {
    /// All coverage-guided targets, each for so many seconds.
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
