//! `cargo xtask fuzz`: inputs that nobody wrote.

use anyhow::Result;

pub(crate) mod target;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A coverage-guided target of `fuzz/`; all of them, one after the other, where none is named
    #[arg(long, value_parser = target::TARGETS)]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    target::TARGETS
        .into_iter()
        .filter(|name| args.target.as_deref().is_none_or(|wanted| wanted == *name))
        .try_for_each(|name| target::run(name, args.seconds))
}
