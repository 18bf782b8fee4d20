//! A daemon that lacks a resource: descriptors, memory, answers from the kernel.

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

/// The longest time of a step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// System calls of a reload that the test makes fail: for maps, for files, for memory.
const REFUSED: [&str; 4] = ["bpf", "openat", "mmap", "unlink"];

/// Prepares a guarded server with [`Policy::One`] in force, and without a daemon.
fn guarded(test: &str) -> Option<(Lab, Touchstone)> {
    let lab = Lab::new(test)?;
    Policy::One.write(&lab);
    Daemon::start(&lab).kill();
    let touchstone = Touchstone::new(&lab);
    Some((lab, touchstone))
}

#[test]
fn start_with_too_few_descriptors_names_the_limit() {
    let Some((lab, mut touchstone)) = guarded("start_with_too_few_descriptors_names_the_limit") else {
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
fn reload_without_descriptors_is_refused_and_the_next_works() {
    let name = "reload_without_descriptors_is_refused_and_the_next_works";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let daemon = Daemon::start(&lab);
    Policy::Other.write(&lab);
    let before = limit(&daemon, "--nofile");
    // The daemon has more files open than this limit, so the kernel gives it no further descriptor.
    set_limit(&daemon, &format!("--nofile=3:{before}"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("reload refused");
    assert_eq!(touchstone.which("LC-25, without descriptors"), Policy::One);
    Leftovers::of(&lab).assert_whole("LC-25, without descriptors");
    set_limit(&daemon, &format!("--nofile={before}:{before}"));
    let until = Instant::now() + PATIENCE;
    while !daemon.log().contains("resources-exhausted: the last confirmed policy") {
        assert!(Instant::now() < until, "LC-25, it has a name of its own: {}", daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!daemon.log().contains("files-refused"), "LC-25, nothing is wrong with the files");
    assert!(!daemon.reload().contains("refused"), "{}", daemon.log());
    assert_eq!(touchstone.which("LC-25, with descriptors again"), Policy::Other);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn reload_without_memory_leaves_the_old_policy() {
    let name = "reload_without_memory_leaves_the_old_policy";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let mut daemon = Daemon::start(&lab);
    Policy::Other.write(&lab);
    // A limit below the present size: the daemon gets no further page.
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

/// Returns a site with this number of additional tuples: a thousand peers, each with every port of a list.
fn many(tuples: usize) -> String {
    let peers: Vec<_> = (0..1_000).map(|peer| format!("10.80.{}.{}", peer / 250, peer % 250 + 1)).collect();
    let ports: Vec<_> = (0..tuples / 1_000).map(|port| (30_000 + 2 * port).to_string()).collect();
    format!(
        "[[allow]]\nname = \"many\"\nfrom = {peers:?}\nto = [\"server\"]\nports = \"{}\"\nprotocol = \"udp\"\n",
        ports.join(",")
    )
}

/// Returns the size of the daemon's address space, in bytes.
fn size(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    size.unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn lc_24_policy_beyond_memory_leaves_the_old_one_until_it_fits() {
    let name = "lc_24_policy_beyond_memory_leaves_the_old_one_until_it_fits";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let mut daemon = Daemon::start(&lab);
    let mut load = Load::start(&lab, 32, 10_000);
    let (mut refused, mut died, mut more) = (0, 0, 1_u64 << 20);
    let enough = loop {
        let when = format!("LC-24, {} MiB for 50,000 tuples", more >> 20);
        assert!(more < 1 << 32, "{when}: {}", daemon.log());
        lab.write_site(&many(50_000));
        set_limit(&daemon, &format!("--as={}:", size(&daemon) + more));
        let before = lab.stats().generation();
        let message = daemon.log().matches("reload refused").count();
        daemon.signal(Signal::SIGHUP);
        let until = Instant::now() + 4 * PATIENCE;
        while daemon.log().matches("reload refused").count() == message
            && daemon.ended().is_none()
            && lab.stats().generation() == before
        {
            assert!(Instant::now() < until, "{when}: {}", daemon.log());
            thread::sleep(Duration::from_millis(20));
        }
        load.assert_none_delivered(&when);
        if lab.stats().generation() > before {
            break more;
        }
        assert_eq!(touchstone.which(&when), Policy::One);
        Leftovers::of(&lab).assert_whole(&when);
        if daemon.ended().is_some() {
            assert!(daemon.log().contains("memory"), "{when}: {}", daemon.log());
            died += 1;
            Policy::One.write(&lab);
            daemon = Daemon::start(&lab);
        } else {
            refused += 1;
        }
        more *= 2;
    };
    assert!(died + refused > 0, "1 MiB is enough");
    assert!(daemon.stop().success());
    let outcome = load.finish(&lab, "LC-24").assert_none_delivered_none_lost();
    report(&format!(
        "50,000 tuples with too little memory: {refused} reloads refused and {died} daemons ended with the old \
         policy in force, {} MiB are enough, {outcome}",
        enough >> 20
    ));
}

#[test]
fn daemon_works_while_systemd_does_not_listen() {
    let name = "daemon_works_while_systemd_does_not_listen";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let daemon = Daemon::start(&lab);
    let mut policy = Policy::One;
    // More messages than a socket without a reader holds.
    for reload in 1..=12 {
        policy = policy.next();
        policy.write(&lab);
        let before = lab.stats().generation();
        daemon.signal(Signal::SIGHUP);
        wait_until("another generation", &daemon, || lab.stats().generation() > before);
        assert_eq!(touchstone.which(&format!("reload {reload}")), policy);
    }
    daemon.wait_log("systemd does not listen");
    let pins = lab.pinned();
    std::fs::remove_file(&pins[0]).unwrap();
    wait_until("the pin is back", &daemon, || lab.pinned() == pins);
    // All messages arrive in the end, in order: a reload gets its own answer.
    assert!(!daemon.reload().contains("refused"), "{}", daemon.log());
    daemon.wait_log("systemd listens again");
    assert!(daemon.stop().success());
}

fn wait_until(what: &str, daemon: &Daemon, so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "never {what}: {}", daemon.log());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a limit of the daemon's process.
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

/// A strace that is attached to a running daemon.
struct DescriptorHolder(Child);

impl DescriptorHolder {
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

impl Drop for DescriptorHolder {
    /// Detaches, so that the daemon continues untraced.
    fn drop(&mut self) {
        let id = Pid::from_raw(self.0.id().cast_signed());
        let _ = kill(id, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn reload_refused_any_call_leaves_the_old_policy() {
    let name = "reload_refused_any_call_leaves_the_old_policy";
    let Some((lab, mut touchstone)) = guarded(name) else { return };
    let daemon = Daemon::start(&lab);
    let mut load = Load::start(&lab, 32, 20_000);
    let mut old = Policy::One;
    let log = lab.file("calls");
    let calls = {
        old = old.next();
        old.write(&lab);
        let _hold = DescriptorHolder::of(&daemon, &trace::follow(&REFUSED.join(","), &log));
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
            let _hold = DescriptorHolder::of(&daemon, &trace::inject(call, "error=ENOMEM", &log));
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
