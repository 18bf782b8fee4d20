//! The steps that are known to fail, and the check of a guest's report.

use pomguard_netlab::outside::{Step, Verdict};

/// A step that fails on a kernel until a defect is repaired.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    kernel: &'static str,
    pub(super) step: &'static str,
    /// Part of the step's fault. A step that fails for another reason is not a known failure.
    error: &'static str,
    /// The cause, as text for the reader of a run.
    pub(super) reason: &'static str,
}

/// All known failures. If such a step passes, the run fails: then remove the line from this list.
pub(super) const KNOWN: &[Known] = &[];

/// A checked report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged<'a> {
    pub(super) passed: usize,
    /// Everything that fails the run.
    pub(super) faults: Vec<String>,
    /// The entries of the list that the report confirms.
    pub(super) known: Vec<&'a Known>,
}

/// Compares a guest's report with the list.
pub(super) fn judge<'a>(kernel: &str, steps: &[Step], known: &'a [Known]) -> Judged<'a> {
    let mut judged = Judged::default();
    let expected: Vec<&'a Known> = known.iter().filter(|known| known.kernel == kernel).collect();
    let find = |name: &str| expected.iter().copied().find(|known| known.step == name);
    let failed = |name: &str| steps.iter().any(|it| it.name == name && it.verdict == Verdict::Failed);
    let end = steps.last().and_then(Step::steps);
    for step in steps.iter().filter(|step| step.steps().is_none()) {
        let Step { name, note, .. } = step;
        match (&step.verdict, find(name)) {
            (Verdict::Passed, None) => judged.passed += 1,
            (Verdict::Passed, Some(_)) => judged
                .faults
                .push(format!("{name} passes, and is on the list of known failures: take it off the list")),
            (Verdict::Failed, Some(known)) if note.contains(known.error) => judged.known.push(known),
            (Verdict::Failed, _) => judged.faults.push(format!("{name}: {note}")),
            (Verdict::NotReached(cause), _) if failed(cause) && find(cause).is_some() => {}
            (Verdict::NotReached(cause), _) => {
                judged.faults.push(format!("{name} was not reached, because of {cause}"));
            }
        }
    }
    let is_there = |name: &str| steps.iter().any(|step| step.name == name);
    for known in expected.iter().filter(|known| !is_there(known.step)) {
        judged.faults.push(format!("no step {}, which is on the list of known failures", known.step));
    }
    if end.is_none_or(|count| count == 0 || count + 1 != steps.len()) {
        let message = end.map_or("none".to_owned(), |count| count.to_string());
        judged.faults.push(format!("the report has {} lines, and told of {message} steps", steps.len()));
    }
    judged
}

/// Returns the word for a step in the table.
pub(super) fn word(kernel: &str, step: &Step) -> String {
    let known = KNOWN.iter().find(|known| known.kernel == kernel && known.step == step.name);
    match &step.verdict {
        Verdict::Passed if known.is_some() => format!("{:.1} passes UNEXPECTEDLY", step.seconds),
        Verdict::Passed => format!("{:.1}", step.seconds),
        Verdict::Failed if known.is_some_and(|known| step.note.contains(known.error)) => {
            "known failure".to_owned()
        }
        Verdict::Failed => "FAILED".to_owned(),
        Verdict::NotReached(cause) => format!("not reached: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use pomguard_netlab::outside::{Step, Verdict};

    use super::{Known, judge};

    const KNOWN: &[Known] = &[
        Known { kernel: "6.1", step: "start", error: "why", reason: "a reason" },
        Known { kernel: "6.12", step: "flap", error: "why", reason: "another" },
    ];

    fn step(name: &str, verdict: Verdict) -> Step {
        Step { name: name.into(), verdict, seconds: 0.0, note: "why".into() }
    }

    #[test]
    fn a_known_failure_is_named_and_fails_nothing() {
        let not_reached = step("kill", Verdict::NotReached("start".into()));
        let judged = judge("6.1", &[step("start", Verdict::Failed), not_reached, Step::end(2)], KNOWN);
        assert!(judged.faults.is_empty(), "{judged:?}");
        assert_eq!(judged.known, [&KNOWN[0]]);
    }

    #[test]
    fn a_known_step_that_fails_otherwise_fails_the_run() {
        let start = Step { note: "something else".into(), ..step("start", Verdict::Failed) };
        let judged = judge("6.1", &[start, Step::end(1)], KNOWN);
        assert_eq!(judged.faults, ["start: something else"]);
        assert!(judged.known.is_empty(), "{judged:?}");
    }

    #[test]
    fn a_known_failure_that_passes_fails_the_run() {
        let judged = judge("6.12", &[step("flap", Verdict::Passed), Step::end(1)], KNOWN);
        assert!(judged.faults.concat().contains("take it off the list"), "{judged:?}");
    }

    #[test]
    fn anything_unknown_fails_the_run() {
        for steps in [
            vec![step("start", Verdict::Failed), Step::end(1)],
            vec![step("kill", Verdict::NotReached("start".into())), Step::end(1)],
            vec![step("start", Verdict::Passed)],
            vec![step("start", Verdict::Passed), Step::end(2)],
            vec![Step::end(0)],
            vec![],
        ] {
            assert!(!judge("5.10", &steps, KNOWN).faults.is_empty(), "{steps:?}");
        }
        let other = [step("kill", Verdict::Passed), Step::end(1)];
        assert!(judge("5.10", &other, KNOWN).faults.is_empty());
        assert!(!judge("6.12", &other, KNOWN).faults.is_empty(), "a step of the list is missing");
    }
}
