//! `cargo xtask bench`: what a packet costs, on this machine, against a floor measured in the same run.
//!
//! ```text
//! policy ─┬─ guard (a real pomguard with that policy) ─┐
//!         └─ traffic ──────────────────────────────────┴─ program: ns per run of the programs
//! ```

mod guard;
mod policy;
mod program;
mod random;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::lab::{
    binary,
    sandbox::{self, Sandbox},
};

/// How `cargo xtask bench` is called.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure only this part
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Fewer policies and repeats: for a first look
    #[arg(long)]
    quick: bool,
    /// Also measure this eBPF object, beside the committed one in the same run (repeatable)
    #[arg(long, value_name = "PATH")]
    object: Vec<PathBuf>,
    /// Use this pomguard instead of building one
    #[arg(long, value_name = "PATH")]
    pomguard: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Nanoseconds per run of the programs, over packets that vary
    Program,
}

/// What the parts have in common.
struct Setting {
    /// The pomguard that compiles and installs the policies.
    binary: PathBuf,
    sandbox: Sandbox,
    quick: bool,
}

/// Runs the benches, one after the other.
pub(crate) fn run(args: &Args) -> Result<()> {
    sandbox::require_root()?;
    let binary = match &args.pomguard {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => binary::build()?,
    };
    let objects =
        args.object.iter().map(|path| path.canonicalize().with_context(|| path.display().to_string()));
    let objects = objects.collect::<Result<Vec<_>>>()?;
    let setting = Setting { binary, sandbox: sandbox::enter()?, quick: args.quick };
    let asked = |part| args.only.is_empty() || args.only.contains(&part);
    if asked(Part::Program) {
        program::run(&setting, &objects)?;
    }
    Ok(())
}
