//! Builds with Cargo, and finds the products.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;
pub use cargo_metadata::{Artifact, TargetKind};

use crate::{paths, process};

/// The way to compile pomguard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Without optimisation, like the tests.
    Dev,
    /// With optimisation, like a release.
    Release,
}

/// Builds the daemon and returns its path. Cargo shows its own progress.
///
/// # Errors
/// If the daemon does not build.
pub fn daemon(profile: Profile) -> Result<PathBuf> {
    let mut cargo = paths::cargo("build");
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let built = artifacts(cargo.args(["--package", "pomguard", "--bin", "pomguard"]))?;
    let program =
        built.into_iter().find(|artifact| artifact.target.name == "pomguard" && is_binary(artifact));
    let path = program.and_then(|artifact| artifact.executable);
    Ok(path.context("Cargo built no executable of the package pomguard")?.into())
}

/// Runs a Cargo command that builds, and returns everything that the command built or found built. Cargo shows its
/// own progress.
///
/// # Errors
/// If Cargo cannot be started, does not succeed, or prints a line that is no message.
pub fn artifacts(cargo: &mut Command) -> Result<Vec<Artifact>> {
    cargo.arg("--message-format=json-render-diagnostics");
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| process::line(cargo))?;
    if !output.status.success() {
        bail!("{} ended with {}", process::line(cargo), output.status);
    }
    let mut built = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(artifact) = message.context("a message of Cargo's")? {
            built.push(artifact);
        }
    }
    Ok(built)
}

/// Returns true for a program, as opposed to a library, a test or an example.
#[must_use]
pub fn is_binary(artifact: &Artifact) -> bool {
    !artifact.profile.test && artifact.target.kind.contains(&TargetKind::Bin)
}
