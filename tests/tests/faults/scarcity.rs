//! A daemon without enough of something: descriptors, memory, answers from the kernel.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pomguard_tests::{
    daemon::{Daemon, Lab, binary},
    faults::{
        Leftovers, Load,
        policies::{Policy, Touchstone},
        report,
        trace::{self, Call, Sample},
    },
};

/// So long something may take that takes no time, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// System calls of a reload that the kernel may refuse: to the maps, to files, for memory.
const REFUSED: [&str; 4] = ["bpf", "openat", "mmap", "unlink"];

/// A guarded server with [`Policy::One`] in force, and no daemon.
fn guarded(test: &str) -> Option<(Lab, Touchstone)> {
    let lab = Lab::new(test)?;
    Policy::One.write(&lab);
    Daemon::start(&lab).kill();
    let touchstone = Touchstone::new(&lab);
    Some((lab, touchstone))
}

#[test]
fn a_start_with_too_few_descriptors_names_the_limit_and_changes_nothing() {
    let Some((lab, mut touchstone)) =
        guarded("a_start_with_too_few_descriptors_names_the_limit_and_changes_nothing")
    else {
        return;
    };
    Policy::Other.write(&lab);
    let limited = |limit: u32| {
        let words = ["prlimit".into(), format!("--nofile={limit}").into(), "--".into(), binary().into()];
        Daemon::spawn_by(&lab, &words)
    };
    for limit in [8, 16, 32, 64, 127] {
        let when = format!("LC-25, with {limit} descriptors");
        let mut daemon = limited(limit);
        assert_eq!(daemon.wait_end().code(), Some(1), "{when}: {}", daemon.log());
        assert!(daemon.log().contains("LimitNOFILE="), "{when}: {}", daemon.log());
        assert_eq!(touchstone.which(&when), Policy::One, "{when}");
        Leftovers::of(&lab).assert_whole(&when);
    }
    let daemon = limited(128);
    daemon.wait_ready();
    assert_eq!(touchstone.which("with enough descriptors"), Policy::Other);
    Leftovers::of(&lab).assert_whole("with enough descriptors");
}

#[test]
fn a_reload_without_descriptors_is_refused_and_the_next_one_goes_through() {
    let name = "a_reload_without_descriptors_is_refused_and_the_next_one_goes_through";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let daemon = Daemon::start(&lab);
    Policy::Other.write(&lab);
    let before = limit(&daemon, "--nofile");
    // It has a few more than that open, so that the kernel gives it no other; not even to tell systemd by.
    set_limit(&daemon, &format!("--nofile=3:{before}"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("reload refused");
    assert_eq!(touchstone.which("LC-25, without descriptors"), Policy::One);
    Leftovers::of(&lab).assert_whole("LC-25, without descriptors");
    set_limit(&daemon, &format!("--nofile={before}:{before}"));
    assert!(!daemon.reload().contains("refused"), "{}", daemon.log());
    assert_eq!(touchstone.which("LC-25, with descriptors again"), Policy::Other);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_without_memory_leaves_the_old_policy_whether_or_not_the_daemon_survives() {
    let name = "a_reload_without_memory_leaves_the_old_policy_whether_or_not_the_daemon_survives";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let mut daemon = Daemon::start(&lab);
    Policy::Other.write(&lab);
    // Below what it has already: it gets no page more.
    set_limit(&daemon, "--as=1048576");
    daemon.signal(Signal::SIGHUP);
    let until = Instant::now() + PATIENCE;
    while !daemon.log().contains("reload refused") && daemon.ended().is_none() {
        assert!(Instant::now() < until, "LC-24: {}", daemon.log());
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(touchstone.which("LC-24, without memory"), Policy::One);
    Leftovers::of(&lab).assert_whole("LC-24, without memory");
    drop(daemon);
    let _daemon = Daemon::start(&lab);
    assert_eq!(touchstone.which("LC-24, the next daemon"), Policy::Other);
}

/// A limit of the daemon's process.
fn limit(daemon: &Daemon, resource: &str) -> String {
    let id = daemon.id().to_string();
    let output = Command::new("prlimit")
        .args(["--pid", &id, resource, "--output=HARD", "--noheadings", "--raw"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn set_limit(daemon: &Daemon, limit: &str) {
    let id = daemon.id().to_string();
    let output = Command::new("prlimit").args(["--pid", &id, limit]).output().unwrap();
    assert!(output.status.success(), "prlimit {limit}: {output:?}");
}

/// A strace that has hold of a running daemon.
struct Hold(Child);

impl Hold {
    fn of(daemon: &Daemon, options: &[String]) -> Self {
        let id = daemon.id().to_string();
        let child = Command::new("strace")
            .args(options)
            .args(["-p", &id])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + PATIENCE;
        let traced = || {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|it| it.trim() != "0"))
        };
        while !traced() {
            assert!(Instant::now() < until, "strace does not take hold");
            thread::sleep(Duration::from_millis(1));
        }
        Self(child)
    }
}

impl Drop for Hold {
    /// Lets the daemon go on by itself.
    fn drop(&mut self) {
        let id = Pid::from_raw(self.0.id().cast_signed());
        let _ = kill(id, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_running_daemon_that_is_refused_any_system_call_of_a_reload_goes_on_with_the_old_policy() {
    let name = "a_running_daemon_that_is_refused_any_system_call_of_a_reload_goes_on_with_the_old_policy";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let daemon = Daemon::start(&lab);
    let mut load = Load::start(&lab, 32, 20_000);
    let mut old = Policy::One;
    let log = lab.file("calls");
    let calls = {
        old = old.next();
        old.write(&lab);
        let _hold = Hold::of(&daemon, &trace::follow(&REFUSED.join(","), &log));
        daemon.reload();
        trace::calls(&log, "pomguard.toml")
    };
    let sample = Sample::of(&calls);
    let mut refused = 0;
    for call in sample.calls() {
        let Call { name, nth } = call;
        let when = format!("{sample}, ENOMEM at {name} {nth}");
        let new = old.next();
        new.write(&lab);
        let status = {
            let _hold = Hold::of(&daemon, &trace::inject(call, "error=ENOMEM", &log));
            daemon.reload()
        };
        let failed = status.contains("refused");
        refused += usize::from(failed);
        let expected = if failed { old } else { new };
        assert_eq!(touchstone.which(&when), expected, "{when}: {status}: {}", daemon.log());
        load.assert_none_delivered(&when);
        let status = daemon.reload();
        assert!(
            !status.contains("refused") && !status.contains("FAILED"),
            "after {when}: {status}: {}",
            daemon.log()
        );
        assert_eq!(touchstone.which(&when), new, "after {when}");
        Leftovers::of(&lab).assert_whole(&when);
        old = new;
    }
    assert!(refused > 0, "{sample}");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.stop().success());
    let outcome = load.finish(&lab, "after all calls").assert_none_delivered_none_lost();
    report(&format!(
        "a running daemon refused {sample} of a reload: {refused} reloads refused, 0 mixtures, 0 daemons lost, \
         {outcome}"
    ));
}
