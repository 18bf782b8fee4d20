//! Compiles the object, removes the debug information, and checks that no path of this machine is left.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use pomguard_workspace::{self as workspace, process};
use serde::Deserialize;

use super::toolchain::{TARGET, Toolchain};

/// The objects and the toolchain that built them.
pub(crate) struct Built {
    /// The programs that enforce.
    pub(crate) object: Vec<u8>,
    /// The bench's own programs.
    pub(crate) bench: Vec<u8>,
    pub(crate) by: String,
}

/// Builds the objects from the sources.
pub(crate) fn objects(toolchain: &Toolchain, cpu: &str) -> Result<Built> {
    let by = format!("{}, cpu {cpu}", toolchain.versions()?);
    println!("building with the {} compiler: {by}", toolchain.compiler.name);
    // A folder apart from the host's own artefacts: two compilers in one folder would rebuild each other's.
    let folder = workspace::target().join("bpf");
    let mut command = toolchain.compiler.cargo("build");
    command.args(["--locked", "--release", "--package", "pomguard-ebpf", "--target", TARGET]);
    command.arg("--target-dir").arg(&folder);
    if toolchain.compiler.builds_core {
        command.args(["-Z", "build-std=core"]);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain, cpu)?);
    process::run(&mut command).with_context(|| {
        format!("does bpf-linker use the compiler's LLVM? {}", toolchain.compiler.llvm().unwrap_or_default())
    })?;
    let linked = |program| finished(toolchain, &folder.join(TARGET).join("release").join(program));
    Ok(Built { object: linked("pomguard-ebpf")?, bench: linked("pomguard-bench")?, by })
}

/// Returns an object in its stored form: without debug information and paths of this machine.
fn finished(toolchain: &Toolchain, linked: &Path) -> Result<Vec<u8>> {
    let bytes = without_debug_information(toolchain, linked)?;
    for path in [workspace::root(), &workspace::cargo_home()] {
        let path = path.as_os_str().as_encoded_bytes();
        if bytes.windows(path.len()).any(|window| window == path) {
            bail!("the object names a path of this machine: {}", String::from_utf8_lossy(path));
        }
    }
    Ok(bytes)
}

/// Returns the compiler flags, in the form that keeps spaces in paths.
fn flags(toolchain: &Toolchain, cpu: &str) -> Result<OsString> {
    let mut flags: Vec<OsString> = [
        // The linker makes BTF from the debug information.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // Keeps a loop's back edge a jump. Linux 5.10 refuses a back edge that falls through into the head of
        // the loop ("back-edge from insn N to N+1"), which is how the pass lays rotated loops out.
        "-Clink-arg=--llvm-args=-disable-block-placement",
        // The contexts of both programs are the same on every 64-bit little-endian machine. Naming one
        // architecture makes the object the same wherever it is built.
        "--cfg=bpf_target_arch=\"x86_64\"",
    ]
    .map(OsString::from)
    .to_vec();
    flags.push(format!("-Ctarget-cpu={cpu}").into());
    flags.push(prefixed("-Clinker=", &toolchain.linker, ""));
    flags.push(prefixed("--remap-path-prefix=", workspace::root(), "=/pomguard"));
    for folder in crate_folders(toolchain)? {
        flags.push(prefixed("--remap-path-prefix=", &folder, "=/crates"));
    }
    Ok(flags.join(&OsString::from("\u{1f}")))
}

fn prefixed(before: &str, path: &Path, after: &str) -> OsString {
    let mut flag = OsString::from(before);
    flag.push(path);
    flag.push(after);
    flag
}

/// Returns the folders of the sources that Cargo fetches. Cargo fetches missing sources now.
fn crate_folders(toolchain: &Toolchain) -> Result<BTreeSet<PathBuf>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        source: Option<String>,
        manifest_path: PathBuf,
    }
    let mut command = toolchain.compiler.cargo("metadata");
    command.args(["--locked", "--format-version", "1"]);
    let metadata: Metadata = serde_json::from_str(&process::output(&mut command)?)?;
    let fetched = metadata.packages.iter().filter(|package| package.source.is_some());
    Ok(fetched
        .filter_map(|package| package.manifest_path.parent()?.parent().map(Path::to_path_buf))
        .collect())
}

/// Removes DWARF, which is nine tenths of the object. BTF stays: the loader needs its types for the maps, and
/// the verifier's log shows its source lines.
fn without_debug_information(toolchain: &Toolchain, linked: &Path) -> Result<Vec<u8>> {
    let stripped = linked.with_extension("stripped");
    let llvm = toolchain.compiler.llvm()?;
    let major = llvm.split('.').next().unwrap_or_default();
    let alongside = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-strip"));
    let strip = Some(alongside).filter(|path| path.is_file()).or_else(|| process::find("llvm-strip"));
    let Some(strip) = strip else {
        println!("no llvm-strip here: the object keeps its debug information");
        return fs::read(linked).with_context(|| linked.display().to_string());
    };
    let mut command = std::process::Command::new(strip);
    process::run(command.arg("--strip-debug").arg("-o").arg(&stripped).arg(linked))?;
    fs::read(&stripped).with_context(|| stripped.display().to_string())
}
