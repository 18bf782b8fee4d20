//! One set of loaded programs for a whole test binary, which judges one packet at a time and whose counters
//! are checked.

use std::{
    io::Write as _,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::Result;
use pomguard::{
    kernel::{clock::Ticks, probe::Probe},
    policy::{Direction, Policy},
};
use pomguard_common::{
    control::{Timed, word},
    counter::{Counters, RowTally, Tally},
    decide::{Decision, NO_ROW},
    flow::Entered,
    reason::Reason,
};

use crate::{
    control_state::ControlState,
    force::{FOREVER, InForce},
};

/// The complete expected effect of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The reason under which the packet is counted, which determines the verdict.
    pub reason: Reason,
    /// True if the packet passes although the reason is a drop: audit.
    pub audited: bool,
    /// The counter slot of the row under which the packet is counted.
    pub row: u16,
    /// True if the packet counts as a new connection of the row.
    pub connection: bool,
    /// True if the packet enters a flow into the flow table.
    pub enters: bool,
}

impl Effect {
    /// Creates an effect with a reason alone.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self { reason, audited: false, row: NO_ROW, connection: false, enters: false }
    }

    /// Creates the effect of a decision of the decision code.
    pub fn by(decision: Decision) -> Self {
        Self {
            reason: decision.reason(),
            audited: decision.audited(),
            row: decision.row(),
            connection: decision.row() != NO_ROW && decision.opens(),
            enters: matches!(decision.entered(), Some(Entered::New | Entered::Evicted)),
        }
    }

    /// Returns true if the packet passes.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.audited || self.reason.verdict().is_pass()
    }
}

/// A judge of packets under a policy: the loaded programs, or the same code on the host.
pub trait Subject {
    /// Returns the policy in force.
    fn in_force(&self) -> &InForce;

    /// Advances the clock by `seconds`.
    ///
    /// # Errors
    /// If the kernel refuses an operation.
    fn wait(&mut self, seconds: u32) -> Result<()>;

    /// Puts another policy in force and removes all flows.
    ///
    /// # Errors
    /// If the policy does not compile, or the kernel refuses an operation.
    fn renew(&mut self, policy: Policy) -> Result<()>;

    /// Puts another policy in force and ends the state alongside the policy. Flows stay.
    ///
    /// # Errors
    /// If the policy does not compile, or the kernel refuses an operation.
    fn change(&mut self, policy: Policy) -> Result<()>;

    /// Empties the table of ports that serve.
    ///
    /// # Errors
    /// If the kernel refuses an operation.
    fn forget_ports(&mut self) -> Result<()>;

    /// Judges a frame. Returns the reason, and true if the frame passes only because of audit.
    ///
    /// # Errors
    /// If the frame cannot be run.
    fn reason(&mut self, direction: Direction, frame: &[u8]) -> Result<(Reason, bool)>;

    /// Runs a frame and compares all counters with the expected effect.
    ///
    /// # Errors
    /// If the frame cannot be run.
    fn differences(&mut self, direction: Direction, frame: &[u8], want: Effect) -> Result<Vec<String>>;

    /// Replaces the state alongside the policy.
    ///
    /// # Errors
    /// If the kernel refuses an operation.
    fn hold(&mut self, control_state: &ControlState) -> Result<()>;

    /// Expires all flows and fragments: the clock advances by more than the longest age. In the kernel this
    /// takes a few thousand system calls less than emptying the tables.
    ///
    /// # Errors
    /// If the kernel refuses an operation.
    fn forget(&mut self) -> Result<()> {
        self.forget_ports()?;
        self.wait(FOREVER)
    }
}

/// The loaded programs with a policy.
pub struct Bench {
    /// Handle of the programs.
    pub probe: Probe,
    in_force: InForce,
    /// True if the fast programs leave every packet to the general programs.
    general_alone: bool,
}

/// Returns true if this process is root. Otherwise prints past the test runner's capture that `what` was
/// skipped.
#[must_use]
pub fn root_or_skip(what: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    // A skipped test must not look like a test that ran.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: it needs root");
    false
}

/// Returns the bench of this test binary with `policy` in force and no flows. Returns `None` without root.
/// Verifying the programs takes seconds, so all tests share one bench.
///
/// # Panics
/// If the kernel refuses an operation.
#[must_use]
#[expect(clippy::expect_used, reason = "without the program there is nothing to test")]
pub fn bench(what: &str, policy: Policy) -> Option<MutexGuard<'static, Bench>> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    if !root_or_skip(what) {
        return None;
    }
    let bench = BENCH.get_or_init(|| Mutex::new(Bench::load().expect("the programs load")));
    // A failed test leaves no state that the next test does not set anew.
    let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    bench.general_alone = false;
    bench.probe.put_in_general().expect("the kernel takes the programs");
    bench.renew(policy).expect("the kernel takes the policy");
    Some(bench)
}

impl Bench {
    fn load() -> Result<Self> {
        let in_force = InForce::new(crate::reference::policy(), Ticks::probe()?.clock())?;
        Ok(Self { probe: Probe::alone()?, in_force, general_alone: false })
    }

    /// Makes the general programs judge every packet until the next test. A grace period that is over keeps
    /// the fast programs from deciding anything, and has no other effect.
    ///
    /// # Errors
    /// If the kernel refuses an operation.
    pub fn leave_all_to_general(&mut self) -> Result<()> {
        self.general_alone = true;
        self.hold(&ControlState::default())
    }

    /// Puts another policy in force under the next generation, with the overrides of its failsafe rows and no
    /// other state alongside the policy. Flows stay.
    ///
    /// # Errors
    /// If the policy does not compile, or the kernel refuses an operation.
    pub fn enforce(&mut self, policy: Policy) -> Result<()> {
        self.in_force.replace(policy)?;
        self.install()?;
        self.hold(&ControlState::default())
    }

    /// Advances the clock by a number of ticks, which may wrap.
    ///
    /// # Errors
    /// If the policy does not compile, or the kernel refuses an operation.
    pub fn wait_ticks(&mut self, ticks: u32) -> Result<()> {
        self.in_force.wait_ticks(ticks);
        self.install()
    }

    fn install(&mut self) -> Result<()> {
        Ok(self.probe.set(&self.in_force.image()?, self.in_force.slots().collect())?)
    }

    /// Returns the counter slots and tallies of all rows in force.
    ///
    /// # Errors
    /// If the kernel refuses an operation.
    pub fn tallies(&self) -> Result<Vec<(u16, RowTally)>> {
        self.in_force.slots().map(|slot| Ok((slot, self.probe.row(slot)?))).collect()
    }
}

impl Subject for Bench {
    fn in_force(&self) -> &InForce {
        &self.in_force
    }

    fn wait(&mut self, seconds: u32) -> Result<()> {
        self.in_force.wait(seconds);
        self.install()
    }

    fn change(&mut self, policy: Policy) -> Result<()> {
        self.enforce(policy)
    }

    fn forget_ports(&mut self) -> Result<()> {
        Ok(self.probe.forget_ports()?)
    }

    fn renew(&mut self, policy: Policy) -> Result<()> {
        self.forget_ports()?;
        if self.in_force.wait_for_all_ages() {
            self.probe.forget_connections()?;
        }
        self.enforce(policy)
    }

    fn reason(&mut self, direction: Direction, frame: &[u8]) -> Result<(Reason, bool)> {
        let finding = self.probe.run(direction, frame)?;
        Ok((finding.reason, finding.audited))
    }

    fn hold(&mut self, control_state: &ControlState) -> Result<()> {
        let clock = self.in_force.clock();
        // Without an image the programs do not add the offset by which tests advance the clock.
        let offset = if control_state.no_policy { 0 } else { clock.offset };
        let now = (Ticks::probe()?.now()? as u32).wrapping_add(offset);
        let (mut words, lines) =
            control_state.laid_out(self.in_force.overrides()?, now, clock.ticks_per_1000s);
        if self.general_alone && words[word::GRACE] == 0 {
            words[word::GRACE] = Timed::until(1, now.wrapping_sub(1).max(1)).0;
        }
        Ok(self.probe.hold(words, &lines, control_state.no_policy)?)
    }

    fn differences(&mut self, direction: Direction, frame: &[u8], want: Effect) -> Result<Vec<String>> {
        let before = self.probe.counters()?;
        let rows = self.tallies()?;
        let passed = self.probe.verdict(direction, frame)?;
        let after = self.probe.counters()?;
        let mut found = Vec::new();
        if passed != want.passes() {
            found.push(format!("passed is {passed}"));
        }
        let tally = Tally { packets: 1, bytes: frame.len() as u64 };
        let expected = after_one(before, direction, tally, want);
        found.extend(unlike(&expected, &after));
        for ((slot, old), (_, new)) in rows.into_iter().zip(self.tallies()?) {
            let name = self.in_force.row_name(slot);
            let hit = u64::from(slot == want.row);
            let expected = (old.packets + hit, old.bytes + hit * tally.bytes);
            if (new.packets, new.bytes) != expected {
                found.push(format!("row {name} counted {} packets", new.packets - old.packets));
            }
            let opened = new.connections - old.connections;
            if opened != u64::from(want.connection) * hit {
                found.push(format!("row {name} counted {opened} connections"));
            }
        }
        Ok(found)
    }
}

/// Returns the counters expected after one packet.
#[must_use]
pub fn after_one(mut counters: Counters, direction: Direction, tally: Tally, effect: Effect) -> Counters {
    let half = &mut counters.direction[direction.index()];
    let judged = if effect.audited { &mut half.audited } else { &mut half.judged };
    for at in [&mut half.seen, &mut judged[effect.reason.index()]] {
        at.packets += tally.packets;
        at.bytes += tally.bytes;
    }
    counters.flows_opened += u64::from(effect.enters);
    counters
}

/// Lists the differences between two sets of counters. The list is empty if they agree.
#[must_use]
pub fn unlike(expected: &Counters, found: &Counters) -> Vec<String> {
    let mut all = Vec::new();
    if expected == found {
        return all;
    }
    let mut compare = |what: String, expected: Tally, found: Tally| {
        if expected != found {
            let packets = i128::from(found.packets) - i128::from(expected.packets);
            let bytes = i128::from(found.bytes) - i128::from(expected.bytes);
            all.push(format!("{what} counted {packets:+} packets and {bytes:+} bytes off"));
        }
    };
    for direction in Direction::ALL {
        let name = direction.name();
        let (wanted, had) = (&expected.direction[direction.index()], &found.direction[direction.index()]);
        compare(format!("{name} seen"), wanted.seen, had.seen);
        for at in 0..wanted.judged.len() {
            let reason = Reason::from_number(at as u8).map_or("no reason", Reason::name);
            compare(format!("{name} {reason}"), wanted.judged[at], had.judged[at]);
            compare(format!("{name} {reason} (audited)"), wanted.audited[at], had.audited[at]);
        }
    }
    for (what, expected, found) in [
        ("flows opened", expected.flows_opened, found.flows_opened),
        ("flows evicted", expected.flows_evicted, found.flows_evicted),
        ("events lost", expected.events_lost, found.events_lost),
    ] {
        compare(what.to_owned(), Tally { packets: expected, bytes: 0 }, Tally { packets: found, bytes: 0 });
    }
    all
}
