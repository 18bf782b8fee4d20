//! The commands of pomguard's developers: one file or folder per command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod account;
mod dispatch;
mod dist;
mod docs;
mod ebpf;
mod faults;
mod fuzz;
mod lint;
mod setup;
mod test;

/// The commands of pomguard's developers
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the cost of a packet, over a floor of the same run
    Bench(dispatch::Args),
    /// Build a POM site out of network namespaces and try every connection of the matrix
    Demo(dispatch::Args),
    /// Build the file that runs on every supported distribution, and check it
    Dist(dist::Args),
    /// Write the documents that are made from tables in the code: docs/packets.md, docs/site-file.md and
    /// docs/settings-file.md
    Docs,
    /// Run all checks and tests that this machine can run, and list the others
    Test(test::Args),
    /// Check formatting, the shared lint table and clippy.
    Lint(lint::Args),
    /// Build the eBPF object from source.
    Ebpf(ebpf::Args),
    /// Kill the daemon, starve it, flood it: the fault tests, longer.
    Faults(faults::Args),
    /// Feed random inputs to the programs, the packet parser and the readers of the three files
    Fuzz(fuzz::Args),
    /// Send millions of mixed packets over a cable, and check that each is counted once
    Account(account::Args),
    /// Change the packet code in one place at a time, and check that the tests notice
    Mutate(dispatch::Args),
    /// Install the BPF toolchain and the test tools.
    Setup(setup::Args),
}

fn main() -> ExitCode {
    pomguard_workspace::exit(match Cli::parse().command {
        Command::Bench(args) => dispatch::replace(dispatch::BENCH, &args),
        Command::Demo(args) => dispatch::replace(dispatch::DEMO, &args),
        Command::Dist(args) => dist::run(&args),
        Command::Docs => docs::run(),
        Command::Test(args) => test::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Account(args) => account::run(&args),
        Command::Mutate(args) => dispatch::replace(dispatch::MUTATE, &args),
        Command::Setup(args) => setup::run(&args),
    })
}
