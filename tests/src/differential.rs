//! One scenario, several judges: random packets under random policies, while time passes and policies change.
//! A disagreement is shown with as few and as short packets as possible.

use std::{collections::BTreeMap, env, fmt::Write as _, time::SystemTime};

use anyhow::{Result, ensure};
use pomguard::{
    digest::hex,
    policy::{Direction, Mode, Policy},
};
use pomguard_common::{
    counter::{Counters, RowTally, Tally},
    drops::{DropKey, rest_at, rest_key},
};

use crate::{
    force::InForce,
    harness::{Bench, Effect, Subject as _, after_one, unlike},
    host_datapath::HostDatapath,
    operator_state::{OperatorState, Suspension},
    oracle,
    random::{self, Random, Stream},
};

/// Packets of one scenario.
pub const PACKETS: usize = 1_000;
/// The number of packets after which the kernel's counters are read. Reading them costs as much as thirty
/// packets.
const BATCH: usize = 250;
/// The number of seconds of one wait. No sum of two is near an age at which an entry expires.
const WAITS: [u32; 6] = [90, 180, 270, 400, 431_000, 433_000];

/// One step of a scenario.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame arrives at a hook.
    Frame(Direction, Vec<u8>),
    /// A number of seconds passes.
    Wait(u32),
    /// Another policy comes in force, and the state alongside the policy ends.
    Change(Box<Policy>),
    /// The state alongside the policy, or instead of it, changes.
    Hold(Box<OperatorState>),
}

/// A policy and the steps that happen under it. A seed determines all of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    policy: Policy,
    steps: Vec<Step>,
}

/// The state that some scenarios of every run have for certain and others by chance. The choice is made once
/// per scenario: fifty consecutive scenarios without any that lacked a policy were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sure {
    /// The seed decides.
    Nothing,
    /// There is no policy.
    NoPolicy,
    /// Only failsafe rows are in force.
    Isolated,
    /// The policy is in its grace period.
    Grace,
}

impl Sure {
    const fn in_round(round: u64) -> Self {
        match round % 16 {
            0 => Self::NoPolicy,
            5 => Self::Isolated,
            10 => Self::Grace,
            _ => Self::Nothing,
        }
    }

    fn set(self, held: &mut OperatorState) {
        match self {
            Self::Nothing => return,
            Self::NoPolicy => held.no_policy = true,
            Self::Isolated => held.no_policy = false,
            Self::Grace => (held.no_policy, held.grace) = (false, Some(random::LATE)),
        }
        held.suspension = (self == Self::Isolated).then_some((Suspension::Lockdown, random::LATE));
    }
}

/// Returns the seed of a scenario from the seed of the run.
const fn seed(run: u64, round: u64) -> u64 {
    Random(run ^ round.wrapping_mul(0xd6e8_feb8_6659_fd93)).word()
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The seed, which determines everything.
    pub seed: u64,
    /// The minimum number of packets.
    pub packets: u64,
}

impl Run {
    /// Reads `POMGUARD_FUZZ_SEED` and `POMGUARD_FUZZ_PACKETS`, and prints the seed.
    ///
    /// # Errors
    /// If one of them is not a number.
    pub fn asked(what: &str, packets: u64) -> Result<Self> {
        let number = |name| env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_nanos());
        let seed = number("POMGUARD_FUZZ_SEED")?.unwrap_or(now as u64);
        let packets = number("POMGUARD_FUZZ_PACKETS")?.unwrap_or(packets);
        println!("{what}: POMGUARD_FUZZ_SEED={seed} POMGUARD_FUZZ_PACKETS={packets}");
        Ok(Self { seed, packets })
    }

    /// Returns the scenarios of the run.
    pub fn scenarios(self) -> impl Iterator<Item = Scenario> {
        (0..self.packets.div_ceil(PACKETS as u64))
            .map(move |round| Scenario::of(seed(self.seed, round), Sure::in_round(round)))
    }
}

impl Scenario {
    /// Builds the scenario of a seed. `sure` fixes the state that holds whatever the seed.
    fn of(seed: u64, sure: Sure) -> Self {
        let mut stream = Stream::new(Random(seed));
        let policy = random::policy(&mut stream.random);
        stream.aim(&policy.rows);
        let held = stream.random.once_in(3) || sure != Sure::Nothing;
        let holds = if held { holds(&mut stream, &policy, sure) } else { Vec::new() };
        let pause = stream.random.once_in(3).then(|| stream.random.below(PACKETS));
        // No time passes without a policy: a wait changes the clock of the policy's image.
        let pause = pause.filter(|_| !holds.iter().any(|(_, held)| held.no_policy));
        // State alongside a policy ends with that policy.
        let change = stream.random.once_in(3).then(|| stream.random.below(PACKETS));
        let change = change.filter(|_| holds.is_empty());
        let mut steps = Vec::with_capacity(PACKETS + 2);
        for at in 0..PACKETS {
            for (_, held) in holds.iter().filter(|(when, _)| *when == at) {
                steps.push(Step::Hold(Box::new(held.clone())));
            }
            if Some(at) == pause {
                steps.push(Step::Wait(stream.random.of(&WAITS)));
            }
            if Some(at) == change {
                steps.push(Step::Change(Box::new(random::successor(&mut stream.random, &policy))));
            }
            let direction = stream.random.of(&Direction::ALL);
            steps.push(Step::Frame(direction, runnable(&mut stream, direction)));
        }
        Self { policy, steps }
    }

    /// Returns the same scenario with another mode in both directions, in each of its policies. Rows keep
    /// their own modes.
    #[must_use]
    pub fn in_mode(&self, mode: Mode) -> Self {
        let changed = |policy: &Policy| Policy { inbound: mode, outbound: mode, ..policy.clone() };
        let steps = self.steps.iter().map(|step| match step {
            Step::Change(policy) => Step::Change(Box::new(changed(policy))),
            other => other.clone(),
        });
        Self { policy: changed(&self.policy), steps: steps.collect() }
    }

    fn with(&self, steps: Vec<Step>) -> Self {
        Self { policy: self.policy.clone(), steps }
    }
}

/// Returns the states of a scenario and the packet numbers at which they begin: one state for a while, then
/// another state or none.
fn holds(stream: &mut Stream, policy: &Policy, sure: Sure) -> Vec<(usize, OperatorState)> {
    let random = &mut stream.random;
    let mut first = random::held(random, policy);
    sure.set(&mut first);
    let second = if random.once_in(2) { random::held(random, policy) } else { OperatorState::default() };
    let (begin, end) = (random.below(PACKETS / 2), random.below(PACKETS / 2) + PACKETS / 2);
    // Half of the packets are about a row, of whatever sort.
    let held = [&first, &second]
        .into_iter()
        .flat_map(|held| held.rows.iter().map(|(row, _)| row).chain(&held.elsewhere));
    let rows: Vec<_> = policy.rows.iter().chain(held).cloned().collect();
    stream.aim(&rows);
    vec![(begin, first), (end, second)]
}

/// Returns a random frame that the kernel's test run accepts in this direction. The test run refuses some
/// truncated frames.
fn runnable(stream: &mut Stream, direction: Direction) -> Vec<u8> {
    loop {
        let frame = stream.frame(direction);
        let least = match frame.get(12..14) {
            Some([0x08, 0x00]) if direction == Direction::Outbound => 34,
            Some([0x86, 0xdd]) if direction == Direction::Outbound => 54,
            _ => 15,
        };
        // Longer frames do not fit the page of a test run.
        if (least..3_000).contains(&frame.len()) {
            return frame;
        }
    }
}

/// The number of packets of each reason.
pub type Reasons = BTreeMap<&'static str, u64>;

/// The outcome of one frame.
#[derive(Clone, Copy, Debug)]
pub struct StepOutcome {
    /// The effect on the counters and the flow table.
    pub effect: Effect,
    /// The key under which the frame is recorded in the table of drops, if it is recorded.
    pub recorded: Option<DropKey>,
}

/// The oracle and the decision code on the host, side by side.
pub struct Models {
    datapath: HostDatapath,
}

impl Models {
    /// Creates both models with empty tables.
    ///
    /// # Errors
    /// If the reference policy does not compile.
    pub fn new() -> Result<Self> {
        Ok(Self { datapath: HostDatapath::new(crate::reference::policy())? })
    }

    /// Returns the outcome of the decision code for each frame of the scenario.
    ///
    /// # Errors
    /// If a policy does not compile.
    pub fn code(&mut self, scenario: &Scenario) -> Result<Vec<StepOutcome>> {
        self.datapath.renew(scenario.policy.clone())?;
        let mut outcomes = Vec::with_capacity(scenario.steps.len());
        for step in &scenario.steps {
            match step {
                Step::Wait(seconds) => self.datapath.wait(*seconds)?,
                Step::Change(policy) => self.datapath.enforce(policy.as_ref().clone())?,
                Step::Hold(held) => self.datapath.hold(&held.control_state())?,
                Step::Frame(direction, frame) => {
                    let effect = self.datapath.judge(*direction, frame)?;
                    outcomes.push(StepOutcome { effect, recorded: self.datapath.recorded() });
                }
            }
        }
        Ok(outcomes)
    }

    /// Describes the first frame that audit counts differently from enforce. Returns `None` if there is none.
    /// Only the verdict may differ.
    ///
    /// # Errors
    /// If a policy does not compile.
    pub fn audit_difference(&mut self, scenario: &Scenario) -> Result<Option<String>> {
        let enforced = self.code(&scenario.in_mode(Mode::Enforce))?;
        let audited = self.code(&scenario.in_mode(Mode::Audit))?;
        let counted = |outcome: &StepOutcome| Effect { audited: false, ..outcome.effect };
        let differs = enforced.iter().zip(&audited).position(|(one, other)| counted(one) != counted(other));
        Ok(differs.map(|at| format!("enforce {:?}\n audit   {:?}", enforced[at].effect, audited[at].effect)))
    }

    /// Describes the first difference between the decision code and the oracle. Returns `None` if they agree.
    ///
    /// # Errors
    /// If a policy does not compile.
    pub fn difference(&mut self, scenario: &Scenario) -> Result<Option<String>> {
        let found = self.code(scenario)?;
        let mut host = oracle::Host::new(scenario.policy.clone());
        let mut found = found.into_iter();
        let mut in_force = InForce::new(scenario.policy.clone(), self.datapath.in_force().clock())?;
        // The twin has already processed the whole scenario, so it parses by the last policy.
        let mut parses_alike = !scenario.steps.iter().any(|step| matches!(step, Step::Change(_)));
        for step in &scenario.steps {
            match step {
                Step::Wait(seconds) => host.wait(*seconds),
                Step::Change(policy) => {
                    parses_alike = true;
                    host.enforce(policy.as_ref().clone());
                    in_force.replace(policy.as_ref().clone())?;
                }
                Step::Hold(held) => host.hold(held),
                Step::Frame(direction, frame) => {
                    let (read, meant) = (self.datapath.read(frame), host.read(frame));
                    if parses_alike && read != meant {
                        return Ok(Some(format!("expected {meant:?}\n read     {read:?}")));
                    }
                    let wanted = host.judge(*direction, frame).effect(&in_force, *direction);
                    if let Some(StepOutcome { effect: found, .. }) = found.next()
                        && found != wanted
                    {
                        return Ok(Some(format!("expected {wanted:?}\n found   {found:?}")));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// Packets and bytes of each key in the table of drops. For a stranger, only the prefix is part of the key.
type Drops = BTreeMap<DropKey, (u64, u64)>;

/// Returns the key by which the table tells entries apart.
fn told_apart(key: DropKey) -> DropKey {
    let mask = key.mask();
    DropKey { peer: [key.peer[0] & mask[0], key.peer[1] & mask[1]], ..key }
}

/// The kernel's counters at one moment.
struct Count {
    counters: Counters,
    rows: BTreeMap<u16, RowTally>,
    drops: Drops,
    /// Packets and bytes that are in no entry of the table of drops, by part.
    rest: Drops,
}

impl Count {
    fn of(bench: &Bench) -> Result<Self> {
        let (entries, parts) = bench.probe.drops()?;
        let mut drops = Drops::new();
        for entry in entries {
            let counts = drops.entry(told_apart(entry.key)).or_default();
            *counts = (counts.0 + entry.packets, counts.1 + entry.bytes);
        }
        Ok(Self {
            counters: bench.probe.counters()?,
            rows: bench.tallies()?.into_iter().collect(),
            drops,
            rest: parts.into_iter().map(|part| (part.key, (part.packets, part.bytes))).collect(),
        })
    }

    /// Returns the counters expected after one more frame.
    fn after(mut self, direction: Direction, frame: &[u8], outcome: StepOutcome) -> Self {
        let effect = outcome.effect;
        let tally = Tally { packets: 1, bytes: frame.len() as u64 };
        self.counters = after_one(self.counters, direction, tally, effect);
        if let Some(row) = self.rows.get_mut(&effect.row) {
            row.packets += 1;
            row.bytes += tally.bytes;
            row.connections += u64::from(effect.connection);
        }
        if let Some(key) = outcome.recorded {
            let counts = self.drops.entry(told_apart(key)).or_default();
            *counts = (counts.0 + tally.packets, counts.1 + tally.bytes);
        }
        self
    }

    fn unlike(&self, found: &Self) -> Vec<String> {
        let mut all = unlike(&self.counters, &found.counters);
        let numbers = |row: &RowTally| (row.packets, row.bytes, row.connections);
        for (slot, wanted) in &self.rows {
            let found = found.rows.get(slot).copied().unwrap_or_default();
            if numbers(wanted) != numbers(&found) {
                all.push(format!(
                    "row {slot} counted {:?} instead of {:?}",
                    numbers(&found),
                    numbers(wanted)
                ));
            }
        }
        // The rest may have any packets of its part, and takes whole entries that make room.
        let part = |key: &DropKey| rest_key(rest_at(key.what));
        let in_rest = |key: &DropKey| found.rest.contains_key(&part(key));
        for key in self.drops.keys().chain(found.drops.keys().filter(|key| !self.drops.contains_key(key))) {
            let (wanted, found) = (self.drops.get(key), found.drops.get(key));
            if wanted != found && !in_rest(key) {
                all.push(format!("{key:?} is recorded {found:?} times instead of {wanted:?}"));
            }
        }
        let sum = |drops: &Drops, rest: &Drops| -> BTreeMap<DropKey, (u64, u64)> {
            drops.iter().chain(rest).fold(BTreeMap::new(), |mut sums, (key, counts)| {
                let sum: &mut (u64, u64) = sums.entry(part(key)).or_default();
                *sum = (sum.0 + counts.0, sum.1 + counts.1);
                sums
            })
        };
        let (wanted, found) = (sum(&self.drops, &self.rest), sum(&found.drops, &found.rest));
        if wanted != found {
            all.push(format!("the table of drops has {found:?} instead of {wanted:?}"));
        }
        all
    }
}

/// Describes the first difference between the loaded programs and the outcomes of the decision code on the
/// host.
///
/// Verdicts are compared one by one, all counters every `batch` frames.
///
/// # Errors
/// If the kernel refuses an operation.
pub fn kernel_difference(
    bench: &mut Bench,
    scenario: &Scenario,
    outcomes: &[StepOutcome],
    batch: usize,
) -> Result<Option<String>> {
    bench.renew(scenario.policy.clone())?;
    bench.probe.forget_drops()?;
    let mut outcomes = outcomes.iter();
    let mut wanted = Count::of(bench)?;
    let mut uncompared = 0;
    for step in &scenario.steps {
        match step {
            Step::Wait(seconds) => bench.wait(*seconds)?,
            Step::Change(policy) => {
                if let Some(message) = message(&wanted.unlike(&Count::of(bench)?)) {
                    return Ok(Some(message));
                }
                bench.enforce(policy.as_ref().clone())?;
                (wanted, uncompared) = (Count::of(bench)?, 0);
            }
            Step::Hold(held) => bench.hold(&held.control_state())?,
            Step::Frame(direction, frame) => {
                let Some(outcome) = outcomes.next().copied() else { break };
                wanted = wanted.after(*direction, frame, outcome);
                if bench.probe.verdict(*direction, frame)? != outcome.effect.passes() {
                    return Ok(Some(format!("the kernel does not agree to {outcome:?}")));
                }
                uncompared += 1;
                if uncompared == batch {
                    uncompared = 0;
                    if let Some(message) = message(&wanted.unlike(&Count::of(bench)?)) {
                        return Ok(Some(message));
                    }
                }
            }
        }
    }
    Ok(message(&wanted.unlike(&Count::of(bench)?)))
}

fn message(differences: &[String]) -> Option<String> {
    (!differences.is_empty()).then(|| differences.join("; "))
}

/// Runs a scenario through both models and the loaded programs, and compares the results.
///
/// # Errors
/// The smallest disagreement that was found, with the parties that disagree, or a refusal of the kernel.
pub fn compare(
    scenario: &Scenario,
    models: &mut Models,
    bench: Option<&mut Bench>,
    reasons: &mut Reasons,
) -> Result<()> {
    if let Some(message) = models.difference(scenario)? {
        // With this variable a caller asks only whether there is a difference, and need not wait for the
        // smallest one.
        ensure!(env::var_os("POMGUARD_FUZZ_WHOLE").is_none(), "{message}");
        let (small, message) = minimised(scenario, &mut |smaller| models.difference(smaller))?;
        ensure!(false, "the decision code and the naive reading differ:\n {message}\n{}", shown(&small));
    }
    let outcomes = models.code(scenario)?;
    for StepOutcome { effect, .. } in &outcomes {
        *reasons.entry(effect.reason.name()).or_default() += 1;
    }
    let Some(bench) = bench else { return Ok(()) };
    if let Some(message) = kernel_difference(bench, scenario, &outcomes, BATCH)? {
        let (small, message) = minimised(scenario, &mut |smaller| {
            let outcomes = models.code(smaller)?;
            kernel_difference(bench, smaller, &outcomes, 1)
        })
        .unwrap_or((scenario.clone(), message));
        ensure!(false, "the kernel and its code on the host differ: {message}\n{}", shown(&small));
    }
    Ok(())
}

/// Compares how enforce and audit count the frames of a scenario.
///
/// # Errors
/// The smallest difference that was found.
pub fn compare_modes(scenario: &Scenario, models: &mut Models) -> Result<()> {
    if models.audit_difference(scenario)?.is_some() {
        let (small, message) = minimised(scenario, &mut |smaller| models.audit_difference(smaller))?;
        ensure!(false, "enforce and audit count differently:\n {message}\n{}", shown(&small));
    }
    Ok(())
}

/// Returns a description of the difference that a scenario shows, if any.
type Differs<'a> = dyn FnMut(&Scenario) -> Result<Option<String>> + 'a;

/// Removes steps and shortens frames as long as the difference remains.
fn minimised(scenario: &Scenario, differs: &mut Differs<'_>) -> Result<(Scenario, String)> {
    let mut small = scenario.clone();
    let mut message = differs(&small)?.unwrap_or_else(|| "only as a whole".to_owned());
    let mut chunk = small.steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < small.steps.len() {
            let mut steps = small.steps.clone();
            steps.drain(at..small.steps.len().min(at + chunk));
            match differs(&small.with(steps.clone()))? {
                Some(still) => (small.steps, message) = (steps, still),
                None => at += chunk,
            }
        }
        chunk /= 2;
    }
    for at in 0..small.steps.len() {
        while let Step::Frame(direction, frame) = &small.steps[at]
            && frame.len() > 60
        {
            let mut steps = small.steps.clone();
            steps[at] = Step::Frame(*direction, frame[..frame.len() - 1].to_vec());
            let Some(still) = differs(&small.with(steps.clone()))? else { break };
            (small.steps, message) = (steps, still);
        }
    }
    Ok((small, message))
}

/// Formats a scenario for reading and keeping: its steps with the frames in hex, and the policy.
fn shown(scenario: &Scenario) -> String {
    let mut text = String::new();
    for step in &scenario.steps {
        let _ = match step {
            Step::Frame(direction, frame) => writeln!(text, "{}: {}", direction.name(), hex(frame)),
            Step::Wait(seconds) => writeln!(text, "wait: {seconds}"),
            Step::Change(policy) => writeln!(text, "change: {:?}", policy.rows),
            Step::Hold(held) => writeln!(text, "hold: {held:?}"),
        };
    }
    let Policy { inbound, outbound, rows, packets, .. } = &scenario.policy;
    let _ = writeln!(text, "inbound {inbound:?}, outbound {outbound:?}, {packets:?}");
    for row in rows {
        let peers: Vec<String> = row.peers.iter().map(|peer| peer.prefix.to_string()).collect();
        let (id, direction, client, services) = (&row.id.0, row.direction, row.client_ports, &row.services);
        let mark = if row.failsafe { "failsafe" } else { row.mode.name() };
        let _ = writeln!(text, "{id} {direction:?} {peers:?} from {client} to {services:?} {mark}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_shown_with_its_steps_and_bytes() {
        let scenario = Scenario::of(1, Sure::Nothing);
        let frames = |scenario: &Scenario| -> Vec<Vec<u8>> {
            let frames = scenario.steps.iter().filter_map(|step| match step {
                Step::Frame(_, frame) => Some(frame.clone()),
                _ => None,
            });
            frames.collect()
        };
        let long: Vec<Vec<u8>> = frames(&scenario).into_iter().filter(|frame| frame.len() > 100).collect();
        let (one, other) = (long[3].clone(), long[7].clone());
        let (small, message) = minimised(&scenario, &mut |smaller| {
            let frames = frames(smaller);
            let both =
                [&one, &other].iter().all(|it| frames.iter().any(|frame| frame.starts_with(&it[..80])));
            Ok(both.then(|| "both are there".to_owned()))
        })
        .unwrap();
        assert_eq!(frames(&small), [one[..80].to_vec(), other[..80].to_vec()]);
        assert_eq!((small.steps.len(), message.as_str()), (2, "both are there"));
        assert!(shown(&small).contains(&hex(&one[..80])));
    }
}
