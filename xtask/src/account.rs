//! `cargo xtask account`: sends millions of mixed packets over a cable and checks that each is counted once.

use anyhow::{Result, bail};

use crate::test::kernel;

/// Packets of a complete run.
const PACKETS: u64 = 10_000_000;

/// Arguments of `cargo xtask account`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of packets, in native and in generic mode each
    #[arg(long, default_value_t = PACKETS)]
    packets: u64,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = kernel::obstacle()? {
        bail!("the programs cannot be loaded here: {reason}");
    }
    kernel::accounting(args.packets)
}

impl Default for Args {
    fn default() -> Self {
        Self { packets: PACKETS }
    }
}
