//! `cargo xtask setup`: installs the tools of the build from source and of the tests, from the distribution
//! if possible.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

mod cargo_tools;
mod distribution;
mod tools;

pub(crate) use tools::Tool;

use distribution::Distribution;

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only list the missing tools; fail if any is missing
    #[arg(long)]
    no_install: bool,
    /// Only this tool
    #[arg(long, value_name = "TOOL", value_parser = Tool::ALL.map(Tool::name))]
    only: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut missing = Vec::new();
    let chosen = |tool: &&Tool| args.only.as_ref().is_none_or(|name| name == tool.name());
    for tool in Tool::ALL.iter().filter(chosen) {
        let here = tool.is_here();
        println!("{} {:<14} {}", if here { "here   " } else { "missing" }, tool.name(), tool.purpose());
        if !here {
            missing.push(*tool);
        }
    }
    if missing.is_empty() {
        println!("all there");
        Ok(())
    } else if args.no_install {
        bail!("{} missing; `cargo xtask setup` installs them", names(&missing));
    } else {
        install(&missing)
    }
}

/// Installs the missing tools, and prints their names and the time that each took.
pub(crate) fn install(tools: &[Tool]) -> Result<()> {
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| !tool.is_here()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let distribution = Distribution::of_this_machine()?;
    println!("installing {} with {}", names(&missing), distribution.name());
    // One transaction for all packages, then the tools that have to be compiled.
    let packages: Vec<&str> =
        missing.iter().flat_map(|tool| tool.packages(distribution).iter().copied()).collect();
    distribution.install(&packages)?;
    for tool in &missing {
        let start = Instant::now();
        tool.compile(distribution).with_context(|| format!("installing {}", tool.name()))?;
        if !tool.is_here() {
            bail!("{} is still missing after its installation", tool.name());
        }
        println!("{} is there ({} s)", tool.name(), start.elapsed().as_secs());
    }
    Ok(())
}

fn names(tools: &[Tool]) -> String {
    tools.iter().map(|tool| tool.name()).collect::<Vec<_>>().join(", ")
}
