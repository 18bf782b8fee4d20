//! Waits for changes that the daemon makes by itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use pomguard_tests::daemon::{Daemon, Lab};

/// Waits until `so` returns true. Returns the duration.
pub(crate) fn wait_until(what: &str, daemon: &Daemon, mut so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(30), "never {what}; the log:\n{}", daemon.log());
        thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    println!("{what}: after {} ms", took.as_millis());
    took
}

/// Returns a counter or gauge of the metrics page.
pub(crate) fn metric(lab: &Lab, name: &str) -> u64 {
    let page = lab.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in:\n{page}")).parse().unwrap()
}

/// Returns the number of repairs of a kind so far.
pub(crate) fn repairs(lab: &Lab, what: &str) -> u64 {
    metric(lab, &format!("pomguard_repairs_total{{what=\"{what}\"}}"))
}

/// Returns true if the daemon reports this condition.
pub(crate) fn is_state(lab: &Lab, state: &str) -> bool {
    metric(lab, &format!("pomguard_state{{state=\"{state}\"}}")) == 1
}
