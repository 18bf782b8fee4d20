//! The steps and their results.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Instant,
};

use anyhow::{Result, anyhow};
use pomguard_netlab::outside::{Step, Verdict};

/// Prints a line for every step, as soon as the step is done. A step that fails does not end the run.
pub(crate) struct Report {
    steps: usize,
    failed: Vec<String>,
}

impl Report {
    /// Creates an empty report.
    pub(crate) fn new() -> Self {
        // Ends the test runner's line "test … ...".
        println!();
        Self { steps: 0, failed: Vec::new() }
    }

    /// Runs a step, which returns a note on its outcome.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<String>) {
        self.step_with(name, || step().map(|message| ((), message)));
    }

    /// Runs a step that makes something for later steps. Returns `None` if the step failed.
    pub(crate) fn step_with<T>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> Result<(T, String)>,
    ) -> Option<T> {
        let start = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panicked| Err(error(&*panicked)));
        let seconds = start.elapsed().as_secs_f32();
        match done {
            Ok((made, note)) => {
                self.write(name, Verdict::Passed, seconds, note);
                Some(made)
            }
            Err(error) => {
                self.write(name, Verdict::Failed, seconds, format!("{error:#}"));
                None
            }
        }
    }

    /// Adds a step that another thread ran and timed.
    pub(crate) fn timed(&mut self, name: &str, done: thread::Result<(Result<String>, f32)>) {
        let (verdict, seconds, note) = match done {
            Ok((Ok(note), seconds)) => (Verdict::Passed, seconds, note),
            Ok((Err(error), seconds)) => (Verdict::Failed, seconds, format!("{error:#}")),
            Err(panicked) => (Verdict::Failed, 0.0, error(&*panicked).to_string()),
        };
        self.write(name, verdict, seconds, note);
    }

    /// Records a step that does not run because another step failed.
    pub(crate) fn not_reached(&mut self, name: &str, cause: &str) {
        self.write(name, Verdict::NotReached(cause.to_owned()), 0.0, String::new());
    }

    /// Prints the number of steps. Panics if a step failed.
    pub(crate) fn end(self) {
        println!("{}", Step::end(self.steps));
        assert!(self.failed.is_empty(), "failed: {}", self.failed.join(", "));
    }

    fn write(&mut self, name: &str, verdict: Verdict, seconds: f32, note: String) {
        if verdict == Verdict::Failed {
            self.failed.push(name.to_owned());
        }
        self.steps += 1;
        println!("{}", Step { name: name.to_owned(), verdict, seconds, note });
    }
}

/// Returns the message of a panic.
fn error(panicked: &(dyn Any + Send)) -> anyhow::Error {
    let text = panicked.downcast_ref::<String>().map(String::as_str);
    anyhow!("{}", text.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("panicked"))
}
