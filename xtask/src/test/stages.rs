//! The stages, in the order in which they run: what is quick to fail comes first.

use anyhow::Result;

use super::{Objects, kernel, other_kernel, shipped, source};
use crate::setup::Tool;

/// What a stage that did not fail came to.
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

/// One thing that is checked.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Tools that are installed first, where that is allowed.
    pub(super) needs: &'static [Tool],
    /// Only when this object is to be tested.
    pub(super) object: Option<Objects>,
    pub(super) run: fn(Objects) -> Result<Outcome>,
}

const FRESH: Option<Objects> = Some(Objects::Fresh);
const COMMITTED: Option<Objects> = Some(Objects::Committed);

/// All stages.
pub(super) const STAGES: &[Stage] = &[
    Stage { name: "format", title: "every file is formatted", needs: &[], object: None, run: source::format },
    Stage {
        name: "lint",
        title: "clippy finds nothing, and every member takes the shared lint table",
        needs: &[],
        object: None,
        run: source::lint,
    },
    Stage {
        name: "lint-bpf",
        title: "clippy finds nothing in the BPF programs",
        needs: &[],
        object: None,
        run: source::lint_bpf,
    },
    Stage {
        name: "dependencies",
        title: "licences, sources and bans of the dependencies",
        needs: &[Tool::CargoDeny],
        object: None,
        run: source::dependencies,
    },
    Stage { name: "unit", title: "tests without root", needs: &[], object: None, run: source::unit },
    Stage {
        name: "doc",
        title: "the documentation builds clean",
        needs: &[],
        object: None,
        run: source::doc,
    },
    Stage {
        name: "unit-file",
        title: "the systemd unit's hardening",
        needs: &[Tool::SystemdAnalyze],
        object: None,
        run: shipped::unit_file,
    },
    Stage {
        name: "prometheus",
        title: "metrics page and alert rules",
        needs: &[Tool::Promtool],
        object: None,
        run: shipped::prometheus,
    },
    Stage {
        name: "fuzz",
        title: "ten seconds of each coverage-guided target",
        needs: &[Tool::CargoFuzz],
        object: None,
        run: source::fuzz,
    },
    Stage {
        name: "object",
        title: "the committed object is what its sources make",
        needs: &[Tool::BpfToolchain, Tool::BpfClippy],
        object: FRESH,
        run: source::object,
    },
    Stage {
        name: "kernel",
        title: "in-kernel and namespace tests, committed object",
        needs: &[Tool::Network],
        object: COMMITTED,
        run: kernel::committed,
    },
    Stage {
        name: "faults",
        title: "kills, failing system calls, full tables and floods under load",
        needs: kernel::FAULT_TOOLS,
        object: COMMITTED,
        run: kernel::faults,
    },
    Stage {
        name: "linux-5.10",
        title: "in-kernel tests on Linux 5.10, committed object",
        needs: &[Tool::OtherKernels],
        object: COMMITTED,
        run: |_| other_kernel::committed("5.10"),
    },
    Stage {
        name: "kernel-fresh",
        title: "in-kernel and namespace tests, object built now",
        needs: &[Tool::Network],
        object: FRESH,
        run: kernel::fresh,
    },
    Stage {
        name: "linux-5.10-fresh",
        title: "in-kernel tests on Linux 5.10, object built now",
        needs: &[Tool::OtherKernels],
        object: FRESH,
        run: |objects| other_kernel::fresh("5.10", objects),
    },
];

/// Every stage's name, for the command line.
pub(super) fn names() -> Vec<&'static str> {
    STAGES.iter().map(|stage| stage.name).collect()
}
