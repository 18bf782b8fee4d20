//! Test cases: a sequence of steps, with everything that each step must count.

use std::env;

use pomguard::policy::Policy;
use pomguard_common::{Direction, flow::State, reason::Reason};
use pomguard_tests::{
    control_state::ControlState,
    harness::{Effect, Subject, bench},
    host_datapath::HostDatapath,
    packet::Packet,
    reference,
};

/// Seconds after which a silent established flow is forgotten.
pub(crate) const AGE: u32 = State::Established.age_seconds();

enum Step {
    Packet { direction: Direction, packet: Box<Packet>, effect: Effect, row: Option<&'static str> },
    Wait(u32),
    Hold(ControlState),
    Change(Box<Policy>),
}

/// One case: steps on an empty flow table.
#[must_use]
pub(crate) struct Case {
    id: &'static str,
    says: String,
    steps: Vec<Step>,
    tagged: bool,
}

/// Creates a case of the catalogue, described by a sentence.
pub(crate) fn case(id: &'static str, says: impl Into<String>) -> Case {
    Case { id, says: says.into(), steps: Vec::new(), tagged: true }
}

impl Case {
    /// Adds an inbound packet.
    pub(crate) fn inbound(self, packet: &Packet, reason: Reason) -> Self {
        self.packet(Direction::Inbound, packet, reason)
    }

    /// Adds an outbound packet.
    pub(crate) fn outbound(self, packet: &Packet, reason: Reason) -> Self {
        self.packet(Direction::Outbound, packet, reason)
    }

    /// Adds an inbound packet and its outbound mirror image, with the same reason.
    pub(crate) fn both_ways(self, packet: &Packet, reason: Reason) -> Self {
        self.inbound(packet, reason).outbound(&packet.clone().mirrored(), reason)
    }

    fn packet(mut self, direction: Direction, packet: &Packet, reason: Reason) -> Self {
        let packet = Box::new(packet.clone());
        self.steps.push(Step::Packet { direction, packet, effect: Effect::of(reason), row: None });
        self
    }

    fn last(mut self, change: impl FnOnce(&mut Effect, &mut Option<&'static str>)) -> Self {
        if let Some(Step::Packet { effect, row, .. }) = self.steps.last_mut() {
            change(effect, row);
        }
        self
    }

    /// Expects the last packet to be counted under a row.
    pub(crate) fn row(self, id: &'static str) -> Self {
        self.last(|_, row| *row = Some(id))
    }

    /// Expects the last packet to count as a new connection of its row.
    pub(crate) fn connects(self) -> Self {
        self.last(|effect, _| effect.connection = true)
    }

    /// Expects the last packet to enter a flow into the flow table.
    pub(crate) fn enters(self) -> Self {
        self.last(|effect, _| effect.enters = true)
    }

    /// Expects the last packet to pass because of audit.
    pub(crate) fn audited(self) -> Self {
        self.last(|effect, _| effect.audited = true)
    }

    /// Advances the clock by at least this time: in the kernel the duration of the steps is added. On an
    /// emulated machine that takes seconds, so a step that must happen before an age ends keeps a margin of
    /// ten seconds.
    pub(crate) fn wait(mut self, seconds: u32) -> Self {
        self.steps.push(Step::Wait(seconds));
        self
    }

    /// Sets the state alongside the policy, until another such step or the end of the case.
    pub(crate) fn holding(mut self, control_state: ControlState) -> Self {
        self.steps.push(Step::Hold(control_state));
        self
    }

    /// Puts another policy in force, until the end of the case.
    pub(crate) fn change(mut self, policy: Policy) -> Self {
        self.steps.push(Step::Change(Box::new(policy)));
        self
    }

    /// Excludes the run behind a priority tag: the case is about tags itself.
    pub(crate) fn untagged(mut self) -> Self {
        self.tagged = false;
        self
    }

    /// Returns true if a step may have left a flow, a fragment or a port that serves.
    fn leaves_traces(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Packet { direction, packet, effect, .. } => {
                let lasts = *direction == Direction::Outbound || packet.is_fragment() || effect.audited;
                effect.passes() && lasts
            }
            Step::Change(_) => true,
            Step::Wait(_) | Step::Hold(_) => false,
        })
    }

    fn run(&self, subject: &mut dyn Subject, behind_tag: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let before = subject.in_force().policy().clone();
        for (number, step) in (1..).zip(&self.steps) {
            let (direction, packet, mut effect, row) = match step {
                Step::Packet { direction, packet, effect, row } => (*direction, packet, *effect, *row),
                Step::Wait(seconds) => {
                    subject.wait(*seconds).expect("time goes by");
                    continue;
                }
                Step::Hold(control_state) => {
                    subject.hold(control_state).expect("it holds");
                    continue;
                }
                Step::Change(policy) => {
                    subject.change(policy.as_ref().clone()).expect("the policy compiles");
                    continue;
                }
            };
            if let Some(row) = row {
                effect.row = subject.in_force().slot(row, direction).expect("the row exists");
            }
            let packet = if behind_tag { packet.as_ref().clone().vlan(0) } else { packet.as_ref().clone() };
            let differences =
                subject.differences(direction, &packet.build(), effect).expect("the frame runs");
            if !differences.is_empty() {
                let tag = if behind_tag { ", tagged" } else { "" };
                let (id, says, reason) = (self.id, &self.says, effect.reason.name());
                let all = differences.join("; ");
                faults.push(format!(
                    "{id}: {says} (step {number}, {}{tag}): expected {reason}: {all}",
                    direction.name()
                ));
            }
        }
        if self.steps.iter().any(|step| matches!(step, Step::Change(_))) {
            subject.change(before).expect("the policy compiles");
        }
        if self.steps.iter().any(|step| matches!(step, Step::Hold(_))) {
            subject.hold(&ControlState::default()).expect("it holds no more");
        }
        if self.leaves_traces() || !faults.is_empty() {
            subject.forget().expect("everything is forgotten");
        }
        faults
    }
}

/// Runs all cases under the reference policy, and reports all failures.
pub(crate) fn run(what: &str, cases: &[Case]) {
    run_under(what, reference::policy(), cases);
}

/// Runs all cases under another policy.
pub(crate) fn run_under(what: &str, policy: Policy, cases: &[Case]) {
    everywhere(what, policy, |subject, place| {
        let mut faults = Vec::new();
        for case in cases {
            faults.extend(case.run(subject, false));
            if case.tagged {
                faults.extend(case.run(subject, true));
            }
        }
        let (count, all) = (faults.len(), faults.join("\n"));
        assert!(faults.is_empty(), "{count} of {} cases differ {place}:\n{all}", cases.len());
    });
}

/// Runs `test` on the decision code as built for the host, then on the loaded programs. With
/// `POMGUARD_HOST_ONLY` only on the host.
pub(crate) fn everywhere(what: &str, policy: Policy, test: impl Fn(&mut dyn Subject, &str)) {
    test(&mut HostDatapath::new(policy.clone()).expect("the policy compiles"), "on the host");
    if env::var_os("POMGUARD_HOST_ONLY").is_some() {
        return;
    }
    let Some(mut bench) = bench(what, policy) else { return };
    test(&mut *bench, "in the kernel");
}
