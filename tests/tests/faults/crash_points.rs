//! A change of policy cut short at each of its system calls, or refused one of them.

use std::{os::unix::process::ExitStatusExt as _, path::Path, process::Output};

use nix::sys::signal::Signal;
use pomguard_tests::{
    daemon::{Daemon, Lab},
    faults::{
        Leftovers,
        policies::{Policy, Touchstone},
        report,
        trace::{self, Call, Sample},
    },
};

/// Puts a policy in force as a reload does, without a daemon.
const CHANGE: &str = env!("CARGO_BIN_EXE_change-policy");
/// System calls of a change that reach the kernel's maps or the file system, and those that can run out
/// of something.
const CALLS: &str = "bpf,mmap,munmap,openat,mkdir,unlink,unlinkat,rename,renameat,renameat2,fsync,fdatasync,write,chmod,socket,sendto,recvfrom";

/// Changes the policy to what the site file says.
fn change(lab: &Lab, fault: Option<(&Call, &str)>) -> Output {
    let log = lab.file("calls");
    let options =
        fault.map_or_else(|| trace::follow(CALLS, &log), |(call, what)| trace::inject(call, what, &log));
    let words = trace::words(&options, Path::new(CHANGE));
    let mut command = lab.command(&words[0]);
    command.args(&words[1..]).arg(lab.config()).output().unwrap()
}

/// A guarded server without a daemon, with [`Policy::One`] in force.
fn guarded(test: &str) -> Option<(Lab, Touchstone)> {
    let lab = Lab::new(test)?;
    Policy::One.write(&lab);
    Daemon::start(&lab).kill();
    let touchstone = Touchstone::new(&lab);
    Some((lab, touchstone))
}

/// Cuts or hinders a change at each of its calls: afterwards the old or the new policy is in force, and
/// the next change goes through.
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
fn a_change_killed_at_any_system_call_leaves_the_old_policy_or_the_new_one() {
    let Some(guarded) = guarded("a_change_killed_at_any_system_call_leaves_the_old_policy_or_the_new_one")
    else {
        return;
    };
    let (calls, [old, new]) = sweep(guarded, "signal=KILL", |when, output, _| {
        assert_eq!(output.status.signal(), Some(Signal::SIGKILL as i32), "{when}: {output:?}");
    });
    assert!(old > 0 && new > 0, "cut both before and after the change: {old} and {new}");
    report(&format!("a change killed at {calls}: {old} times the old policy, {new} the new one, 0 mixtures"));
}

#[test]
fn a_change_refused_any_system_call_fails_with_the_old_policy_or_succeeds_with_the_new_one() {
    let name = "a_change_refused_any_system_call_fails_with_the_old_policy_or_succeeds_with_the_new_one";
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
