//! Chooses the eBPF object that the daemon embeds, and refuses one that is not what its sources say.
//!
//! By default that is the committed object, so that a stable toolchain alone builds pomguard.
//! `POMGUARD_EBPF_OBJECT=path` embeds another, unchecked: how the tests run a freshly built one.
//! The choice reaches the code as the environment variable `POMGUARD_OBJECT`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use pomguard_record as record;

const OVERRIDE: &str = "POMGUARD_EBPF_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    match object() {
        Ok(path) => {
            println!("cargo::rustc-env=POMGUARD_OBJECT={}", path.display());
            ExitCode::SUCCESS
        }
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn object() -> Result<PathBuf, String> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let workspace = package.parent().ok_or("the package has no folder above it")?;
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        // A relative path would depend on where Cargo runs this; it is below the workspace.
        let path = workspace.join(path);
        println!("cargo::rerun-if-changed={}", path.display());
        if !path.is_file() {
            return Err(format!("{OVERRIDE} names {}, which is no file", path.display()));
        }
        return Ok(path);
    }
    let inputs = [record::OBJECT, record::RECORD, record::LOCK];
    for input in inputs.iter().chain(record::SOURCES) {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-changed={}", package.join("build.rs").display());
    verify(workspace)?;
    Ok(workspace.join(record::OBJECT))
}

/// The committed object is the one that its record describes, and the sources are those it was built from.
fn verify(workspace: &Path) -> Result<(), String> {
    let path = workspace.join(record::RECORD);
    let recorded = fs::read_to_string(&path).map_err(|error| {
        format!("no record of the eBPF object: {}: {error}\nrun `cargo xtask ebpf`", path.display())
    })?;
    let now = record::of_tree(workspace).map_err(|error| error.to_string())?;
    let changed = record::differences(&record::parse(&recorded), &now);
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the committed eBPF object was not built from these sources; changed since:\n  {}\n\
         run `cargo xtask ebpf` to build it again (`cargo xtask setup` installs what that needs)",
        changed.join("\n  ")
    ))
}
