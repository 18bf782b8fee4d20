//! How soon the daemon puts right what it watches over, measured so that a busy machine does not make a slow
//! daemon of a quick one.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{Daemon, emulated, patience};

/// Programs, links, pins, interfaces, and the words that say what is in force.
pub const MENDED: Duration = Duration::from_secs(1);
/// Tables that take more than a moment to compare.
pub const TABLES_MENDED: Duration = Duration::from_secs(5);

impl Daemon {
    /// Waits until something is so, and asserts that it was within what is promised. What does not count is
    /// the time during which the daemon, or whoever looks, could have gone on and other processes had the
    /// processors. `so` should be a short look: how long it takes does count.
    pub fn keeps(&self, promise: Duration, what: &str, mut so: impl FnMut() -> bool) -> Duration {
        let promise = if emulated() { 8 * promise } else { promise };
        let tasks = format!("/proc/{}/task", self.id());
        let waited = || {
            let tasks = fs::read_dir(&tasks).into_iter().flatten().flatten().map(|task| task.path());
            tasks.chain(["/proc/thread-self".into()]).map(|task| queued(&task)).sum::<Duration>()
        };
        let (start, before) = (Instant::now(), waited());
        while !so() {
            assert!(start.elapsed() < patience(30), "never {what}; the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
        let took = start.elapsed();
        let own = took.saturating_sub(waited().saturating_sub(before));
        assert!(
            own <= promise,
            "{what}: after {took:?}, of which {own:?} are its own, {promise:?} are promised; the log:\n{}",
            self.log()
        );
        println!("{what}: after {} ms, of which {} are its own", took.as_millis(), own.as_millis());
        took
    }
}

/// How long a task was ready to run and did not (Documentation/scheduler/sched-stats.rst): its second number,
/// in nanoseconds. Nothing where the kernel does not count it.
fn queued(task: &Path) -> Duration {
    let counts = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let queued = counts.split_whitespace().nth(1).and_then(|count| count.parse().ok());
    Duration::from_nanos(queued.unwrap_or(0))
}
