//! The resources of a running daemon.

use std::{fs, thread, time::Duration};

use crate::daemon::{Daemon, Lab};

/// The most that the daemon's memory may grow, in KiB, whatever the daemon has done.
const GROWTH: u64 = 1_024;

/// The number of times that the descriptors are counted.
const LOOKS: usize = 20;

fn later<T>(look: impl Fn() -> T) -> T {
    thread::sleep(Duration::from_millis(10));
    look()
}

/// Resources of a daemon at one moment.
#[derive(Debug)]
pub struct Footprint {
    /// Anonymous resident memory (`RssAnon`), in KiB.
    memory: u64,
    descriptors: usize,
    pins: usize,
}

impl Footprint {
    /// Measures the daemon.
    pub fn of(daemon: &Daemon, lab: &Lab) -> Self {
        let process = format!("/proc/{}", daemon.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let memory =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        let descriptors = || fs::read_dir(format!("{process}/fd")).unwrap().count();
        Self {
            memory: memory.expect("the kernel tells it").parse().unwrap(),
            // The daemon opens some descriptors for a moment at each self-check. The smallest count leaves
            // them out.
            descriptors: (0..LOOKS).map(|_| later(descriptors)).min().unwrap_or_default(),
            pins: lab.pinned().len(),
        }
    }

    /// Asserts that the daemon uses nothing more than `before`, except for `GROWTH` KiB of memory, and
    /// returns a report.
    pub fn assert_flat(&self, before: &Self, when: &str) -> String {
        let Self { memory, descriptors, pins } = self;
        assert_eq!((descriptors, pins), (&before.descriptors, &before.pins), "{when}: descriptors and pins");
        let grown = memory.saturating_sub(before.memory);
        assert!(grown <= GROWTH, "{when}: {grown} KiB more: {self:?} after {before:?}");
        format!("{memory} KiB (before: {}), {descriptors} descriptors, {pins} pins", before.memory)
    }
}
