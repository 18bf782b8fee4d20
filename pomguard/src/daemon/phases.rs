//! The duration of each phase of a start, in the log at debug level.

use std::time::Instant;

use log::debug;

/// The time of the start, and the time at which the present phase began.
pub(super) struct Phases {
    start: Instant,
    phase: Instant,
}

impl Phases {
    /// Begins the first phase.
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { start: now, phase: now }
    }

    /// Ends a phase and begins the next one.
    pub(super) fn end(&mut self, phase: &str) {
        let now = Instant::now();
        let (took, all) = (now.duration_since(self.phase), now.duration_since(self.start));
        debug!("start: {phase}: {} ms, {} ms in all", took.as_millis(), all.as_millis());
        self.phase = now;
    }
}
