//! Two daemons that start at the same moment on one server.

use std::{
    thread,
    time::{Duration, Instant},
};

use pomguard_tests::{
    daemon::{Daemon, Lab},
    faults::{Leftovers, Load, report, times},
};

/// One in this number of pairs lets its winner finish the start.
const FINISHED: usize = 25;
/// The longest time that the second of a pair may take on a busy machine to notice the first.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts two daemons at once and waits until one gives up. Returns the other, and the log of the first.
fn pair(lab: &Lab, when: &str) -> (Daemon, String) {
    let mut both = [Daemon::spawn(lab), Daemon::spawn(lab)];
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "{when}: neither gave up: {}\n{}", both[0].log(), both[1].log());
        let ended = both.each_mut().map(Daemon::ended);
        let loser = match ended {
            [Some(_), Some(_)] => panic!("{when}: both ended: {}\n{}", both[0].log(), both[1].log()),
            [Some(status), None] => Some((0, status)),
            [None, Some(status)] => Some((1, status)),
            [None, None] => None,
        };
        if let Some((loser, status)) = loser {
            let log = both[loser].log();
            assert_eq!(status.code(), Some(1), "{when}: {log}");
            let [first, second] = both;
            return (if loser == 0 { second } else { first }, log);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn two_daemons_started_together_leave_one_attached() {
    let name = "two_daemons_started_together_leave_one_attached";
    let Some(lab) = Lab::new(name) else { return };
    let pairs = times("POMGUARD_FAULT_PAIRS", 100);
    Daemon::start(&lab).kill();
    let mut load = Load::start(&lab, 32, 5_000);
    for number in 1..=pairs {
        let when = format!("LC-07, pair {number}");
        let (winner, log) = pair(&lab, &when);
        let lock = lab.lock().display().to_string();
        assert!(log.contains("another pomguard runs already") && log.contains(&lock), "{when}: {log}");
        if number % FINISHED == 0 {
            winner.wait_ready();
            Leftovers::of(&lab).assert_whole(&when);
        }
        winner.kill();
        Leftovers::of(&lab).assert_guarded(&when);
        load.assert_none_delivered(&when);
    }
    let outcome = load.finish(&lab, "after all pairs").assert_none_delivered_none_lost();
    report(&format!(
        "{pairs} pairs of daemons: {pairs} times one gave up, one attachment each time, {outcome}"
    ));
}
