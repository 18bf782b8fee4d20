//! Puts the policy of a settings file in force as a reload does, and exits. A test can interrupt this change
//! at any point without waiting the seconds that the verification of the programs takes.

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use pomguard::{
    input::Draft,
    kernel::{clock::Ticks, install, interface, pins::Pins},
    policy,
};

fn main() -> ExitCode {
    match change() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn change() -> Result<()> {
    let settings = env::args_os().nth(1).context("the settings file, as the only argument")?;
    let draft = Draft::load(Path::new(&settings))?;
    let policy = policy::resolve(&draft, &interface::addresses()?)?;
    let pins = Pins::new(&draft.settings.paths.pins);
    let image = install::next_place(&pins, Ticks::probe()?.clock())?.compile(&policy)?;
    install::install(&pins, image, None)?;
    Ok(())
}
