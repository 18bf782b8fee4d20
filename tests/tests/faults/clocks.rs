//! Deadlines of a daemon whose clocks are wrong, or step while a deadline runs: the programs end timed states
//! by the kernel's ticks, and the daemon counts the same ticks. If the wall clock is set forward, the machine may
//! have been stopped, and the daemon ends what opens the host earlier.

use std::{
    process::Output,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
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

/// A guarded server whose wall clock the test steps.
struct Stepped {
    lab: Lab,
    clock: WallClock,
}

impl Stepped {
    /// Builds the server with the first policy; the wall clock is `wrong` by so many seconds.
    fn new(test: &str, wrong: i64) -> Option<Self> {
        let lab = Lab::new(test)?;
        Policy::One.write(&lab);
        let clock = WallClock::new(&lab);
        clock.step(wrong);
        Some(Self { lab, clock })
    }

    /// Starts a daemon whose monotonic clock is ahead by so many seconds.
    fn daemon(&self, ahead: i64) -> Daemon {
        self.clock.daemon(&self.lab, ahead)
    }

    /// Puts the other policy in force on trial, and grants an exception, both for this time. Returns the time as the
    /// command line takes it.
    fn begin(&self, time: Duration) -> String {
        Policy::Other.write(&self.lab);
        let seconds = format!("{}s", time.as_secs());
        done(&self.lab, &["apply", "--confirm-within", &seconds, "--quiet"]);
        let (peer, service) = (PEER.to_string(), format!("{LISTED_OUT}/tcp"));
        done(&self.lab, &["allow", &peer, "to", &service, "--for", &seconds, "--why", "ticket 23"]);
        seconds
    }

    /// Asserts that nothing is left over, and stops the daemon.
    fn finish(&self, daemon: Daemon) {
        Leftovers::of(&self.lab).assert_whole("LC-23");
        assert!(daemon.stop().success());
    }
}

/// The time of the deadlines: enough for the checks before them, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(12);
/// The largest delay of a deadline: a tick, and the requests that set the deadline.
const LATE: Duration = Duration::from_secs(6);
const HOUR: i64 = 3_600;
/// The time of the deadlines that a step of the clock ends.
const LONG: Duration = Duration::from_secs(900);
/// A machine was stopped for so many seconds.
const WEEKEND: i64 = 2 * 86_400;
/// The longest time in which the daemon notices a step: two looks, on a busy machine.
const NOTICED: Duration = Duration::from_secs(5);

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
/// monotonic clock is ahead by `ahead` seconds. Its wall clock is wrong by `wrong` seconds from the start, and is
/// stepped by `step` seconds while the deadlines run.
fn deadlines_hold(test: &str, ahead: i64, wrong: i64, step: i64) {
    let Some(server) = Stepped::new(test, wrong) else { return };
    let Stepped { lab, clock } = &server;
    let daemon = server.daemon(ahead);
    let mut touchstone = Touchstone::new(lab);
    let mut load = Load::start(lab, 32, 10_000);
    assert_eq!(touchstone.which("at first"), Policy::One);
    let old = lab.stats().image();

    let begun = Instant::now();
    server.begin(DEADLINE);
    clock.step(wrong + step);
    assert_eq!(touchstone.which("LC-23, after the step"), Policy::Other);
    let status = json(lab, &["status"]);
    assert_soon(&status["rollback_at"], wrong + step, "the return");
    assert_soon(&status["exceptions"][0]["ends"], wrong + step, "the exception's end");
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
    let daemon = Daemon::start(lab);
    assert_eq!(touchstone.which("LC-23, the next daemon"), Policy::One);
    assert_eq!(json(lab, &["status"])["confirmed"], true);
    server.finish(daemon);
    let outcome = load.finish(lab, "LC-23").assert_none_delivered_none_lost();
    report(&format!(
        "monotonic clock {ahead:+} s, wall clock {wrong:+} s and stepped {step:+} s: what was due after {} s came after {:.1} s, \
         {outcome}",
        DEADLINE.as_secs(),
        returned.as_secs_f64()
    ));
}

#[test]
fn deadlines_hold_for_a_daemon_whose_clocks_run_an_hour_ahead() {
    deadlines_hold("deadlines_hold_for_a_daemon_whose_clocks_run_an_hour_ahead", HOUR, HOUR, 0);
}

#[test]
fn deadlines_hold_for_a_daemon_whose_clocks_are_set_back() {
    deadlines_hold("deadlines_hold_for_a_daemon_whose_clocks_are_set_back", behind(), 0, -HOUR);
}

/// Asserts that a condition becomes true within [`NOTICED`].
fn soon(daemon: &Daemon, what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < NOTICED, "LC-23: {what}: {}", daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn lc_23_stopped_machine_keeps_no_bypass_trial_or_exception() {
    let Some(server) = Stepped::new("lc_23_stopped_machine_keeps_no_bypass_trial_or_exception", 0) else {
        return;
    };
    let Stepped { lab, clock } = &server;
    let daemon = server.daemon(0);
    let mut touchstone = Touchstone::new(lab);
    assert_eq!(touchstone.which("at first"), Policy::One);
    let seconds = server.begin(LONG);
    clock.step(1);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(touchstone.which("LC-23, after a small correction"), Policy::Other);
    let status = json(lab, &["status"]);
    assert_eq!(status["exceptions"].as_array().map(Vec::len), Some(1), "{status}");

    clock.step(WEEKEND);
    soon(&daemon, "the trial and the exception", || {
        let status = json(lab, &["status"]);
        status["confirmed"] == true && status["exceptions"].as_array().is_some_and(Vec::is_empty)
    });
    // `status` computes the tick, the programs read it: the two differ by up to one.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(touchstone.which("LC-23, after a weekend"), Policy::One);
    let records = json(lab, &["history"]);
    assert!(records.to_string().contains("not-confirmed"), "{records}");
    let said = json(lab, &["status"])["attention"].to_string();
    assert!(said.contains("which came early: this machine stood still"), "{said}");

    let suspended = || json(lab, &["status"])["suspension"]["kind"].as_str().map(str::to_owned);
    done(lab, &["bypass", "--for", &seconds, "--why", "ticket 23", "--yes", "--quiet"]);
    assert_eq!(suspended().as_deref(), Some("bypass"), "{}", json(lab, &["status"]));
    clock.step(2 * WEEKEND);
    soon(&daemon, "the bypass", || suspended().is_none());
    thread::sleep(Duration::from_secs(1));
    assert_eq!(touchstone.which("LC-23, after the bypass"), Policy::One);
    assert!(daemon.log().contains("this machine stood still, or its clock was set forward"));

    // The wall clock may be wrong, so it ends no lockdown.
    done(lab, &["lockdown", "--for", &seconds, "--why", "ticket 23", "--yes", "--quiet"]);
    clock.step(3 * WEEKEND);
    thread::sleep(NOTICED);
    assert_eq!(suspended().as_deref(), Some("lockdown"), "{}", json(lab, &["status"]));
    done(lab, &["lockdown", "--off", "--yes", "--quiet"]);
    server.finish(daemon);
}

#[test]
fn lc_23_next_daemon_notices_that_the_machine_was_stopped() {
    let Some(server) = Stepped::new("lc_23_next_daemon_notices_that_the_machine_was_stopped", 0) else {
        return;
    };
    let Stepped { lab, clock } = &server;
    let daemon = server.daemon(0);
    let mut touchstone = Touchstone::new(lab);
    let seconds = server.begin(LONG);
    done(lab, &["bypass", "--for", &seconds, "--why", "ticket 23", "--yes", "--quiet"]);
    daemon.kill();
    // The programs know only the ticks.
    let daemon = server.daemon(0);
    let status = json(lab, &["status"]);
    assert_eq!(status["suspension"]["kind"], "bypass", "the machine was not stopped: {status}");
    daemon.kill();
    clock.step(WEEKEND);
    let daemon = server.daemon(0);
    let status = json(lab, &["status"]);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(touchstone.which("LC-23, the next daemon"), Policy::One);
    assert_eq!(status["confirmed"], true, "{status}: {}", daemon.log());
    assert!(status["suspension"].is_null(), "{status}: {}", daemon.log());
    assert_eq!(status["exceptions"].as_array().map(Vec::len), Some(0), "{status}: {}", daemon.log());
    server.finish(daemon);
}

/// A verb that did not wait for the daemon has the last word, even if the daemon's clock was set meanwhile.
#[test]
fn lc_23_verb_past_a_stopped_daemon_outlives_a_step_of_the_clock() {
    let Some(server) = Stepped::new("lc_23_verb_past_a_stopped_daemon_outlives_a_step_of_the_clock", 0)
    else {
        return;
    };
    let Stepped { lab, clock } = &server;
    let daemon = server.daemon(0);
    let kind = || json(lab, &["status"])["suspension"]["kind"].as_str().map(str::to_owned);
    let [off, lockdown] = [
        &["bypass", "--off", "--yes", "--quiet"][..],
        &["lockdown", "--for", "600s", "--why", "ticket 23", "--yes", "--quiet"],
    ];
    for (verb, step, after) in [(off, 60, None), (lockdown, 200, Some("lockdown"))] {
        done(lab, &["bypass", "--for", "900s", "--why", "ticket 23", "--yes", "--quiet"]);
        daemon.signal(Signal::SIGSTOP);
        done(lab, verb);
        clock.step(step);
        daemon.signal(Signal::SIGCONT);
        thread::sleep(NOTICED);
        assert_eq!(kind().as_deref(), after, "{verb:?}: {}", daemon.log());
    }
    done(lab, &["lockdown", "--off", "--yes", "--quiet"]);
    server.finish(daemon);
}
