//! The tests that need root and a kernel, on this machine's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Objects, source, stages::Outcome};
use crate::{
    ebpf::{self, Comparison, Toolchain},
    process,
    setup::Tool,
    workspace,
};

/// Tells the build which object to embed.
const OBJECT: &str = "POMGUARD_EBPF_OBJECT";
/// Tells the tests where the daemon's binary is.
const BINARY: &str = "POMGUARD_BIN";
/// The test binary that has a stage of its own.
const FAULTS: &str = "faults";
/// What the fault tests break things with.
pub(crate) const FAULT_TOOLS: &[Tool] = &[Tool::Strace, Tool::Faketime];
const BPFFS: &str = "/sys/fs/bpf";

/// On the object in the tree.
pub(super) fn committed(_: Objects) -> Result<Outcome> {
    if let Some(reason) = obstacle()? {
        return Ok(Outcome::NotRun(reason));
    }
    run(None)
}

/// On an object built now.
pub(super) fn fresh(objects: Objects) -> Result<Outcome> {
    if let Some(reason) = obstacle()? {
        return Ok(Outcome::NotRun(reason));
    }
    on_fresh(objects, run)
}

/// Builds the object and has `tests` run on it, unless that would be the same run once more.
pub(super) fn on_fresh(
    objects: Objects,
    tests: impl Fn(Option<&Path>) -> Result<Outcome>,
) -> Result<Outcome> {
    if let Err(reason) = Toolchain::find() {
        return Ok(Outcome::NotRun(format!("{reason:#}")));
    }
    match build_fresh()? {
        Comparison::Same if objects == Objects::Both => {
            Ok(Outcome::Passed("the object is the committed one, byte for byte: tested above".into()))
        }
        Comparison::Same => tests(None),
        Comparison::OtherToolchain | Comparison::Stale(_) => tests(Some(&fresh_object())),
    }
}

/// Builds the object from source and compares it with the committed one.
pub(super) fn build_fresh() -> Result<Comparison> {
    ebpf::fresh(&fresh_object())
}

fn fresh_object() -> PathBuf {
    workspace::target().join("bpf/fresh.bpf.o")
}

/// A Cargo command that embeds the given object, or the committed one.
pub(super) fn cargo(subcommand: &str, object: Option<&Path>) -> Command {
    let mut command = workspace::cargo(subcommand);
    match object {
        Some(object) => command.env(OBJECT, object),
        None => command.env_remove(OBJECT),
    };
    command
}

fn run(object: Option<&Path>) -> Result<Outcome> {
    let mut command = tests(object)?;
    command.args(["--no-fail-fast", "--lib"]);
    for target in targets()?.iter().filter(|name| *name != FAULTS) {
        command.args(["--test", target]);
    }
    // One at a time: the pins, and what a test finds attached, belong to the machine.
    source::tests(command.args(["--", "--test-threads=1"]))
}

/// Runs so many random packets through the loaded programs and their models.
pub(crate) fn differential(packets: u64, seed: Option<u64>) -> Result<()> {
    let mut command = cargo("test", None);
    command.args(["--locked", "--package", "pomguard-tests", "--test", "differential"]);
    command.env("POMGUARD_FUZZ_PACKETS", packets.to_string());
    if let Some(seed) = seed {
        command.env("POMGUARD_FUZZ_SEED", seed.to_string());
    }
    process::run(command.args(["loaded_programs", "--", "--nocapture", "--test-threads=1"]))
}

/// The tests that break something while traffic goes on: they take minutes, and say what came of it.
pub(super) fn faults(_: Objects) -> Result<Outcome> {
    if let Some(reason) = obstacle()? {
        return Ok(Outcome::NotRun(reason));
    }
    if let Some(missing) = FAULT_TOOLS.iter().find(|tool| !tool.is_here()) {
        return Ok(Outcome::NotRun(format!("no {}", missing.name())));
    }
    source::tests(&mut fault_tests()?)
}

/// The command that runs the fault tests; a filter may follow.
pub(crate) fn fault_tests() -> Result<Command> {
    let mut command = tests(None)?;
    // One at a time: some of them keep every processor busy.
    command.args(["--test", FAULTS, "--", "--test-threads=1"]);
    Ok(command)
}

/// The command that runs the tests in `tests/`, with the daemon that they drive.
fn tests(object: Option<&Path>) -> Result<Command> {
    let binary = binary(object)?;
    let mut command = cargo("test", object);
    command.env(BINARY, binary).args(["--locked", "--package", "pomguard-tests"]);
    Ok(command)
}

/// The test binaries of `tests/`: one per file or folder.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace::root().join("tests/tests")).context("tests/tests")? {
        let path = entry.context("tests/tests")?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Sends so many mixed packets to a daemon, and checks that each is counted.
pub(crate) fn accounting(packets: u64) -> Result<()> {
    let mut command = tests(None)?;
    command.args(["--test", "daemon", "mixed_packets"]);
    command.env("POMGUARD_ACCOUNT_PACKETS", packets.to_string());
    process::run(command.args(["--", "--nocapture", "--test-threads=1"]))
}

/// Builds the daemon that the tests drive.
pub(super) fn binary(object: Option<&Path>) -> Result<PathBuf> {
    process::run(cargo("build", object).args(["--locked", "--package", "pomguard", "--quiet"]))?;
    Ok(workspace::target().join("debug/pomguard"))
}

/// Why the tests cannot run here, if they cannot.
pub(crate) fn obstacle() -> Result<Option<String>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("needs root".into()));
    }
    mount_bpffs()?;
    Ok(None)
}

/// Containers and small systems come without a bpffs, and without it nothing can be pinned.
fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    println!("mounting a bpffs at {BPFFS}");
    let flags =
        nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700")).context("mounting a bpffs")
}
