//! The result of a stage that did not fail.

/// The result of a stage that did not fail.
pub(super) enum Outcome {
    /// With a note for the table.
    Passed(String),
    /// With the reason.
    NotRun(String),
}

impl Outcome {
    /// Returns `Passed` without a note.
    pub(super) fn passed() -> Self {
        Self::Passed(String::new())
    }
}
