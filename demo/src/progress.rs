//! Prints the progress.

use std::{
    cell::Cell,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Lines on stderr, each with the time since the start.
pub(super) struct Progress {
    started: Instant,
    terminal: bool,
    counted: Cell<Instant>,
}

impl Progress {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { started: now, terminal: std::io::stderr().is_terminal(), counted: Cell::new(now) }
    }

    /// Prints one line about the next step.
    pub(super) fn say(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.started.elapsed().as_secs_f32());
        self.counted.set(Instant::now());
    }

    /// Prints the count on a line that the next count overwrites: four times a second at most, and only on a
    /// terminal.
    pub(super) fn count(&self, done: usize, all: usize) {
        let due = self.counted.get().elapsed() >= Duration::from_millis(250);
        if !self.terminal || (!due && done < all) {
            return;
        }
        self.counted.set(Instant::now());
        let line = if done < all { format!("          {done} of {all}") } else { String::new() };
        let mut terminal = std::io::stderr();
        let _ = write!(terminal, "\r\x1b[K{line}");
        let _ = terminal.flush();
    }
}
