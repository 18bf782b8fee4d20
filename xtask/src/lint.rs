//! `cargo xtask lint`: formatting, the shared lint table, refused names, clippy.

pub(crate) mod words;

pub(crate) mod imports;
pub(crate) mod prose;
pub(crate) mod types;

use std::fs;

use anyhow::{Context as _, Result, bail};
use pomguard_workspace::{self as workspace, process};

use crate::ebpf::{Compiler, TARGET};

/// Arguments of `cargo xtask lint`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Let rustfmt rewrite unformatted files
    #[arg(long)]
    fix: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.fix {
        process::run(workspace::cargo("fmt").arg("--all"))?;
    }
    formatting()?;
    inheritance()?;
    words::check()?;
    imports::check()?;
    types::check()?;
    prose::check()?;

    clippy()?;
    match Compiler::find() {
        Ok(compiler) => clippy_bpf(&compiler),
        Err(reason) => {
            println!("the BPF programs are not checked: {reason:#}");
            Ok(())
        }
    }
}

/// Checks that rustfmt would change no file.
pub(crate) fn formatting() -> Result<()> {
    process::run(workspace::cargo("fmt").args(["--all", "--check"]))
}

/// Checks that every member inherits the workspace's lint table: a table that nobody inherits checks nothing.
pub(crate) fn inheritance() -> Result<()> {
    for (member, manifest) in members()? {
        let inherited = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        if inherited != Some(true) {
            bail!("{member}/Cargo.toml does not say `[lints] workspace = true`");
        }
    }
    Ok(())
}

/// Returns the folder and the manifest of every member of the workspace.
fn members() -> Result<Vec<(String, toml::Table)>> {
    let read = |path: &str| -> Result<toml::Table> {
        let text = fs::read_to_string(workspace::root().join(path)).with_context(|| path.to_owned())?;
        text.parse().with_context(|| path.to_owned())
    };
    let workspace = read("Cargo.toml")?;
    let members = workspace["workspace"]["members"].as_array().context("Cargo.toml has no members")?;
    let members = members.iter().filter_map(toml::Value::as_str);
    members.map(|member| Ok((member.to_owned(), read(&format!("{member}/Cargo.toml"))?))).collect()
}

/// Checks with clippy all code that is built for this machine, including tests.
pub(crate) fn clippy() -> Result<()> {
    let mut command = workspace::cargo("clippy");
    command.args(["--locked", "--workspace", "--exclude", "pomguard-ebpf", "--all-targets", "--quiet"]);
    process::run(command.args(["--", "--deny", "warnings"]))
}

/// Checks with clippy the BPF programs, compiled for their own target.
pub(crate) fn clippy_bpf(compiler: &Compiler) -> Result<()> {
    let mut command = compiler.cargo("clippy");
    command.args(["--locked", "--package", "pomguard-ebpf", "--target", TARGET, "--release", "--quiet"]);
    if compiler.builds_core {
        command.args(["-Z", "build-std=core"]);
    }
    command.arg("--target-dir").arg(workspace::target().join("bpf-clippy"));
    process::run(command.args(["--", "--deny", "warnings"]))
}

/// Returns true if this Cargo has clippy.
pub(crate) fn has_clippy() -> bool {
    process::succeeds(workspace::cargo("clippy").arg("--version"))
}

/// Returns true if this Cargo has rustfmt.
pub(crate) fn has_rustfmt() -> bool {
    process::succeeds(workspace::cargo("fmt").arg("--version"))
}

/// Returns true if a BPF compiler's Cargo has clippy.
pub(crate) fn has_clippy_bpf(compiler: &Compiler) -> bool {
    process::succeeds(compiler.cargo("clippy").arg("--version"))
}
