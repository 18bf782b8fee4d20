//! What a running daemon has taken of the machine.

use std::{fs, thread, time::Duration};

use crate::daemon::{Daemon, Lab};

/// More than this it may not grow, in KiB, however much it has done.
const GROWTH: u64 = 1_024;

/// How often descriptors are counted.
const LOOKS: usize = 20;

fn later<T>(look: impl Fn() -> T) -> T {
    thread::sleep(Duration::from_millis(10));
    look()
}

/// What it has taken until now.
#[derive(Debug)]
pub struct Footprint {
    /// Memory of its own, in KiB.
    memory: u64,
    descriptors: usize,
    pins: usize,
}

impl Footprint {
    /// Looks at it.
    pub fn of(daemon: &Daemon, lab: &Lab) -> Self {
        let process = format!("/proc/{}", daemon.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let memory =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        let descriptors = || fs::read_dir(format!("{process}/fd")).unwrap().count();
        Self {
            memory: memory.expect("the kernel tells it").parse().unwrap(),
            // It opens some for a moment at each look: what stays open is what counts.
            descriptors: (0..LOOKS).map(|_| later(descriptors)).min().unwrap_or_default(),
            pins: lab.pinned().len(),
        }
    }

    /// Asserts that nothing was added to what it was `before`, and says how it is now.
    pub fn assert_flat(&self, before: &Self, when: &str) -> String {
        let Self { memory, descriptors, pins } = self;
        assert_eq!((descriptors, pins), (&before.descriptors, &before.pins), "{when}: descriptors and pins");
        let grown = memory.saturating_sub(before.memory);
        assert!(grown <= GROWTH, "{when}: {grown} KiB more: {self:?} after {before:?}");
        format!("{memory} KiB (before: {}), {descriptors} descriptors, {pins} pins", before.memory)
    }
}
