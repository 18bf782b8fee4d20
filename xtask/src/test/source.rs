//! Stages that need no kernel: the sources, and what the compiler and its companions say about them.

use std::process::Command;

use anyhow::{Result, bail};

use super::{Objects, kernel, stages::Outcome};
use crate::{
    ebpf::{Comparison, Toolchain},
    fuzz, lint, process,
    setup::Tool,
    workspace,
};

pub(super) fn format(_: Objects) -> Result<Outcome> {
    if !lint::has_rustfmt() {
        return Ok(Outcome::NotRun("no rustfmt here: `rustup component add rustfmt`".into()));
    }
    lint::formatting()?;
    Ok(Outcome::passed())
}

pub(super) fn lint(_: Objects) -> Result<Outcome> {
    lint::inheritance()?;
    if !lint::has_clippy() {
        return Ok(Outcome::NotRun("no clippy here: `rustup component add clippy`".into()));
    }
    lint::clippy()?;
    Ok(Outcome::passed())
}

pub(super) fn lint_bpf(_: Objects) -> Result<Outcome> {
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(reason) => return Ok(Outcome::NotRun(format!("{reason:#}"))),
    };
    if !lint::has_clippy_bpf(&toolchain) {
        return Ok(Outcome::NotRun(format!(
            "the {} toolchain has no clippy: `cargo xtask setup`",
            toolchain.name
        )));
    }
    lint::clippy_bpf(&toolchain)?;
    Ok(Outcome::passed())
}

pub(super) fn dependencies(_: Objects) -> Result<Outcome> {
    let Some(deny) = process::find("cargo-deny") else {
        return Ok(Outcome::NotRun("no cargo-deny here: `cargo xtask setup`".into()));
    };
    let mut command = Command::new(deny);
    command.current_dir(workspace::root()).args(["--log-level", "error", "--locked"]);
    process::run(command.args(["check", "bans", "licenses", "sources"]))?;
    // Its database lies on a host that a build machine may not reach.
    Ok(Outcome::Passed("advisories are for `cargo deny check advisories`".into()))
}

pub(super) fn unit(_: Objects) -> Result<Outcome> {
    let mut command = workspace::cargo("test");
    command.args(["--locked", "--workspace", "--exclude", "pomguard-ebpf", "--exclude", "pomguard-tests"]);
    tests(&mut command)
}

pub(super) fn doc(_: Objects) -> Result<Outcome> {
    let mut command = workspace::cargo("doc");
    command.env("RUSTDOCFLAGS", "--deny warnings").args(["--locked", "--no-deps", "--workspace", "--quiet"]);
    process::run(command.args(["--exclude", "pomguard-ebpf", "--document-private-items"]))?;
    Ok(Outcome::passed())
}

/// Long enough to find a branch that nobody tested, too short to prove anything: that is
/// `cargo xtask fuzz`.
pub(super) fn fuzz(_: Objects) -> Result<Outcome> {
    const SECONDS: u32 = 10;
    if !Tool::CargoFuzz.is_here() {
        return Ok(Outcome::NotRun("no cargo-fuzz or no C++ compiler".into()));
    }
    fuzz::target::TARGETS.into_iter().try_for_each(|name| fuzz::target::run(name, SECONDS))?;
    Ok(Outcome::passed())
}

/// The build from source, compared with the committed object.
pub(super) fn object(_: Objects) -> Result<Outcome> {
    if let Err(reason) = Toolchain::find() {
        return Ok(Outcome::NotRun(format!("{reason:#}")));
    }
    match kernel::build_fresh()? {
        Comparison::Same => Ok(Outcome::Passed("byte for byte".into())),
        Comparison::OtherToolchain => {
            Ok(Outcome::Passed("same sources; built by another toolchain, so the bytes differ".into()))
        }
        Comparison::Stale(why) => bail!("{why}"),
    }
}

/// Runs a command that prints what Rust's test harness prints, and counts.
pub(super) fn tests(command: &mut Command) -> Result<Outcome> {
    let mut count = Count::default();
    let status = process::watch(command, |line| count.see(line))?;
    match status {
        Some(0) => Ok(Outcome::Passed(count.to_string())),
        _ => bail!("{count}"),
    }
}

/// What the harness's closing lines add up to.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    /// Adds `test result: ok. 3 passed; 0 failed; 1 ignored; …`; other lines say nothing.
    pub(super) fn see(&mut self, line: &str) {
        let Some((_, numbers)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} tests", self.passed + self.failed)?;
        if self.failed > 0 {
            write!(out, ", {} failed", self.failed)?;
        }
        if self.ignored > 0 {
            write!(out, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn the_harness_lines_add_up() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ] {
            count.see(line);
        }
        assert_eq!(count, Count { passed: 5, failed: 1, ignored: 1 });
    }
}
