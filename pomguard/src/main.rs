//! The `pomguard` command.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    pomguard::cli::run(pomguard::cli::Cli::parse())
}
