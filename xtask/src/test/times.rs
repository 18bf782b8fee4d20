//! The time of each test, and the slowest tests.

use std::time::Duration;

/// The number of slowest tests that a run lists.
const SLOWEST: usize = 10;

/// One test and its time.
pub(super) struct TestTime {
    /// Names of the test program and the test.
    pub(super) name: String,
    /// Time from the start of the test to the end.
    pub(super) took: Duration,
}

/// Prints the slowest tests of a run, slowest first.
pub(super) fn print_slowest(times: &mut [TestTime]) {
    times.sort_by_key(|time| std::cmp::Reverse(time.took));
    if times.is_empty() {
        return;
    }
    println!("\nthe slowest tests");
    for TestTime { name, took } in times.iter().take(SLOWEST) {
        println!("{:>7.1} s  {name}", took.as_secs_f32());
    }
}
