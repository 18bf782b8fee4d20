//! Builds pomguard.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::workspace;

/// The lines of cargo's `--message-format=json` that matter here.
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

/// How pomguard is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quickly, as the tests are.
    Dev,
    /// As it is shipped.
    Release,
}

/// Builds the binary and returns where it is. Cargo shows its own progress.
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
