//! `cargo xtask bench`, `demo` and `mutate`: each is a crate with a program of its own.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};
use pomguard_workspace::{self as workspace, process};

/// The package that measures the cost of a packet.
pub(crate) const BENCH: &str = "pomguard-bench";
/// The package that builds a site out of network namespaces.
pub(crate) const DEMO: &str = "pomguard-demo";
/// The package that changes the packet code.
pub(crate) const MUTATE: &str = "pomguard-mutate";

/// The arguments of a program, which reads them itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Arguments of the command; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds a package's program and continues as that program, in the caller's folder. Returns only if the program cannot
/// be started.
pub(crate) fn replace(package: &str, args: &Args) -> Result<()> {
    let folder = env::current_dir().context("the current folder")?;
    let mut command = program(package);
    let error = command.args(&args.arguments).current_dir(folder).exec();
    Err(error).with_context(|| process::line(&command))
}

/// Builds a package's program and runs it to its end, without arguments.
pub(crate) fn run(package: &str) -> Result<()> {
    process::run(&mut program(package))
}

fn program(package: &str) -> Command {
    let mut command = workspace::cargo("run");
    command.arg("--manifest-path").arg(workspace::root().join("Cargo.toml"));
    command.args(["--locked", "--quiet", "--package", package, "--"]);
    command
}
