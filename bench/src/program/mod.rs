//! Nanoseconds per run of the programs, over varied packets.
//!
//! The kernel runs a program many times over one packet (BPF_PROG_TEST_RUN). Here that program is a shuffler:
//! it writes the next of up to 131,072 prepared headers into the packet and tail-calls the program under
//! test. The floor is the same shuffler before a program that does nothing. Floor and subjects alternate, so
//! that other load on the machine affects all of them. The result is the difference within a round: its
//! median and its least value. For inbound packets that need no flow, the reference runs in the same turns
//! ([`mod@reference`]).

mod case;
mod reference;
mod subject;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use pomguard_record as record;
use pomguard_workspace as workspace;

use self::{
    case::Case,
    reference::Reference,
    subject::Subject,
    table::{Line, Measured},
};
use super::{
    Setting,
    figures::ProgramFigure,
    guard::{Guard, Order},
    policy::{Family, Policy, Scope},
    shuffler::Shuffler,
};

/// The conditions of one measurement.
#[derive(Clone, Copy)]
struct Plan {
    family: Family,
    scope: Scope,
    inbound: &'static str,
}

const fn plan(family: Family, tuples: usize, inbound: &'static str) -> Plan {
    Plan { family, scope: Scope::Random(tuples), inbound }
}

const PLANS: &[Plan] = &[
    Plan { family: Family::V4, scope: Scope::Pom, inbound: "enforce" },
    plan(Family::V4, 10, "enforce"),
    plan(Family::V4, 100, "enforce"),
    plan(Family::V4, 1_000, "enforce"),
    plan(Family::V4, 10_000, "enforce"),
    plan(Family::V4, 10_000, "audit"),
    plan(Family::V4, 100_000, "enforce"),
    plan(Family::V6, 10, "enforce"),
    plan(Family::V6, 10_000, "enforce"),
    plan(Family::V6, 100_000, "enforce"),
];

/// The plans of a quick run.
const QUICK: &[Plan] = &[PLANS[0], plan(Family::V4, 10_000, "enforce"), plan(Family::V6, 10_000, "enforce")];

/// Rounds per case.
const ROUNDS: usize = 21;
const QUICK_ROUNDS: usize = 15;

/// A choice among policies and cases.
#[derive(Debug, clap::Args)]
pub(super) struct Only {
    /// Of the programs, only policies with so many random tuples
    #[arg(long, value_name = "NUMBER")]
    tuples: Option<usize>,
    /// Of the programs, only cases whose name contains this (repeatable)
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
}

impl Only {
    fn has_plan(&self, plan: &Plan) -> bool {
        self.tuples.is_none_or(|tuples| plan.scope == Scope::Random(tuples))
    }

    fn has_case(&self, case: &Case) -> bool {
        self.case.is_empty() || self.case.iter().any(|text| case.name.contains(text.as_str()))
    }
}

/// Measures the committed object and `others`. Returns the figures of the committed object.
pub(super) fn run(setting: &Setting, others: &[PathBuf], only: &Only) -> Result<Vec<ProgramFigure>> {
    // One processor: each packet finds in the caches the data of the packet before.
    let mut last = CpuSet::new();
    last.set(std::thread::available_parallelism()?.get() - 1)?;
    sched_setaffinity(Pid::from_raw(0), &last).context("staying on one processor")?;
    let committed = workspace::root().join(record::OBJECT);
    let objects: Vec<&Path> = std::iter::once(&committed).chain(others).map(PathBuf::as_path).collect();
    let (plans, rounds) = if setting.quick { (QUICK, QUICK_ROUNDS) } else { (PLANS, ROUNDS) };
    let mut shuffler = Shuffler::load(&workspace::root().join(record::BENCH_OBJECT))?;
    let mut lines = Vec::new();
    for (number, plan) in plans.iter().filter(|plan| only.has_plan(plan)).enumerate() {
        let policy = Policy::of(setting, plan.family, plan.scope)?;
        let what = format!("{}, {} tuples{}", plan.family.name(), policy.size(), plan.scope.says());
        setting.say(&format!("the programs: {what}, inbound {}", plan.inbound));
        let (name, site) = (format!("program-{number}"), policy.site_file()?);
        let order = Order { name: &name, site: &site, inbound: plan.inbound, attach: "native" };
        let mut guard = Guard::start(setting, &order)?;
        let subjects = objects.iter().map(|object| Subject::load(object, &guard.pins));
        let mut subjects = subjects.collect::<Result<Vec<_>>>()?;
        let mut reference = Reference::load(&workspace::root().join(record::BENCH_OBJECT), &policy)?;
        let (before, cases) = case::all(&policy, plan.inbound)?;
        for subject in &mut subjects {
            for step in &before {
                shuffler.fill(&step.headers)?;
                subject.run(&mut shuffler, step.hook, step.headers.len())?;
            }
        }
        for case in cases.into_iter().filter(|case| only.has_case(case)) {
            let reference = reference.as_mut().filter(|_| Reference::knows(&case));
            let (measured, by_reference) = measure(&mut shuffler, &mut subjects, reference, &case, rounds)
                .with_context(|| format!("{}: {what}", case.name))?;
            let by_reference = by_reference.spread();
            for (subject, measured) in subjects.iter().zip(measured) {
                lines.push(Line {
                    case: case.name,
                    family: plan.family,
                    tuples: policy.size(),
                    pom: plan.scope == Scope::Pom,
                    inbound: plan.inbound,
                    object: subject.name.clone(),
                    measured,
                    reference: by_reference,
                });
            }
        }
        guard.check_alive()?;
    }
    if objects.len() > 1 {
        table::print(&lines);
    }
    // The committed object comes first in each case.
    Ok(lines.iter().step_by(objects.len()).filter_map(Line::figure).collect())
}

/// Runs the floor, every subject and the reference over the packets of a case, in turns. Returns the values of the
/// subjects and of the reference.
fn measure(
    shuffler: &mut Shuffler,
    subjects: &mut [Subject],
    mut reference: Option<&mut Reference>,
    case: &Case,
    rounds: usize,
) -> Result<(Vec<Measured>, Measured)> {
    shuffler.fill(&case.headers)?;
    let runs = case.headers.len();
    let mut measured: Vec<Measured> = subjects.iter().map(|_| Measured::default()).collect();
    let mut by_reference = Measured::default();
    // The first round only warms the caches.
    for round in 0..=rounds {
        let floor = shuffler.floor(case.hook, runs)?;
        for (subject, measured) in subjects.iter_mut().zip(&mut measured) {
            let nanoseconds = subject.counted(shuffler, case, runs)?;
            if round != 0 {
                measured.add(floor, nanoseconds);
            }
        }
        if let Some(reference) = reference.as_deref_mut() {
            let nanoseconds = reference.counted(shuffler, case, runs)?;
            if round != 0 {
                by_reference.add(floor, nanoseconds);
            }
        }
    }
    Ok((measured, by_reference))
}
