//! The bill of materials: a CycloneDX file with every crate that is linked into the binary, made by `cargo
//! cyclonedx`.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use pomguard_workspace::{self as workspace, process};
use serde_json::Value;

use super::{TARGET, text};

const NAME: &str = "pomguard.sbom";

/// Makes the bill of materials. The result has the same bytes in every folder.
pub(super) fn make(epoch: u64) -> Result<Vec<u8>> {
    ensure!(process::find("cargo-cyclonedx").is_some(), "no cargo-cyclonedx here: `cargo xtask setup`");
    let mut command: Command = workspace::cargo("cyclonedx");
    command
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .args(["--quiet", "--format", "json", "--spec-version", "1.5", "--target", TARGET, "--no-build-deps"])
        .args(["--override-filename", NAME, "--manifest-path"])
        .arg(workspace::root().join("pomguard/Cargo.toml"));
    process::run(&mut command)?;
    // The tool writes one file next to each manifest of the workspace; only the file of the binary is kept.
    let mut made = None;
    for member in ["fuzz", "pomguard", "pomguard-common", "pomguard-ebpf", "tests", "tests/netlab", "xtask"] {
        let file = workspace::root().join(member).join(format!("{NAME}.json"));
        if member == "pomguard" {
            made = Some(fs::read_to_string(&file).with_context(|| file.display().to_string())?);
        }
        if file.exists() {
            fs::remove_file(&file).with_context(|| file.display().to_string())?;
        }
    }
    let made = made.context("cargo cyclonedx wrote no file for pomguard")?;
    // The tool names members of the workspace by their folder.
    let everywhere = made.replace(text(workspace::root())?, "/usr/src/pomguard");
    let bill: Value = serde_json::from_str(&everywhere)?;
    let parts = bill["components"].as_array().map_or(0, Vec::len);
    ensure!(parts > 100, "the bill of materials names only {parts} crates");
    let mut bytes = serde_json::to_vec_pretty(&bill)?;
    bytes.push(b'\n');
    Ok(bytes)
}
