//! Builds pomguard.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::workspace;

/// The fields of Cargo's `--message-format=json` lines that this module reads.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The way to compile pomguard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Without optimisation, like the tests.
    Dev,
    /// With optimisation, like a release.
    Release,
}

/// Builds the binary and returns its path. Cargo shows its own progress.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    let mut cargo = workspace::cargo("build");
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo
        .args(["--package", "pomguard", "--bin", "pomguard"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    pomguard_netlab::die_with_parent(&mut cargo);
    let output = cargo.output().context("running cargo")?;
    if !output.status.success() {
        bail!("pomguard does not build: {}", output.status);
    }
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == "pomguard"))
        .find_map(|message| message.executable)
        .context("cargo built no executable of the package pomguard")
}
