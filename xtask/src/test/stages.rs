//! The parts of a run and their stages, in the order of execution: stages that fail quickly come first.

use std::time::Duration;

use anyhow::Result;

use super::{guests, kernel, outcome::Outcome, packages, run::Run, shipped, source};
use crate::setup::Tool;

/// Stages that share a budget.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// The time that all its stages together may take, on the reference machine of the budgets.
    pub(super) budget: Duration,
    pub(super) stages: &'static [Stage],
}

/// One check.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Tools that are installed first, if installation is allowed.
    pub(super) needs: &'static [Tool],
    pub(super) run: fn(&mut Run) -> Result<Outcome>,
}

/// All parts.
pub(super) const PARTS: &[Part] = &[
    Part {
        name: "packages",
        budget: Duration::from_secs(100),
        stages: &[Stage {
            name: "packages",
            title: "tools, other kernels and a small Debian for the tests",
            needs: &[],
            run: packages::prepare,
        }],
    },
    Part {
        name: "build",
        budget: Duration::from_secs(300),
        stages: &[Stage {
            name: "build",
            title: "the daemon, every tool and every test, in one profile",
            needs: &[],
            run: source::build,
        }],
    },
    Part {
        name: "lint",
        budget: Duration::from_secs(130),
        stages: &[
            Stage { name: "format", title: "every file is formatted", needs: &[], run: source::format },
            Stage {
                name: "lint",
                title: "clippy finds nothing, and every member takes the shared lint table",
                needs: &[],
                run: source::lint,
            },
            Stage {
                name: "lint-bpf",
                title: "clippy finds nothing in the BPF programs",
                needs: &[Tool::BpfClippy],
                run: source::lint_bpf,
            },
            Stage { name: "doc", title: "the documentation builds clean", needs: &[], run: source::doc },
        ],
    },
    Part {
        name: "unit",
        budget: Duration::from_secs(100),
        stages: &[
            Stage {
                name: "unit",
                title: "tests without root, among them the datapath and the oracle on the host",
                needs: &[],
                run: source::unit,
            },
            Stage {
                name: "unit-file",
                title: "the systemd unit's hardening",
                needs: &[Tool::SystemdAnalyze],
                run: shipped::unit_file,
            },
            Stage {
                name: "prometheus",
                title: "metrics page and alert rules",
                needs: &[Tool::Promtool],
                run: shipped::prometheus,
            },
            Stage {
                name: "ansible",
                title: "the playbook in check mode, at the example site",
                needs: &[Tool::Ansible],
                run: shipped::ansible,
            },
        ],
    },
    Part {
        name: "kernel",
        budget: Duration::from_secs(400),
        stages: &[Stage {
            name: "kernel",
            title: "tests in the kernel and in network namespaces",
            needs: &[Tool::Network, Tool::Container],
            run: kernel::tests,
        }],
    },
    Part {
        name: "faults",
        budget: Duration::from_secs(200),
        stages: &[Stage {
            name: "faults",
            title: "kills, failing system calls, full tables and floods under load",
            needs: kernel::FAULT_TOOLS,
            run: kernel::faults,
        }],
    },
    Part {
        name: "guests",
        budget: Duration::from_secs(240),
        stages: &[Stage {
            name: "guests",
            title: "one boot each of 5.10, 6.1 and 6.12, with emulated cards",
            needs: &[Tool::OtherKernels],
            run: guests::run,
        }],
    },
    Part {
        name: "demo",
        budget: Duration::from_secs(30),
        stages: &[Stage {
            name: "demo",
            title: "a whole site, every row of the matrix and what it does not list",
            needs: &[],
            run: kernel::demo,
        }],
    },
];

/// Returns the names of all stages, for the command line.
pub(super) fn names() -> Vec<&'static str> {
    PARTS.iter().flat_map(|part| part.stages).map(|stage| stage.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest time of a run on two cores, from a fresh clone.
    const WHOLE: Duration = Duration::from_secs(1_500);

    #[test]
    fn the_budgets_fit_into_a_run() {
        let sum: Duration = PARTS.iter().map(|part| part.budget).sum();
        assert!(sum <= WHOLE, "{sum:?}");
    }

    #[test]
    fn every_stage_has_a_name_of_its_own() {
        let all = names();
        let set: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(set.len(), all.len());
    }
}
