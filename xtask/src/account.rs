//! `cargo xtask account`: millions of mixed packets over a cable, each counted once.

use anyhow::{Result, bail};

use crate::test::kernel;

/// Arguments of `cargo xtask account`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many packets, native and generic each
    #[arg(long, default_value_t = 10_000_000)]
    packets: u64,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = kernel::obstacle()? {
        bail!("the programs cannot be loaded here: {reason}");
    }
    kernel::accounting(args.packets)
}
