//! The parts that the commands of pomguard's developers share: paths of the workspace, the Cargo that builds it, and
//! other programs.

pub mod build;
mod paths;
pub mod process;

use std::process::ExitCode;

pub use paths::{cargo, cargo_home, forget_outer_cargo, root, target};

/// Prints the error of a command, if any, and returns the exit code of the process.
#[must_use]
pub fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
