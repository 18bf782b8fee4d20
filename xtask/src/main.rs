//! What pomguard's developers run.

mod demo;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Build a POM site out of network namespaces and try every connection of the matrix.
    Demo(demo::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Demo(args) => demo::run(&args),
    }
}
