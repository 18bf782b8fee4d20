//! The `pomguard` command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    pomguard::cli::run(pomguard::cli::Cli::parse())
}
