//! Deadlines of a daemon whose clocks are wrong, or step while a deadline runs: the programs end timed states
//! by the kernel's ticks, and the daemon counts the same ticks.

use std::{
    process::Output,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pomguard_tests::{
    daemon::{Daemon, LISTED_OUT, Lab, PEER},
    faults::{
        Leftovers, Load,
        clocks::{WallClock, behind},
        policies::{Policy, Touchstone},
        report,
    },
};
use serde_json::Value;

/// The time of the deadlines: enough for the checks before them, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(12);
/// The largest delay of a deadline: a tick, and the requests that set the deadline.
const LATE: Duration = Duration::from_secs(6);
const HOUR: i64 = 3_600;

fn done(lab: &Lab, arguments: &[&str]) -> Output {
    let output = lab.pomguard(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    // `status` exits with 3 if it reports something.
    let output = lab.pomguard(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {output:?}"))
}

/// Asserts that a time of the daemon, whose clock is `ahead`, is before the deadline and not in the past.
fn assert_soon(moment: &Value, ahead: i64, what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() + ahead;
    let left = moment.as_i64().unwrap_or_else(|| panic!("{what}: {moment}")) - now;
    let longest = DEADLINE.as_secs().cast_signed() + 1;
    assert!((0..=longest).contains(&left), "{what}: in {left} s");
}

/// Tests an unconfirmed change and an exception, each with a deadline, while flows are live. The daemon's
/// monotonic clock is ahead by `ahead` seconds, and its wall clock is stepped by `step` seconds.
fn deadlines_hold(test: &str, ahead: i64, step: i64) {
    let Some(lab) = Lab::new(test) else { return };
    Policy::One.write(&lab);
    let (clock, daemon) = WallClock::of_a_daemon(&lab, ahead);
    let mut touchstone = Touchstone::new(&lab);
    let mut load = Load::start(&lab, 32, 10_000);
    assert_eq!(touchstone.which("at first"), Policy::One);
    let old = lab.stats().image();

    Policy::Other.write(&lab);
    let begun = Instant::now();
    let seconds = format!("{}s", DEADLINE.as_secs());
    done(&lab, &["apply", "--confirm-within", &seconds, "--quiet"]);
    let service = format!("{LISTED_OUT}/tcp");
    done(&lab, &["allow", &PEER.to_string(), "to", &service, "--for", &seconds, "--why", "ticket 23"]);
    clock.step(step);
    assert_eq!(touchstone.which("LC-23, after the step"), Policy::Other);
    let status = json(&lab, &["status"]);
    assert_soon(&status["rollback_at"], step, "the return");
    assert_soon(&status["exceptions"][0]["ends"], step, "the exception's end");
    assert!(!daemon.log().contains("is over"), "LC-23: too early: {}", daemon.log());
    assert!(begun.elapsed() < DEADLINE, "the machine was too slow to look in time");

    // From here on only the programs can end the states.
    daemon.kill();
    while lab.stats().image() != old {
        assert!(begun.elapsed() < DEADLINE + LATE, "LC-23: the policy does not return");
        thread::sleep(Duration::from_millis(50));
    }
    let returned = begun.elapsed();
    assert!(returned >= DEADLINE, "LC-23: too early, after {returned:?}");
    // `stats` computes the tick, the programs read it: the two differ by up to one.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(touchstone.which("LC-23, after the return"), Policy::One);
    load.assert_none_delivered("LC-23");
    // The next daemon has the right time. It keeps the policy that returned, whatever the files say.
    let daemon = Daemon::start(&lab);
    assert_eq!(touchstone.which("LC-23, the next daemon"), Policy::One);
    assert_eq!(json(&lab, &["status"])["confirmed"], true);
    Leftovers::of(&lab).assert_whole("LC-23");
    assert!(daemon.stop().success());
    let outcome = load.finish(&lab, "LC-23").assert_none_delivered_none_lost();
    report(&format!(
        "monotonic clock {ahead:+} s, wall clock stepped {step:+} s: what was due after {} s came after {:.1} s, \
         {outcome}",
        DEADLINE.as_secs(),
        returned.as_secs_f64()
    ));
}

#[test]
fn deadlines_hold_for_a_daemon_whose_clocks_run_an_hour_ahead() {
    deadlines_hold("deadlines_hold_for_a_daemon_whose_clocks_run_an_hour_ahead", HOUR, HOUR);
}

#[test]
fn deadlines_hold_for_a_daemon_whose_clocks_are_set_back() {
    deadlines_hold("deadlines_hold_for_a_daemon_whose_clocks_are_set_back", behind(), -HOUR);
}
