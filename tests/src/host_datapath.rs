//! Runs the decision code of the programs on the host: the expected behaviour, which the compiler of the BPF
//! object and the kernel's verifier must not change.

use std::{
    cell::{Cell, OnceCell},
    iter,
};

use anyhow::{Context as _, Result, bail, ensure};
use pomguard::{
    compile::Clock,
    kernel::{clock::Ticks, sweep},
    policy::Policy,
};
use pomguard_common::{
    Direction,
    control::{Control, ControlView, Override, word},
    decide::{self, Decision, NO_ROW, ParsedSlot, Scratch as _, Tables},
    drops::{self, End},
    flow::{
        self, Bucket, Candidates, Entered, Key, Newcomer, State, Store, Tag, Word,
        ports::{self, FlowPort},
        prints::{self, Prints},
    },
    image::{Barrier, Image, Line, Lines},
    limits::{self, FLOW_BUCKETS, FRAGMENT_BUCKETS},
    parse::{self, Datagram, Link, Parsed},
    rate::Rated,
    reason::Reason,
    serve::Served,
};

use crate::{
    control_state::ControlState,
    force::InForce,
    harness::{Effect, Subject},
};

/// A typical kernel clock.
const CLOCK: Clock = Clock { ticks_per_1000s: 3_906, offset: 0 };

/// A flow table in vectors.
struct Table {
    buckets: Vec<Bucket>,
    prints: Vec<Prints>,
    ages: [u32; 8],
    now: u32,
    candidates: Candidates,
    /// Both are empty where keys are no ends.
    ports: Vec<FlowPort>,
}

impl Table {
    fn new(buckets: usize, ports: usize) -> Self {
        let table = Self {
            buckets: iter::repeat_with(Bucket::default).take(buckets).collect(),
            prints: iter::repeat_with(Prints::default).take(if ports == 0 { 0 } else { buckets }).collect(),
            ages: [0; 8],
            now: 0,
            candidates: Candidates::default(),
            ports: iter::repeat_with(FlowPort::default).take(ports).collect(),
        };
        // As the daemon does at a start.
        for (bucket, prints) in table.buckets.iter().zip(&table.prints) {
            prints::complete(bucket, prints);
        }
        table
    }
}

impl Barrier for Table {}

impl Store for Table {
    fn bucket(&self, bucket: u32) -> Option<&Bucket> {
        self.buckets.get(bucket as usize)
    }

    fn mask(&self) -> u32 {
        self.buckets.len() as u32 - 1
    }

    fn secret(&self) -> u64 {
        0x5eed
    }

    fn age(&self, state: State) -> u32 {
        self.ages[state as usize]
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn candidates(&self) -> Option<&Candidates> {
        Some(&self.candidates)
    }

    fn port(&self, port: u16) -> Option<&FlowPort> {
        self.ports.get(usize::from(port))
    }

    fn prints(&self, bucket: u32) -> Option<&Prints> {
        self.prints.get(bucket as usize)
    }
}

/// The VLANs that a policy serves.
struct Vlans<'a>(&'a [u16]);

impl Barrier for Vlans<'_> {}

impl Link for Vlans<'_> {
    fn serves_vlan(&self, id: u16) -> bool {
        self.0.contains(&id)
    }
}

/// An image in a vector, and the state alongside the policy.
#[derive(Default)]
struct ControlMemory {
    lines: Vec<Line>,
    control: Control,
    overrides: Vec<Override>,
    /// Packets counted against each rate: of traffic, and of self-tests.
    spent: [[Word; Rated::COUNT]; 2],
    served: Vec<Served>,
    /// The note about the packet under judgement.
    noted: Cell<u64>,
    no_policy: bool,
    self_tests: bool,
}

impl Barrier for ControlMemory {}

impl ControlView for ControlMemory {
    fn control(&self, index: usize) -> u64 {
        self.control.word(index)
    }

    fn spent(&self, rated: u32) -> Option<&Word> {
        self.spent[usize::from(self.self_tests)].get(rated as usize)
    }

    fn override_rule(&self, index: u32) -> Option<&Override> {
        self.overrides.get(index as usize)
    }

    fn self_test(&self) -> u64 {
        self.self_tests.into()
    }

    fn slot_bit(&self) -> u64 {
        let slot = if self.no_policy { NO_POLICY_SLOT } else { SLOT };
        Override::slot_bit(slot).into()
    }

    fn note_peer(&self, note: u64) {
        self.noted.set(note);
    }

    fn noted_peer(&self) -> u64 {
        self.noted.get()
    }

    fn served(&self, index: u32) -> Option<&Served> {
        self.served.get(index as usize)
    }
}

impl Lines for ControlMemory {
    fn line(&self, index: u32) -> Option<&Line> {
        self.lines.get(index as usize)
    }
}

/// The slot of the image, and the one that is in force while there is no policy; as in a
/// [`pomguard::kernel::probe::Probe`].
const SLOT: u32 = 0;
const NO_POLICY_SLOT: u32 = limits::GENERATIONS as u32 - 1;

/// Returns the table of ports that serve, with no entry.
fn unserved() -> Vec<Served> {
    iter::repeat_with(Served::default).take(Served::COUNT).collect()
}

/// A host with a policy and flow tables.
pub struct HostDatapath {
    in_force: InForce,
    held: ControlMemory,
    flows: Table,
    fragmented: Table,
    /// Number of lines of the image before lines were removed.
    whole: usize,
    /// Number of plain packets so far.
    ordinary: u64,
    /// The record of the last packet in the table of drops.
    recorded: Option<drops::DropKey>,
}

impl HostDatapath {
    /// Creates a host that enforces `policy` and has no flows.
    ///
    /// # Errors
    /// If the policy does not compile.
    pub fn new(policy: Policy) -> Result<Self> {
        let mut datapath = Self {
            in_force: InForce::new(policy, CLOCK)?,
            held: ControlMemory { served: unserved(), ..ControlMemory::default() },
            flows: Table::new(FLOW_BUCKETS, ports::COUNT),
            fragmented: Table::new(FRAGMENT_BUCKETS, 0),
            whole: 0,
            ordinary: 0,
            recorded: None,
        };
        datapath.install()?;
        datapath.hold(&ControlState::default())?;
        Ok(datapath)
    }

    /// Puts another policy in force under the next generation, with the overrides of its failsafe rows and no
    /// other state alongside the policy. Flows stay.
    ///
    /// # Errors
    /// If the policy does not compile.
    pub fn enforce(&mut self, policy: Policy) -> Result<()> {
        self.in_force.replace(policy)?;
        self.install()?;
        self.hold(&ControlState::default())
    }

    fn install(&mut self) -> Result<()> {
        let compiled = self.in_force.image()?;
        let lines = compiled.lines().to_vec();
        let image = Image::open(lines.as_slice()).context("the image opens")?;
        let ages: [u32; 8] = std::array::from_fn(|state| image.age(state as u32));
        for table in [&mut self.flows, &mut self.fragmented] {
            table.ages = ages;
        }
        self.whole = lines.len();
        self.held.lines = lines;
        self.tell_time();
        Ok(())
    }

    const fn tell_time(&mut self) {
        let now = self.in_force.clock().offset;
        (self.flows.now, self.fragmented.now) = (now, now);
    }

    /// Treats every packet as a self-test from now on, or no packet if `on` is false.
    pub const fn self_test(&mut self, on: bool) {
        self.held.self_tests = on;
    }

    /// Returns the number of lines of the image.
    #[must_use]
    pub const fn lines(&self) -> usize {
        self.held.lines.len()
    }

    /// Removes all lines of the image after the first `lines`.
    pub fn lose_all_but(&mut self, lines: usize) {
        self.held.lines.truncate(lines);
    }

    /// Enters the flow of a frame that this host sends as a flow from before the first start, which no row
    /// allows.
    ///
    /// # Errors
    /// If the frame does not belong to a flow, or the table has no room.
    pub fn was_there_first(&mut self, leaving: &[u8]) -> Result<()> {
        let read = self.read(leaving);
        let Parsed::Datagram(datagram) = read else { bail!("no datagram: {read:?}") };
        let Datagram { family, protocol, source, destination, source_port, destination_port, .. } = datagram;
        let key = Key::new(family, protocol, &source, source_port, &destination, destination_port);
        let entered =
            flow::enter(&self.flows, key, Newcomer::new(State::Established, NO_ROW, flow::GRANDFATHERED));
        ensure!(matches!(entered, Entered::New), "{entered:?}");
        Ok(())
    }

    /// Advances the clock by a number of ticks.
    pub const fn wait_ticks(&mut self, ticks: u32) {
        self.in_force.wait_ticks(ticks);
        self.tell_time();
    }

    /// Sets the generation of the policy in force.
    ///
    /// # Errors
    /// If the policy does not compile.
    pub fn count_from(&mut self, generation: u32) -> Result<()> {
        self.in_force.count_from(generation);
        self.install()
    }

    /// Removes all flows and fragmented datagrams.
    pub fn forget_flows(&mut self) {
        let Table { ages, now, .. } = self.flows;
        self.flows = Table { ages, now, ..Table::new(FLOW_BUCKETS, ports::COUNT) };
        self.fragmented = Table { ages, now, ..Table::new(FRAGMENT_BUCKETS, 0) };
    }

    /// Checks each TCP flow as the daemon's sweep does. `socket` returns `None` if the flow has no socket,
    /// and otherwise true if the socket's stack has seen at most one FIN. Returns the number of remaining
    /// flows that yield to nothing.
    pub fn sweep(&self, socket: impl Fn(&Key) -> Option<bool>) -> usize {
        let ticks = Ticks::new(250);
        let now = self.flows.now;
        let mut firm = 0;
        for bucket in &self.flows.buckets {
            for (word, slot) in bucket.tags.iter().zip(&bucket.slots) {
                let tag = Tag(word.load());
                let idle = tag.idle(now);
                if tag.state() == State::Free || idle > self.flows.age(tag.state()) {
                    continue;
                }
                let key = Key([0, 1, 2, 3, 4].map(|at: usize| slot.key[at].load()));
                if let Some(next) = sweep::without_socket(tag, ticks.seconds(idle)) {
                    match socket(&key) {
                        Some(true) => drop(sweep::revive(word, slot, tag)),
                        Some(false) => {}
                        None => word.store(next),
                    }
                }
                let tag = Tag(word.load());
                firm += usize::from(tag.state() == State::Established && !tag.suspect());
            }
        }
        firm
    }

    /// Parses a frame.
    pub fn read(&self, frame: &[u8]) -> Parsed {
        parse::frame(frame, &Vlans(&self.in_force.policy().served_vlans()))
    }

    /// Returns true if the fast path decides the frame.
    ///
    /// # Errors
    /// If the image has no head of this version.
    pub fn takes_fast_path(&self, direction: Direction, frame: &[u8]) -> Result<bool> {
        let image = Image::open(&self.held).context("the image opens")?;
        let tables = Tables::in_peace(&image, &self.flows, &self.fragmented);
        Ok(decide::fast_path(direction, frame, &tables, 0).is_some())
    }

    /// Judges a frame by the fast path, if the packet is plain, and by the general path. Every second plain
    /// packet takes the fast path alone, as in the programs, so that the tables show only the effect of the
    /// fast path.
    ///
    /// # Errors
    /// If the image has no head of this version, or the two paths disagree.
    pub fn judge(&mut self, direction: Direction, frame: &[u8]) -> Result<Effect> {
        let scratch = [OnceCell::new(), OnceCell::new()];
        self.held.noted.set(0);
        let self_tests = self.held.self_tests;
        let outcome = |decision: Decision, end: End| {
            let recorded = drops::is_recorded(decision) && !self_tests;
            let key = recorded.then(|| drops::DropKey::new(direction, decision, decision.known_bit(), end));
            (Effect::by(decision), key)
        };
        if self.held.no_policy {
            let now = self.flows.now;
            let decision = decide::judge_without_policy(direction, frame, &self.held, now, &scratch);
            let end = End::of_frame(direction, frame, decision.reason_number());
            let (effect, recorded) = outcome(decision, end);
            self.recorded = recorded;
            return Ok(effect);
        }
        let image = Image::open(&self.held).context("the image opens")?;
        let control = &self.held.control;
        let ordinary =
            control.word(word::SUSPENSION) | control.word(word::GRACE) == 0 && !self.held.self_tests;
        let quick = ordinary.then(|| {
            let tables = Tables::in_peace(&image, &self.flows, &self.fragmented);
            decide::fast_path(direction, frame, &tables, control.word(word::PORT_BLOOM))
        });
        let quick = quick
            .flatten()
            .map(|decision| outcome(decision, End::of_plain(direction, frame, decision.reason_number())));
        if let Some((effect, recorded)) = quick {
            self.ordinary += 1;
            if self.ordinary.is_multiple_of(2) {
                self.recorded = recorded;
                return Ok(effect);
            }
        }
        let tables = Tables::new(&image, &self.flows, &self.fragmented);
        let decision = decide::judge(direction, frame, &tables, &scratch);
        let reason = decision.reason_number();
        let datagram = scratch.load(ParsedSlot::Outer).filter(|_| decision.is_read());
        let end = datagram.map_or_else(
            || End::of_frame(direction, frame, reason),
            |datagram| End::of_datagram(direction, datagram, reason),
        );
        let general = outcome(decision, end);
        if let Some(quick) = quick {
            // Own addresses lie in two parts of an image. Where one is lost, both paths drop, each for its reason.
            let damaged = self.held.lines.len() < self.whole;
            let agree = if damaged { quick.0.passes() == general.0.passes() } else { quick == general };
            ensure!(agree, "the quick way comes to {quick:?}, the general one to {general:?}");
        }
        self.recorded = general.1;
        Ok(general.0)
    }

    /// Returns the key under which the last packet was recorded in the table of drops. Returns `None` if the
    /// packet was not recorded.
    #[must_use]
    pub const fn recorded(&self) -> Option<drops::DropKey> {
        self.recorded
    }
}

impl Subject for HostDatapath {
    fn in_force(&self) -> &InForce {
        &self.in_force
    }

    fn wait(&mut self, seconds: u32) -> Result<()> {
        self.in_force.wait(seconds);
        self.tell_time();
        Ok(())
    }

    fn change(&mut self, policy: Policy) -> Result<()> {
        self.enforce(policy)
    }

    fn forget_ports(&mut self) -> Result<()> {
        self.held.served = unserved();
        Ok(())
    }

    fn renew(&mut self, policy: Policy) -> Result<()> {
        self.forget_ports()?;
        if self.in_force.wait_for_all_ages() {
            self.forget_flows();
        }
        self.enforce(policy)
    }

    fn reason(&mut self, direction: Direction, frame: &[u8]) -> Result<(Reason, bool)> {
        let effect = self.judge(direction, frame)?;
        Ok((effect.reason, effect.audited))
    }

    fn hold(&mut self, control_state: &ControlState) -> Result<()> {
        let Clock { ticks_per_1000s, offset } = self.in_force.clock();
        let (words, lines) = control_state.laid_out(self.in_force.overrides()?, offset, ticks_per_1000s);
        for (word, value) in self.held.control.0.iter().zip(words) {
            word.store(value);
        }
        self.held.overrides = lines;
        self.held.no_policy = control_state.no_policy;
        Ok(())
    }

    fn differences(&mut self, direction: Direction, frame: &[u8], want: Effect) -> Result<Vec<String>> {
        let found = self.judge(direction, frame)?;
        Ok(if found == want { Vec::new() } else { vec![format!("{found:?}")] })
    }
}
