//! A change of policy that is killed, or fails, at each of its system calls; a start that is killed while it
//! exchanges the programs.

use std::{ffi::OsString, fs, os::unix::process::ExitStatusExt as _, path::Path, process::Output};

use nix::sys::signal::Signal;
use pomguard_tests::{
    daemon::{Daemon, Lab, binary},
    faults::{
        Leftovers,
        policies::{Policy, Touchstone},
        report,
        trace::{self, Call, Sample},
    },
};

/// Path of the program that puts a policy in force as a reload does, without a daemon.
const CHANGE: &str = env!("CARGO_BIN_EXE_change-policy");
/// The system calls of a change that reach the kernel's maps or the file system, and the calls that can run
/// out of a resource.
const CALLS: &str = "bpf,mmap,munmap,openat,mkdir,unlink,unlinkat,rename,renameat,renameat2,fsync,fdatasync,write,chmod,socket,sendto,recvfrom";

/// Changes the policy to the site file's.
fn change(lab: &Lab, error: Option<(&Call, &str)>) -> Output {
    let log = lab.file("calls");
    let options =
        error.map_or_else(|| trace::follow(CALLS, &log), |(call, what)| trace::inject(call, what, &log));
    let words = trace::words(&options, Path::new(CHANGE));
    let mut command = lab.command(&words[0]);
    command.args(&words[1..]).arg(lab.config()).output().unwrap()
}

/// Prepares a guarded server without a daemon, with [`Policy::One`] in force.
fn guarded(test: &str) -> Option<(Lab, Touchstone)> {
    let lab = Lab::new(test)?;
    Policy::One.write(&lab);
    Daemon::start(&lab).kill();
    let touchstone = Touchstone::new(&lab);
    Some((lab, touchstone))
}

/// Kills a change, or makes a change fail, at each of its calls. Afterwards the old or the new policy must
/// be in force, and the next change must succeed.
fn sweep(
    (lab, mut touchstone): (Lab, Touchstone),
    what: &'static str,
    judge: impl Fn(&str, &Output, bool),
) -> (String, [usize; 2]) {
    let mut old = Policy::One;
    assert_eq!(touchstone.which("before"), old);
    old = old.next();
    old.write(&lab);
    let output = change(&lab, None);
    assert!(output.status.success(), "{output:?}");
    let calls = trace::calls(&lab.file("calls"), "pomguard.toml");
    let sample = Sample::of(&calls);
    let mut seen = [0, 0];
    for call in sample.calls() {
        let new = old.next();
        let when = format!("{sample}, {what} at {call:?}");
        new.write(&lab);
        let output = change(&lab, Some((call, what)));
        let changed = touchstone.which(&when) == new;
        judge(&when, &output, changed);
        seen[usize::from(changed)] += 1;
        Leftovers::of(&lab).assert_guarded(&when);
        let output = change(&lab, None);
        assert!(output.status.success(), "{when}: the next change: {output:?}");
        assert_eq!(touchstone.which(&when), new, "{when}: the next change");
        Leftovers::of(&lab).assert_whole(&when);
        old = new;
    }
    (sample.to_string(), seen)
}

#[test]
fn change_killed_at_any_call_leaves_the_old_policy_or_the_new() {
    let Some(guarded) = guarded("change_killed_at_any_call_leaves_the_old_policy_or_the_new") else {
        return;
    };
    let (calls, [old, new]) = sweep(guarded, "signal=KILL", |when, output, _| {
        assert_eq!(output.status.signal(), Some(Signal::SIGKILL as i32), "{when}: {output:?}");
    });
    assert!(old > 0 && new > 0, "cut both before and after the change: {old} and {new}");
    report(&format!("a change killed at {calls}: {old} times the old policy, {new} the new one, 0 mixtures"));
}

#[test]
fn change_refused_any_call_keeps_the_old_policy_or_has_the_new() {
    let name = "change_refused_any_call_keeps_the_old_policy_or_has_the_new";
    let Some(guarded) = guarded(name) else { return };
    let (calls, [old, new]) = sweep(guarded, "error=ENOMEM", |when, output, changed| {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{when}: {said}");
        if output.status.success() {
            assert!(changed, "{when}: it says that it succeeded");
        } else {
            assert!(!said.is_empty(), "{when}: it fails without a word: {output:?}");
            assert!(!changed, "{when}: it says that it failed, and changed the policy: {said}");
        }
    });
    report(&format!("a change refused {calls}: {old} times the old policy, {new} the new one, 0 mixtures"));
}

/// The system calls of a start that make, move and remove pins and attach programs.
const EXCHANGE: &str = "bpf,mkdir,rename,renameat,renameat2,unlink,unlinkat,rmdir";

/// Returns the calls of a start from the first pin of its programs to the removal of the last former pin.
fn exchange(lab: &Lab) -> Vec<Call> {
    let log = lab.file("calls");
    let daemon = Daemon::spawn_by(lab, &trace::words(&trace::follow(EXCHANGE, &log), &binary()));
    daemon.wait_ready();
    daemon.kill();
    // Calls are counted by thread. The first thread makes all of these calls.
    let text = fs::read_to_string(&log).unwrap();
    let process = text.split_whitespace().next().unwrap().to_owned();
    let own: Vec<&str> = text.lines().filter(|line| line.starts_with(&process)).collect();
    let last = own.iter().rposition(|line| line.contains("programs-")).unwrap();
    fs::write(&log, own[..=last].join("\n")).unwrap();
    trace::calls(&log, "programs-")
}

/// A set of programs without the array that leads to its general programs would drop the packets of the
/// general path.
#[test]
fn start_killed_during_the_exchange_leaves_whole_program_sets() {
    let Some((lab, _)) = guarded("start_killed_during_the_exchange_leaves_whole_program_sets") else {
        return;
    };
    let calls = exchange(&lab);
    let sample = Sample::thin(&calls, 12);
    for call in sample.calls() {
        let when = format!("{sample}, killed at {call:?}");
        let options = trace::inject(call, "signal=KILL", &lab.file("calls"));
        let words: Vec<OsString> = trace::words(&options, &binary());
        let mut daemon = Daemon::spawn_by(&lab, &words);
        let status = daemon.wait_end();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{when}: {}", daemon.log());
        Leftovers::of(&lab).assert_guarded(&when);
        lab.assert_general(&when);
    }
    let daemon = Daemon::start(&lab);
    Leftovers::of(&lab).assert_whole("after all kills");
    lab.assert_general("after all kills");
    assert!(daemon.stop().success());
    report(&format!("a start killed at {sample}: every hook had its general program"));
}
