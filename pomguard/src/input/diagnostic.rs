//! Faults in a file: the problem, the place, and the text to write instead.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::model::Origin;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// File and line.
    pub origin: Origin,
    /// The offending text.
    pub found: String,
    /// The problem.
    pub problem: String,
    /// The text to write instead.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.found, self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// All faults, in file and line order. Never empty when returned as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Error)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl Diagnostics {
    /// Returns an error with a single fault.
    pub fn one(origin: Origin, found: &str, problem: &str, remedy: &str) -> Self {
        let mut faults = Self::default();
        faults.add(origin, found, problem, remedy);
        faults
    }

    /// Adds a fault.
    pub fn add(
        &mut self,
        origin: Origin,
        found: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (found, problem, remedy) = (found.into(), problem.into(), remedy.into());
        self.0.push(Diagnostic { origin, found, problem, remedy });
    }

    /// Adds the faults that other readers found.
    pub fn extend(&mut self, others: impl IntoIterator<Item = Self>) {
        self.0.extend(others.into_iter().flat_map(|other| other.0));
    }

    /// Returns true if there are no faults.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sorts the faults by file and line.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|a, b| a.origin.cmp(&b.origin));
        self
    }

    /// Returns `value` if there are no faults, and the sorted faults otherwise.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self.sorted()) }
    }
}

/// A fault in a piece of text whose place in the file is not yet known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem}; {remedy}")]
pub struct Fault {
    /// The problem.
    pub problem: String,
    /// The text to write instead.
    pub remedy: String,
}

impl Fault {
    /// Creates a fault with its remedy.
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}
