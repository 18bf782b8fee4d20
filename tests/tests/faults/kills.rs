//! Daemons killed at random moments while denied packets and allowed flows continue.

use std::{
    os::unix::process::ExitStatusExt as _,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pomguard_tests::{
    daemon::{Daemon, Lab},
    faults::{Leftovers, Load, LoadResult, report, times},
    random::Random,
};

/// The number of laboratories at once, each with a daemon of its own.
const LABORATORIES: usize = 2;
/// The number of flows in each laboratory.
const FLOWS: usize = 128;
/// Denied packets a second in each laboratory.
const DENIED: u32 = 10_000;
/// An additional row of the site file, so that a reload changes something.
const TURN: &str = "[[allow]]\nname = \"turn\"\nfrom = [\"10.77.0.9\"]\nto = [\"server\"]\nports = \"20000\"\nprotocol = \"tcp\"\n";

/// The moment at which the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Between the first instruction and the verification of the programs.
    Beginning,
    /// At any time of the start.
    Starting,
    /// After the policy is in force, during or after the attachment.
    Attaching,
    /// During a reload of a changed site file.
    Reloading,
    /// During the shutdown.
    Stopping,
}

/// Chooses a moment. Verifying the programs takes seconds of a processor, so only one daemon in eight lives
/// long enough for it.
fn moment(random: &mut Random) -> Moment {
    match random.below(32) {
        0 => Moment::Starting,
        1 => Moment::Attaching,
        2 => Moment::Reloading,
        3 => Moment::Stopping,
        _ => Moment::Beginning,
    }
}

/// Durations of parts of a daemon's life on this machine.
struct Pace {
    start: Duration,
    reload: Duration,
}

#[test]
fn random_kills_deliver_lose_and_leave_nothing() {
    let name = "random_kills_deliver_lose_and_leave_nothing";
    let kills = times("POMGUARD_FAULT_KILLS", 200);
    let campaigns: Vec<_> = (0..LABORATORIES)
        .map(|number| {
            let share = kills / LABORATORIES + usize::from(number < kills % LABORATORIES);
            thread::spawn(move || campaign(name, number as u64, share))
        })
        .collect();
    let outcomes: Vec<LoadResult> = campaigns.into_iter().filter_map(|it| it.join().unwrap()).collect();
    for outcome in outcomes {
        report(&format!(
            "{} kills: {}, 0 orphans",
            kills / LABORATORIES,
            outcome.assert_none_delivered_none_lost()
        ));
    }
}

/// Kills this number of daemons, one after another, in a laboratory of its own.
fn campaign(name: &str, seed: u64, kills: usize) -> Option<LoadResult> {
    let lab = Lab::new(name)?;
    let began = Instant::now();
    let daemon = Daemon::start(&lab);
    let start = began.elapsed();
    let began = Instant::now();
    daemon.reload();
    let pace = Pace { start, reload: began.elapsed() };
    daemon.kill();
    let mut load = Load::start(&lab, FLOWS, DENIED);
    let mut random = Random(seed);
    for kill in 0..kills {
        let moment = moment(&mut random);
        let when = format!("seed {seed}, kill {kill}, {moment:?}");
        let log = kill_one(&lab, moment, &pace, &mut random);
        assert!(!log.contains("panicked"), "{when}: {log}");
        Leftovers::of(&lab).assert_guarded(&when);
        load.assert_none_delivered(&when);
    }
    let daemon = Daemon::start(&lab);
    Leftovers::of(&lab).assert_whole("after all kills");
    let outcome = load.finish(&lab, "after all kills");
    assert!(daemon.stop().success());
    Some(outcome)
}

/// Starts a daemon and kills it. Returns the log.
fn kill_one(lab: &Lab, moment: Moment, pace: &Pace, random: &mut Random) -> String {
    lab.write_site(random.of(&[TURN, ""]));
    let mut within = |longest: Duration| longest / 1_000 * random.below(1_000) as u32;
    let daemon = Daemon::spawn(lab);
    let delay = match moment {
        Moment::Beginning => within(pace.start / 12),
        Moment::Starting => within(pace.start),
        Moment::Attaching => {
            daemon.wait_log("in force: ");
            within(Duration::from_millis(30))
        }
        Moment::Reloading => {
            daemon.wait_ready();
            Leftovers::of(lab).assert_whole("after a kill and a start");
            lab.write_site(TURN);
            daemon.reload();
            lab.write_site("");
            daemon.signal(Signal::SIGHUP);
            within(pace.reload * 5 / 4)
        }
        Moment::Stopping => {
            daemon.wait_ready();
            daemon.signal(Signal::SIGTERM);
            within(Duration::from_millis(5))
        }
    };
    let (status, log) = daemon.kill_after(delay);
    let stopped = matches!(moment, Moment::Stopping) && status.success();
    assert!(stopped || status.signal() == Some(Signal::SIGKILL as i32), "{moment:?}: {status}: {log}");
    log
}
