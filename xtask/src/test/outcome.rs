//! The result of a stage that did not fail.

/// The result of a stage that did not fail.
pub(super) enum Outcome {
    /// With what is worth a word in the table.
    Passed(String),
    /// And why not.
    NotRun(String),
}

impl Outcome {
    /// Passed, and nothing to add.
    pub(super) fn passed() -> Self {
        Self::Passed(String::new())
    }
}
