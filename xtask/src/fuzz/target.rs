//! Runs the coverage-guided targets of `fuzz/` with cargo-fuzz.

use anyhow::{Context as _, Result};
use pomguard_workspace::{self as workspace, process};

use crate::setup::Tool;

/// The names of the targets, which say what they read.
pub(crate) const TARGETS: [&str; 4] = ["packet", "matrix", "site", "settings"];

/// Runs a target for some seconds. A finding is a panic: cargo-fuzz prints the input and stores it below
/// `fuzz/artifacts`.
pub(crate) fn run(target: &str, seconds: u32) -> Result<()> {
    if !Tool::CargoFuzz.is_here() {
        anyhow::bail!("cargo-fuzz is not here: `cargo xtask setup` installs it");
    }
    seed()?;
    let mut command = workspace::cargo("fuzz");
    // Coverage needs unstable flags of the compiler, which `RUSTC_BOOTSTRAP` permits: another compiler is
    // not necessary. The code has no unsafe block that an input reaches, so an address sanitizer would find
    // nothing.
    command.env("RUSTC_BOOTSTRAP", "1").current_dir(workspace::root().join("fuzz"));
    command.args(["run", "--fuzz-dir", ".", "--dev", "--sanitizer", "none", target, "--"]);
    command.arg(format!("-max_total_time={seconds}")).args(["-print_final_stats=1", "-verbosity=0"]);
    process::run(&mut command).with_context(|| format!("the target `{target}` found something"))
}

/// Writes the initial inputs into the corpus.
fn seed() -> Result<()> {
    let mut command = workspace::cargo("run");
    command.args(["--locked", "--quiet", "--package", "pomguard-fuzz", "--example", "seeds", "--"]);
    process::run(command.arg(workspace::root().join("fuzz/corpus")))
}
