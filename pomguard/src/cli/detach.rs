//! `pomguard detach`: takes the programs off and opens the host.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};

use super::places;
use crate::{
    kernel::{attach, pins::Pins},
    paths,
    state::runtime::Runtime,
};

/// Options of `detach`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Exit code 0 when nothing of ours is attached any more.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = places::settings(&args.config);
    let pins = Pins::at(&settings.paths.pins);
    let runtime = Runtime::at(&settings.paths.runtime);
    let attached = attach::attached(&pins);
    if attached.is_empty() {
        println!("nothing is attached by the pins in {}", settings.paths.pins.display());
    }
    if !args.yes {
        confirm(&attached.iter().map(|info| info.interface.as_str()).collect::<Vec<_>>().join(", "))?;
    }
    // A daemon that runs leaves everything alone meanwhile, and sees the mark before it looks again.
    let _change = runtime.change()?;
    runtime.mark_detached()?;
    for info in &attached {
        attach::detach(&pins, &info.interface)?;
        println!("{}: detached, every packet passes", info.interface);
    }
    pins.remove()?;
    println!(
        "counters and conversations are gone; a daemon that still runs takes effect again at its next start"
    );
    Ok(ExitCode::SUCCESS)
}

fn confirm(interfaces: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("this opens {interfaces} to every packet: say --yes to do it without being asked");
    }
    print!("This opens {interfaces} to every packet, and forgets the counters. Type `open` to go on: ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("read the answer")?;
    if answer.trim() != "open" {
        bail!("nothing was changed");
    }
    Ok(())
}
