//! The tests that need root and a kernel, on this machine's own kernel.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use pomguard_netlab::sandbox::BPFFS;
use pomguard_workspace::{self as workspace, process};

use super::{
    build::{self, TESTS, TestProgram},
    outcome::Outcome,
    pool::{self, Job},
    run::Run,
};
use crate::{dispatch, setup::Tool};

/// The environment variable that holds the path of the daemon's binary.
pub(super) const BINARY: &str = "POMGUARD_BIN";
/// The test program that has a stage of its own.
const FAULTS: &str = "faults";
/// Programs whose tests share what they load: one process for each program.
const SHARING: &[&str] = &["object", "packets"];
/// Programs that other stages run, because they need neither root nor this kernel, or because they need
/// another machine.
const ELSEWHERE: &[&str] = &["catalogue", FAULTS, "guest"];
/// The tests that take longest. They start first, or else the run would wait for them at its end.
const FIRST: &[&str] = &[
    "units_work_through",
    "every_port_of_the_example_site",
    "suspension_exceptions_and_pending_change",
    "packets",
    "operations_page_commands_work",
    "loaded_programs_agree_with_their_code",
    "every_verb_outlives_a_closed_pipe_and_a_full_disk",
    "no_connection_fails_while_policies_change",
    "policy_changes_drop_no_common_allow",
    "random_kills_deliver_lose_and_leave",
    "reload_refused_any_call",
    "packets_sent_are_packets_seen",
];
/// Tests that the proof `ports` of the long part runs.
const LONG: &[&str] = &["every_port_of_the_demo_site"];
/// The tools of the fault tests.
pub(crate) const FAULT_TOOLS: &[Tool] = &[Tool::Strace, Tool::Faketime];

/// Runs the tests of packets, policies and daemons in the kernel, in namespaces and under a real systemd.
pub(super) fn tests(run: &mut Run) -> Result<Outcome> {
    if let Some(reason) = obstacle()? {
        return Ok(Outcome::NotRun(reason));
    }
    let (built, times) = run.built()?;
    let mut jobs = Vec::new();
    for program in built.tests.iter().filter(|program| program.package == TESTS) {
        if program.is_unit || SHARING.contains(&program.name.as_str()) {
            if program.path.is_file() && !pool::names(program)?.is_empty() {
                jobs.push(Job::whole(program));
            }
        } else if !ELSEWHERE.contains(&program.name.as_str()) {
            jobs.extend(each(program)?);
        }
    }
    longest_first(&mut jobs);
    let count = pool::run(jobs, &build::environment(&built.daemon), times)?;
    run.tests += count.passed;
    Ok(Outcome::Passed(count.to_string()))
}

/// Runs the tests that break something while traffic continues.
pub(super) fn faults(run: &mut Run) -> Result<Outcome> {
    if let Some(reason) = obstacle()? {
        return Ok(Outcome::NotRun(reason));
    }
    if let Some(missing) = FAULT_TOOLS.iter().find(|tool| !tool.is_here()) {
        return Ok(Outcome::NotRun(format!("no {}", missing.name())));
    }
    let (built, times) = run.built()?;
    let mut jobs = each(built.test(FAULTS)?)?;
    longest_first(&mut jobs);
    let count = pool::run(jobs, &build::environment(&built.daemon), times)?;
    run.tests += count.passed;
    Ok(Outcome::Passed(count.to_string()))
}

/// Runs the demo with the daemon that the tests use.
pub(super) fn demo(run: &mut Run) -> Result<Outcome> {
    if let Some(reason) = obstacle()? {
        return Ok(Outcome::NotRun(reason));
    }
    let (built, _) = run.built()?;
    process::run(Command::new(built.program(dispatch::DEMO)?).arg("--pomguard").arg(&built.daemon))?;
    Ok(Outcome::passed())
}

/// Returns each test as a job with a process of its own, except for the tests that the stage without root or
/// the long part runs.
fn each(program: &TestProgram) -> Result<Vec<Job<'_>>> {
    let mut jobs = Job::each(program)?;
    jobs.retain(|job| {
        !job.is_named(super::source::ON_THE_HOST) && !LONG.iter().any(|name| job.is_named(name))
    });
    Ok(jobs)
}

/// Sorts the tests of [`FIRST`] to the front, in the order of that list.
fn longest_first(jobs: &mut [Job<'_>]) {
    jobs.sort_by_key(|job| FIRST.iter().position(|name| job.is_named(name)).unwrap_or(FIRST.len()));
}

/// Runs this number of random packets through the loaded programs and their models.
pub(crate) fn differential(packets: u64, seed: Option<u64>) -> Result<()> {
    let mut command = workspace::cargo("test");
    command.args(["--locked", "--package", TESTS, "--test", "differential"]);
    command.env("POMGUARD_FUZZ_PACKETS", packets.to_string());
    if let Some(seed) = seed {
        command.env("POMGUARD_FUZZ_SEED", seed.to_string());
    }
    // The whole name: another test asks the programs one by one, and is too slow for so many packets.
    let name = "loaded_programs_agree_with_their_code_and_the_oracle";
    process::run(command.args([name, "--", "--exact", "--nocapture", "--test-threads=1"]))
}

/// Asks for every port and every pair of systems of the demo's site.
pub(crate) fn ports() -> Result<()> {
    for name in LONG {
        let mut command = with_daemon()?;
        process::run(command.args(["--test", "ports", name]))?;
    }
    Ok(())
}

/// Returns the command that runs the fault tests one after another. Arguments can be appended.
pub(crate) fn fault_tests() -> Result<Command> {
    let mut command = with_daemon()?;
    command.args(["--test", FAULTS, "--", "--test-threads=1"]);
    Ok(command)
}

/// Sends this number of mixed packets to a daemon, and checks that each is counted.
pub(crate) fn accounting(packets: u64) -> Result<()> {
    let mut command = with_daemon()?;
    command.args(["--test", "daemon", "mixed_packets"]);
    command.env("POMGUARD_ACCOUNT_PACKETS", packets.to_string());
    process::run(command.args(["--", "--nocapture", "--test-threads=1"]))
}

/// Returns a Cargo command that runs tests of `pomguard-tests` with the built daemon.
fn with_daemon() -> Result<Command> {
    let daemon = build::everything()?.daemon;
    let mut command = workspace::cargo("test");
    command.env(BINARY, daemon).args(["--locked", "--package", TESTS]);
    Ok(command)
}

/// Returns the reason why the tests cannot run here, if any.
pub(crate) fn obstacle() -> Result<Option<String>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("needs root".into()));
    }
    mount_bpffs()?;
    Ok(None)
}

/// Mounts a bpffs if there is none: containers and small systems come without a bpffs, and nothing can be
/// pinned without one.
fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    println!("mounting a bpffs at {BPFFS}");
    let flags =
        nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), Path::new(BPFFS), Some("bpf"), flags, Some("mode=0700"))
        .context("mounting a bpffs")
}
