//! Judges the readings of this machine that [`crate::kernel::doctor`] took. Pure: equal readings give equal
//! findings.

use serde::Serialize;

use crate::kernel::doctor::MachineFacts;

mod links;
mod machine;
mod others;

/// The severity of a finding. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// pomguard cannot enforce here.
    Failed,
    /// Enforcement may be weaker, slower or later than expected.
    Attention,
    /// Information that needs no action.
    Note,
    /// No problem.
    Good,
}

/// One finding: a sentence, and a command that shows or fixes the cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The part of the machine, as `kernel`, or the name of an interface.
    pub subject: String,
    /// One sentence.
    pub sentence: String,
    /// One command.
    pub command: String,
}

impl Finding {
    fn new(
        severity: Severity,
        subject: &str,
        sentence: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self { severity, subject: subject.to_owned(), sentence: sentence.into(), command: command.into() }
    }
}

/// Returns all findings about a machine, the worst first. `interfaces` are the interfaces of the settings:
/// others are judged less strictly. Without settings, all interfaces count.
#[must_use]
pub fn judge(machine: &MachineFacts, interfaces: &[String]) -> Vec<Finding> {
    let mut findings = machine::judge(machine);
    findings.extend(others::judge(machine));
    findings.extend(links::judge(machine, interfaces));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Returns the severity of the worst finding.
#[must_use]
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).min().unwrap_or(Severity::Good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::doctor::{Link, SystemFacts};

    #[test]
    fn worst_findings_come_first() {
        let machine = MachineFacts {
            root: true,
            system: SystemFacts {
                release: "6.12.1".to_owned(),
                btf: true,
                bpffs: false,
                ..SystemFacts::default()
            },
            links: vec![Link { name: "eth0".to_owned(), ethernet: true, mtu: 1500, ..Link::default() }],
            ..MachineFacts::default()
        };
        let findings = judge(&machine, &[]);
        assert!(findings.is_sorted_by_key(|finding| finding.severity), "{findings:#?}");
        assert_eq!((worst(&findings), findings[0].subject.as_str()), (Severity::Failed, "bpffs"));
        assert_eq!(worst(&[]), Severity::Good);
        for finding in findings {
            assert!(finding.sentence.ends_with('.') && !finding.command.is_empty(), "{finding:?}");
        }
    }
}
