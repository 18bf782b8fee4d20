//! One loaded program for a whole test binary, asked one packet at a time and watched closely.

use std::{
    io::Write as _,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result};
use pomguard::{
    compile::{self, Clock, Image, Slots},
    kernel::{clock::Ticks, probe::Probe},
    policy::{Direction, Policy, RowId},
};
use pomguard_common::{
    counter::{Counters, RowTally, Tally},
    decide::NO_ROW,
    flow::State,
    reason::Reason,
};

/// What a packet is to do, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Under what it is counted, and so whether it passes.
    pub reason: Reason,
    /// It passes although the reason is a drop: audit.
    pub audited: bool,
    /// The row that it is counted under.
    pub row: u16,
    /// It counts as a new connection of the row.
    pub connection: bool,
    /// It enters a conversation into the flow table.
    pub enters: bool,
}

impl Effect {
    /// Under a reason alone.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self { reason, audited: false, row: NO_ROW, connection: false, enters: false }
    }

    /// Whether the packet goes on.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.audited || self.reason.verdict().is_pass()
    }
}

/// The loaded program with a policy.
pub struct Bench {
    /// The program.
    pub probe: Probe,
    policy: Policy,
    slots: Slots,
    clock: Clock,
    generation: u32,
}

/// Whether this process is root; if not, says past the test runner's capture what was skipped.
#[must_use]
pub fn root_or_skip(what: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    // A skipped test must not look like one that ran.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: it needs root");
    false
}

/// The bench of this test binary with `policy` in force and no conversations; none without root.
/// Verifying the programs takes seconds, so that all tests share one.
///
/// # Panics
/// When the kernel refuses.
#[must_use]
#[expect(clippy::expect_used, reason = "without the program there is nothing to test")]
pub fn bench(what: &str, policy: Policy) -> Option<MutexGuard<'static, Bench>> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    if !root_or_skip(what) {
        return None;
    }
    let bench = BENCH.get_or_init(|| Mutex::new(Bench::load().expect("the programs load")));
    // A failed case leaves nothing behind that the next one would not set anew.
    let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    bench.enforce(policy).expect("the kernel takes the policy");
    bench.forget().expect("the kernel forgets");
    Some(bench)
}

impl Bench {
    fn load() -> Result<Self> {
        let policy = crate::reference::policy();
        Ok(Self {
            probe: Probe::alone()?,
            slots: Slots::assign(&[], &policy)?,
            policy,
            clock: Ticks::probe()?.clock(),
            generation: 0,
        })
    }

    /// Puts another policy in force, under a generation of its own. Conversations stay.
    ///
    /// # Errors
    /// When it does not compile, or the kernel refuses.
    pub fn enforce(&mut self, policy: Policy) -> Result<()> {
        self.slots = Slots::assign(&[], &policy)?;
        self.policy = policy;
        self.generation += 1;
        self.install()
    }

    /// Lets `seconds` go by for the programs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait(&mut self, seconds: u32) -> Result<()> {
        let ticks = u64::from(seconds) * u64::from(self.clock.ticks_per_1000s) / 1_000;
        self.clock.offset = self.clock.offset.wrapping_add(ticks as u32);
        self.install()
    }

    /// The image in force.
    ///
    /// # Errors
    /// When the policy does not compile.
    pub fn image(&self) -> Result<Image> {
        Ok(compile::compile(&self.policy, &self.slots, self.clock, self.generation)?)
    }

    fn install(&mut self) -> Result<()> {
        let image = self.image()?;
        let slots = self.policy.rows.iter().filter_map(|row| self.slots.of(&row.id, row.direction)).collect();
        Ok(self.probe.set(&image, slots)?)
    }

    /// Forgets all conversations and fragments: for the programs, more than the longest age goes by.
    /// That is a few thousand system calls less than to empty the tables.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(&mut self) -> Result<()> {
        self.wait(State::Established.age_seconds() + 60)
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The number of the generation in force.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// The counter slot of a row in force.
    ///
    /// # Errors
    /// When the policy has no such row.
    pub fn slot(&self, id: &str, direction: Direction) -> Result<u16> {
        self.slots.of(&RowId(id.to_owned()), direction).with_context(|| format!("{id}: no such row"))
    }

    /// The id of the row that is counted in a slot.
    #[must_use]
    pub fn row_name(&self, slot: u16) -> &str {
        let of_slot = |row: &&pomguard::policy::Row| self.slots.of(&row.id, row.direction) == Some(slot);
        self.policy.rows.iter().find(of_slot).map_or("no row", |row| &row.id.0)
    }

    /// Runs a frame and compares everything that is counted with what it should come to.
    ///
    /// # Errors
    /// When the kernel cannot run it.
    pub fn differences(&mut self, direction: Direction, frame: &[u8], want: Effect) -> Result<Vec<String>> {
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
            let hit = u64::from(slot == want.row);
            let expected = (old.packets + hit, old.bytes + hit * tally.bytes);
            if (new.packets, new.bytes) != expected {
                found.push(format!(
                    "row {} counted {} packets",
                    self.row_name(slot),
                    new.packets - old.packets
                ));
            }
            let opened = new.connections - old.connections;
            if opened != u64::from(want.connection) * hit {
                found.push(format!("row {} counted {opened} connections", self.row_name(slot)));
            }
        }
        Ok(found)
    }

    fn tallies(&self) -> Result<Vec<(u16, RowTally)>> {
        let slots = self.policy.rows.iter().filter_map(|row| self.slots.of(&row.id, row.direction));
        slots.map(|slot| Ok((slot, self.probe.row(slot)?))).collect()
    }
}

/// What the counters should be after one packet.
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

/// How `found` is unlike what was expected; nothing when it is alike.
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
