//! The report of an emulated machine, one line for each step.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use anyhow::{Context as _, Error, Result, bail};

/// The first word of each line, which distinguishes the line from other output of the machine.
const MARK: &str = "guest-step";

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The step did what it should.
    Passed,
    /// The step did not.
    Failed,
    /// The step needs another one, of this name, that failed.
    NotReached(String),
}

/// One step of an emulated machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Name of the step.
    pub name: String,
    /// Outcome of the step.
    pub verdict: Verdict,
    /// Duration in seconds.
    pub seconds: f32,
    /// A short remark on the outcome, or the error. Without line breaks.
    pub note: String,
}

impl Step {
    const END: &str = "end";

    /// Returns the line after the last step, which holds the number of steps.
    #[must_use]
    pub fn end(steps: usize) -> Self {
        Self {
            name: Self::END.to_owned(),
            verdict: Verdict::Passed,
            seconds: 0.0,
            note: format!("{steps} steps"),
        }
    }

    /// Returns the number of steps. Returns `None` if this is a step, and not the line after the last.
    #[must_use]
    pub fn steps(&self) -> Option<usize> {
        if self.name != Self::END {
            return None;
        }
        self.note.strip_suffix(" steps")?.parse().ok()
    }
}

impl Display for Step {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let verdict = match &self.verdict {
            Verdict::Passed => "passed".to_owned(),
            Verdict::Failed => "failed".to_owned(),
            Verdict::NotReached(cause) => format!("not reached: {cause}"),
        };
        let note = self.note.replace(['\n', '\r'], " ");
        write!(out, "{MARK} | {} | {verdict} | {:.1} | {note}", self.name, self.seconds)
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut parts = line.trim_end().splitn(5, '|').map(str::trim);
        let mut next = || parts.next().with_context(|| format!("not a step: {line:?}"));
        if next()? != MARK {
            bail!("not a step: {line:?}");
        }
        let (name, verdict, seconds, note) = (next()?, next()?, next()?, next()?);
        let verdict = match verdict {
            "passed" => Verdict::Passed,
            "failed" => Verdict::Failed,
            other => {
                let cause = other.strip_prefix("not reached: ");
                Verdict::NotReached(cause.with_context(|| format!("not a step: {line:?}"))?.to_owned())
            }
        };
        Ok(Self { name: name.to_owned(), verdict, seconds: seconds.parse()?, note: note.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, Verdict};

    #[test]
    fn a_step_reads_back_as_it_was_written() {
        for verdict in [Verdict::Passed, Verdict::Failed, Verdict::NotReached("start".into())] {
            let step = Step { name: "flap vmxnet3".into(), verdict, seconds: 1.5, note: "a | b, c".into() };
            assert_eq!(format!("{step}\r").parse::<Step>().unwrap(), step);
        }
        "test result: ok. 1 passed".parse::<Step>().unwrap_err();
        let end = Step::end(7);
        assert_eq!(end.to_string().parse::<Step>().unwrap().steps(), Some(7));
    }
}
