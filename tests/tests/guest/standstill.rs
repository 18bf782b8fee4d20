//! Times in which the machine stands still: suspended, stopped by the emulator, or returned to a saved state.
//!
//! The tick counter, by which the programs end timed states, does not move meanwhile. The daemon compares the clocks.

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use pomguard::kernel::{clock::Ticks, control};
use pomguard_netlab::outside::{PAUSED, RESTORED, Request, SAVED};
use serde_json::Value;

use crate::machine::Machine;

/// The time for which the machine stands still, in seconds.
const STANDSTILL: u32 = 5;
/// The shortest standstill that counts as one, in seconds: falling asleep takes time, too.
const SHORTEST: u64 = 2;
/// The clock of the card, which runs on.
const CLOCK: &str = "/sys/class/rtc/rtc0";
/// The longest time until the daemon has noticed a standstill. Emulation is slow.
const NOTICED: Duration = Duration::from_secs(20);
/// The time for which the timed states of [`restore`] hold.
const TIMED: &str = "15s";

/// The environment variable that asks for a suspension.
const SUSPEND: &str = "POMGUARD_SUSPEND";

/// Returns true if the run asks for a suspension (S3). One emulated machine in twenty resets when it wakes.
pub(crate) fn suspends() -> bool {
    env::var_os(SUSPEND).is_some()
}

/// Suspends the machine during a bypass, and checks that the bypass is shorter by this time.
pub(crate) fn suspend(machine: &Machine) -> Result<String> {
    during_bypass(machine, || {
        let alarm = format!("{CLOCK}/wakealarm");
        fs::write(&alarm, "0").context("clear the alarm")?;
        fs::write(&alarm, format!("+{STANDSTILL}")).context("set the alarm")?;
        fs::write("/sys/power/state", "mem").context("suspend the machine")
    })
}

/// Has the emulator stop the machine during a bypass, and checks that the bypass is shorter by this time once the
/// clock of the machine is set right.
pub(crate) fn stop(machine: &Machine) -> Result<String> {
    during_bypass(machine, || {
        let answer = machine.outside(&Request::Pause(Duration::from_secs(STANDSTILL.into())))?;
        ensure!(answer == PAUSED, "{answer}");
        set_clock()
    })
}

/// Checks that a bypass is shorter by the time for which `stand_still` lets the machine stand still.
fn during_bypass(machine: &Machine, stand_still: impl FnOnce() -> Result<()>) -> Result<String> {
    pomguard(machine, &["bypass", "--for", "1h", "--why", "a standstill", "--yes", "--quiet"])?;
    let deadline = || -> Result<u32> { Ok(control::suspension(&machine.pins())?.deadline()) };
    let before = deadline()?;
    stand_still()?;
    soon("the bypass ends as late as before", || Ok(deadline()? != before))?;
    let shorter = Ticks::probe()?.seconds(before.wrapping_sub(deadline()?));
    ensure!((SHORTEST..=u64::from(3 * STANDSTILL)).contains(&shorter), "shorter by {shorter} s");
    pomguard(machine, &["bypass", "--off", "--yes", "--quiet"])?;
    machine.ends().for_each(|end| machine.dress(end));
    Ok(format!("the bypass is shorter by {shorter} s"))
}

/// Returns the machine to a state in which a trial, an exception and a bypass held that have ended since, and checks
/// that all three end at once when the clock of the machine is set right.
pub(crate) fn restore(machine: &Machine) -> Result<String> {
    let site = fs::read_to_string(machine.lab.site()).context("the site file")?;
    pomguard(machine, &["allow", "192.0.2.66", "to", "7700/tcp", "--for", TIMED, "--why", "a snapshot"])?;
    let row = "[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n";
    fs::write(machine.lab.site(), format!("{site}\n{row}")).context("the site file")?;
    pomguard(machine, &["apply", "--confirm-within", TIMED, "--yes", "--quiet"])?;
    pomguard(machine, &["bypass", "--for", TIMED, "--why", "a snapshot", "--yes", "--quiet"])?;
    ensure!(held(machine)? == [true; 3], "the timed states do not hold");
    let answer = machine.outside(&Request::Save)?;
    let over = || Ok(held(machine)? == [false; 3]);
    if answer == SAVED {
        thread::sleep(Duration::from_secs(15));
        soon("the timed states outlive their time", over)?;
        // The next answer comes to the saved state.
        let answer = machine.outside(&Request::Restore)?;
        bail!("the machine was not restored: {answer}");
    }
    ensure!(answer == RESTORED, "{answer}");
    let begun = Instant::now();
    set_clock()?;
    soon("a restored state brings back what had ended", over)?;
    let took = begun.elapsed();
    fs::write(machine.lab.site(), site).context("the site file")?;
    machine.ends().for_each(|end| machine.dress(end));
    Ok(format!("trial, exception and bypass ended after {:.1} s", took.as_secs_f32()))
}

/// Returns whether a trial, an exception and a bypass hold.
fn held(machine: &Machine) -> Result<[bool; 3]> {
    let status = machine.lab.pomguard(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).context("`pomguard status --json`")?;
    let exceptions = status["exceptions"].as_array().context("no exceptions in the status")?;
    Ok([status["confirmed"] == false, !exceptions.is_empty(), !status["suspension"].is_null()])
}

/// Sets the clock of the machine by the clock of the card, as a time server or the tools of a hypervisor do.
fn set_clock() -> Result<()> {
    let text = fs::read_to_string(format!("{CLOCK}/since_epoch")).context("read the clock of the card")?;
    let seconds = text.trim().parse().context("read the clock of the card")?;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, 0)).context("set the clock")
}

fn pomguard(machine: &Machine, words: &[&str]) -> Result<()> {
    let output = machine.lab.pomguard(words);
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Waits until a condition holds. Fails with `otherwise` if it does not in time.
fn soon(otherwise: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < NOTICED, "{otherwise}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
