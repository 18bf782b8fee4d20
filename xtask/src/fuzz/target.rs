//! The coverage-guided targets of `fuzz/`, by cargo-fuzz.

use anyhow::{Context as _, Result};

use crate::{process, setup::Tool, workspace};

/// The targets, with what each is about.
pub(crate) const TARGETS: [&str; 4] = ["packet", "matrix", "site", "settings"];

/// Runs a target for some seconds. Findings are panics: cargo-fuzz prints the input and keeps it below
/// `fuzz/artifacts`.
pub(crate) fn run(target: &str, seconds: u32) -> Result<()> {
    if !Tool::CargoFuzz.is_here() {
        anyhow::bail!("cargo-fuzz is not here: `cargo xtask setup` installs it");
    }
    seed()?;
    let mut command = workspace::cargo("fuzz");
    // Coverage needs unstable flags of the compiler, and no other compiler. The code has no unsafe
    // block that an input reaches, so there is nothing for an address sanitizer to see.
    command.env("RUSTC_BOOTSTRAP", "1").current_dir(workspace::root().join("fuzz"));
    command.args(["run", "--fuzz-dir", ".", "--dev", "--sanitizer", "none", target, "--"]);
    command.arg(format!("-max_total_time={seconds}")).args(["-print_final_stats=1", "-verbosity=0"]);
    process::run(&mut command).with_context(|| format!("the target `{target}` found something"))
}

/// Lays the starting inputs into the corpus.
fn seed() -> Result<()> {
    let mut command = workspace::cargo("run");
    command.args(["--locked", "--quiet", "--package", "pomguard-fuzz", "--example", "seeds", "--"]);
    process::run(command.arg(workspace::root().join("fuzz/corpus")))
}
