//! Measures how soon the daemon restores the state that it watches over, such that a busy machine does not
//! make a quick daemon look slow.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{Daemon, emulated, patience};

/// The promised time for programs, links, pins, interfaces and the control words that say which policy is in
/// force.
pub const MENDED: Duration = Duration::from_secs(1);
/// The promised time for tables, which take longer to compare.
pub const TABLES_MENDED: Duration = Duration::from_secs(5);

impl Daemon {
    /// Waits until `so` returns true and asserts that this took no longer than `promise`. The measured time
    /// leaves out the time during which the daemon or the observer was ready to run while other processes had
    /// the processors. `so` should return quickly, because its duration counts.
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

/// Returns how long a task was ready to run but did not run: the second number of its `schedstat` file
/// (Documentation/scheduler/sched-stats.rst), in nanoseconds. Returns zero where the kernel does not count
/// this time.
fn queued(task: &Path) -> Duration {
    let counts = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let queued = counts.split_whitespace().nth(1).and_then(|count| count.parse().ok());
    Duration::from_nanos(queued.unwrap_or(0))
}
