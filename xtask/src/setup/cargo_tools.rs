//! Tools that are in no distribution: compiled by Cargo, at versions that are known to work.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use pomguard_workspace::{self as workspace, process};

use super::distribution::Distribution;
use crate::ebpf;

const LINKER: &str = "0.13.0";
const DENY: &str = "0.20.2";
const FUZZ: &str = "0.13.2";
/// Another version may write other bytes.
const PACKAGING: [(&str, &str); 3] =
    [("cargo-generate-rpm", "0.21.1"), ("cargo-deb", "3.8.0"), ("cargo-cyclonedx", "0.5.9")];

/// Installs bpf-linker against the LLVM of the packaged compiler: the linker reads the compiler's bitcode, so
/// both need the same version.
pub(super) fn linker_for_packaged_compiler(distribution: Distribution) -> Result<()> {
    let version = ebpf::llvm_of(Path::new("/usr/bin/rustc"))?;
    let major = version.split('.').next().context("the compiler has no LLVM version")?;
    let (llvm, polly) = (format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"));
    distribution.install(&[&llvm, &polly])?;
    if process::find("bpf-linker").is_some() {
        return Ok(());
    }
    let mut command = install("bpf-linker", LINKER);
    command.env("LLVM_PREFIX", format!("/usr/lib/llvm-{major}"));
    process::run(command.args(["--no-default-features", "--features", &format!("llvm-{major}")]))
}

/// Installs rustup's nightly, which builds `core` for the target where no packaged compiler has it.
pub(super) fn nightly() -> Result<()> {
    let rustup = process::find("rustup").context("no rustup here, and no packaged BPF compiler")?;
    let mut command = Command::new(rustup);
    command.args(["toolchain", "install", "nightly", "--component", "rust-src", "--component", "clippy"]);
    process::run(command.args(["--profile", "minimal"]))
}

/// Installs the linker, built against its own choice of LLVM.
pub(super) fn linker() -> Result<()> {
    match process::find("bpf-linker") {
        Some(_) => Ok(()),
        None => process::run(&mut install("bpf-linker", LINKER)),
    }
}

/// Installs cargo-deny, which takes some minutes on two cores.
pub(super) fn deny() -> Result<()> {
    process::run(install("cargo-deny", DENY).arg("--locked"))
}

/// Installs cargo-fuzz, which builds and runs the targets of `fuzz/`.
pub(super) fn fuzz() -> Result<()> {
    if process::find("cargo-fuzz").is_some() {
        return Ok(());
    }
    process::run(install("cargo-fuzz", FUZZ).arg("--locked"))
}

/// The tools that make the packages: some ten minutes on two cores, once.
pub(super) fn packaging() -> Result<()> {
    for (package, version) in PACKAGING {
        if process::find(package).is_none() {
            process::run(install(package, version).arg("--locked"))?;
        }
    }
    Ok(())
}

fn install(package: &str, version: &str) -> Command {
    println!("compiling {package} {version}");
    let mut command = workspace::cargo("install");
    command.args(["--quiet", package, "--version", version]);
    command
}
