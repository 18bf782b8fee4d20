//! Stages that need no kernel: checks of the sources by the compiler and related tools.

use anyhow::Result;
use pomguard_workspace::{self as workspace, process};

use super::{
    build::{self, TESTS},
    outcome::Outcome,
    pool::{self, Job},
    run::Run,
};
use crate::{dispatch, ebpf, lint};

/// The test of random packets that needs no kernel, in a program whose other tests do.
pub(super) const ON_THE_HOST: &str = "decision_code_agrees_with_a_naive_reading_of_the_docs";

/// Builds the workspace for all later stages.
pub(super) fn build(run: &mut Run) -> Result<Outcome> {
    let (built, _) = run.built()?;
    Ok(Outcome::Passed(format!("{} test programs", built.tests.len())))
}

pub(super) fn format(_: &mut Run) -> Result<Outcome> {
    if !lint::has_rustfmt() {
        return Ok(Outcome::NotRun("no rustfmt here: `rustup component add rustfmt`".into()));
    }
    lint::formatting()?;
    Ok(Outcome::passed())
}

pub(super) fn lint(_: &mut Run) -> Result<Outcome> {
    lint::inheritance()?;
    lint::words::check()?;
    lint::imports::check()?;
    lint::types::check()?;
    lint::prose::check()?;
    if !lint::has_clippy() {
        return Ok(Outcome::NotRun("no clippy here: `rustup component add clippy`".into()));
    }
    lint::clippy()?;
    Ok(Outcome::passed())
}

pub(super) fn lint_bpf(_: &mut Run) -> Result<Outcome> {
    let compiler = match ebpf::Compiler::find() {
        Ok(compiler) => compiler,
        Err(reason) => return Ok(Outcome::NotRun(format!("{reason:#}"))),
    };
    if !lint::has_clippy_bpf(&compiler) {
        return Ok(Outcome::NotRun(format!(
            "the {} compiler has no clippy: `cargo xtask setup`",
            compiler.name
        )));
    }
    lint::clippy_bpf(&compiler)?;
    Ok(Outcome::passed())
}

/// Runs every test that needs neither root nor a kernel of its own.
pub(super) fn unit(run: &mut Run) -> Result<Outcome> {
    let (built, times) = run.built()?;
    let mut jobs = Vec::new();
    for program in &built.tests {
        if program.package == TESTS {
            match program.name.as_str() {
                "catalogue" => jobs.push(Job::whole(program)),
                "differential" => jobs.push(Job::single(program, ON_THE_HOST)),
                _ => {}
            }
        } else if program.package == dispatch::DEMO {
            // One of its tests builds a whole site, and needs the machine to itself.
            jobs.extend(Job::each(program)?);
        } else if !pool::names(program)?.is_empty() {
            jobs.push(Job::pure(program));
        }
    }
    let count = pool::run(jobs, &build::environment(&built.daemon), times)?;
    run.tests += count.passed;
    Ok(Outcome::Passed(count.to_string()))
}

pub(super) fn doc(_: &mut Run) -> Result<Outcome> {
    let mut command = workspace::cargo("doc");
    command.env("RUSTDOCFLAGS", "--deny warnings").args(["--locked", "--no-deps", "--workspace", "--quiet"]);
    process::run(command.args(["--exclude", "pomguard-ebpf", "--document-private-items"]))?;
    Ok(Outcome::passed())
}
