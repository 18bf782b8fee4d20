//! The maps in the form that the decision uses.

use core::marker::PhantomData;

use pomguard_common::{
    Direction,
    control::{Control, ControlView, Override, word},
    decide::{self, Decision, ParsedSlot, Scratch, Tables},
    flow::{Bucket, Candidates, Key, State, Store, Word, ports::FlowPort},
    image::{Active, Barrier, Image, Line, Lines},
    limits,
    parse::Datagram,
    rate::Rated,
    reason::Reason,
    serve::Served,
};

use crate::{
    barrier::hide,
    clock,
    maps::{self, Generation},
    packet::{Context, Frame},
};
use aya_ebpf::Global;

/// Keys the hash of the flow table: random, set at load time.
#[unsafe(no_mangle)]
pub(crate) static FLOW_SECRET: Global<u64> = Global::new(0);

/// Memory for the barrier and for keys that are passed by reference, and the state that holds in addition to
/// the generations.
trait Memory: Barrier + ControlView {
    fn with<R>(&self, key: Key, then: impl FnOnce(&Key) -> R) -> R;
    /// Returns the words for candidates, or `None` if this path enters no flow.
    fn candidates(&self) -> Option<&Candidates>;
}

/// The maps: the control words, and a pointer into the scratch map. At the pointer is the word for the
/// barrier, then the words for a key, for rates, for self-tests, for the slot, and for candidates.
#[derive(Clone, Copy)]
struct Map {
    control: &'static Control,
    words: *mut u64,
}

impl Barrier for Map {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        // SAFETY: a word of this CPU's value of the scratch map, which nothing else uses.
        unsafe { self.words.write_volatile(value) };
        // SAFETY: the same word.
        unsafe { self.words.read_volatile() }
    }
}

impl ControlView for Map {
    #[inline(always)]
    fn control(&self, index: usize) -> u64 {
        self.control.word(index)
    }

    #[inline(always)]
    fn spent(&self, rated: u32) -> Option<&Word> {
        let rated = hide(rated as usize) & (Rated::COUNT - 1);
        let word = self.words.wrapping_add(1 + maps::KEY_WORDS).wrapping_add(rated);
        // SAFETY: one of the words after the key, which belong to this CPU and have no other use.
        Some(unsafe { &*word.cast::<Word>() })
    }

    #[inline(always)]
    fn override_rule(&self, index: u32) -> Option<&Override> {
        maps::OVERRIDES.get(index)
    }

    #[inline(always)]
    fn self_test(&self) -> u64 {
        // SAFETY: as in `spent`; `begin` has written it.
        unsafe { self.self_test_word().read_volatile() }
    }

    #[inline(always)]
    fn slot_bit(&self) -> u64 {
        // SAFETY: as in `spent`; `begin` has written it.
        unsafe { self.self_test_word().wrapping_add(1).read_volatile() }
    }

    #[inline(always)]
    fn note_peer(&self, note: u64) {
        // SAFETY: the last word of this CPU's value of the scratch map, which has no other use.
        unsafe { self.peer_word().write_volatile(note) };
    }

    #[inline(always)]
    fn noted_peer(&self) -> u64 {
        // SAFETY: as in `note_peer`; `begin` has written it.
        unsafe { self.peer_word().read_volatile() }
    }

    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        maps::SERVED.get(index)
    }
}

impl Map {
    /// Returns the address of the word after the words for rates.
    #[inline(always)]
    fn self_test_word(&self) -> *mut u64 {
        self.words.wrapping_add(1 + maps::KEY_WORDS + Rated::COUNT)
    }

    /// Returns the address of the word after the candidates.
    #[inline(always)]
    fn peer_word(&self) -> *mut u64 {
        self.self_test_word().wrapping_add(2 + maps::CANDIDATE_WORDS)
    }

    /// Begins a packet: stores whether the packet is a self-test and the slot that judges it, and clears the
    /// record about the peer. In a map, because the stack is small.
    #[inline(always)]
    fn begin(&self, self_test: u32, slot: u32) {
        let words = self.self_test_word();
        // SAFETY: a word of this CPU's value of the scratch map, which has no other use.
        unsafe { words.write_volatile(self_test.into()) };
        // SAFETY: the next word, likewise.
        unsafe { words.wrapping_add(1).write_volatile(Override::slot_bit(slot).into()) };
        // SAFETY: the last word, likewise.
        unsafe { self.peer_word().write_volatile(0) };
    }
}

impl Memory for Map {
    #[inline(always)]
    fn with<R>(&self, key: Key, then: impl FnOnce(&Key) -> R) -> R {
        let key = key.of_self_test(self.self_test());
        let place = self.words.wrapping_add(1).cast::<Key>();
        // SAFETY: the words after the first belong to this CPU and are kept for a key; there is no other
        // reference to them, because this one ends with the call.
        unsafe { place.write_volatile(key) };
        // SAFETY: as above; the key was just written.
        then(unsafe { &*place })
    }

    #[inline(always)]
    fn candidates(&self) -> Option<&Candidates> {
        let place = self.self_test_word().wrapping_add(2).cast::<Candidates>();
        // SAFETY: the words after the one for the slot, which belong to this CPU and have no other use.
        Some(unsafe { &*place })
    }
}

/// Memory without a map: keys are on the stack, and no suspension, grace period or override holds. For the
/// fast path, which is short.
struct Stack {
    /// A number that is unknown to the verifier.
    unknown: u64,
}

impl Barrier for Stack {
    /// Works without memory: the verifier does not know the sum, nor that the difference cancels the
    /// addition.
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        let sum = hide(value.wrapping_add(self.unknown) as usize) as u64;
        sum.wrapping_sub(self.unknown)
    }
}

impl ControlView for Stack {
    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        maps::SERVED.get(index)
    }
}

impl Memory for Stack {
    #[inline(always)]
    fn with<R>(&self, key: Key, then: impl FnOnce(&Key) -> R) -> R {
        then(&key)
    }

    #[inline(always)]
    fn candidates(&self) -> Option<&Candidates> {
        None
    }
}

/// The lines of one generation.
struct Policy<M> {
    generation: &'static Generation,
    memory: M,
}

impl<M: Memory> Barrier for Policy<M> {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.memory.barrier(value)
    }
}

impl<M: Memory> ControlView for Policy<M> {
    #[inline(always)]
    fn control(&self, index: usize) -> u64 {
        self.memory.control(index)
    }

    #[inline(always)]
    fn spent(&self, rated: u32) -> Option<&Word> {
        self.memory.spent(rated)
    }

    #[inline(always)]
    fn override_rule(&self, index: u32) -> Option<&Override> {
        self.memory.override_rule(index)
    }

    #[inline(always)]
    fn self_test(&self) -> u64 {
        self.memory.self_test()
    }

    #[inline(always)]
    fn slot_bit(&self) -> u64 {
        self.memory.slot_bit()
    }

    #[inline(always)]
    fn note_peer(&self, note: u64) {
        self.memory.note_peer(note);
    }

    #[inline(always)]
    fn noted_peer(&self) -> u64 {
        self.memory.noted_peer()
    }

    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        self.memory.served(index)
    }
}

impl<M: Memory> Lines for Policy<M> {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.generation.get(index)
    }
}

/// The maps of a table of flows.
trait Home {
    const BUCKETS: usize;
    fn bucket(bucket: u32) -> Option<&'static Bucket>;
    fn port(port: u16) -> Option<&'static FlowPort>;
}

/// The flow table.
enum Flows {}

impl Home for Flows {
    const BUCKETS: usize = limits::FLOW_BUCKETS;

    #[inline(always)]
    fn bucket(bucket: u32) -> Option<&'static Bucket> {
        maps::FLOWS.get(bucket)
    }

    #[inline(always)]
    fn port(port: u16) -> Option<&'static FlowPort> {
        maps::FLOW_PORTS.get(port.into())
    }
}

/// The fragment table.
enum Fragments {}

impl Home for Fragments {
    const BUCKETS: usize = limits::FRAGMENT_BUCKETS;

    #[inline(always)]
    fn bucket(bucket: u32) -> Option<&'static Bucket> {
        maps::FRAGMENTS.get(bucket)
    }

    #[inline(always)]
    fn port(_: u16) -> Option<&'static FlowPort> {
        None
    }
}

/// A table of flows, with the image that gives the ages.
struct Table<'a, 'b, P: Home, M: Memory> {
    image: &'b Image<'a, Policy<M>>,
    place: PhantomData<P>,
}

impl<'a, 'b, P: Home, M: Memory> Table<'a, 'b, P, M> {
    #[inline(always)]
    const fn of(image: &'b Image<'a, Policy<M>>) -> Self {
        Self { image, place: PhantomData }
    }
}

impl<P: Home, M: Memory> Barrier for Table<'_, '_, P, M> {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.image.lines().barrier(value)
    }
}

impl<P: Home, M: Memory> Store for Table<'_, '_, P, M> {
    #[inline(always)]
    fn bucket(&self, bucket: u32) -> Option<&Bucket> {
        P::bucket(bucket)
    }

    #[inline(always)]
    fn mask(&self) -> u32 {
        P::BUCKETS as u32 - 1
    }

    #[inline(always)]
    fn with<R>(&self, key: Key, then: impl FnOnce(&Key) -> R) -> R {
        self.image.lines().memory.with(key, then)
    }

    #[inline(always)]
    fn secret(&self) -> u64 {
        FLOW_SECRET.load()
    }

    #[inline(always)]
    fn age(&self, state: State) -> u32 {
        self.image.age(state as u32)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        clock::now().wrapping_add(self.image.clock_offset())
    }

    #[inline(always)]
    fn candidates(&self) -> Option<&Candidates> {
        self.image.lines().memory.candidates()
    }

    #[inline(always)]
    fn port(&self, port: u16) -> Option<&FlowPort> {
        P::port(port)
    }
}

/// The slots for datagrams in the scratch map.
struct ScratchMap(*mut u64);

impl ScratchMap {
    #[inline(always)]
    fn place(&self, place: ParsedSlot) -> *mut Datagram {
        self.0.wrapping_add(maps::DATAGRAM_WORDS * place as usize).cast()
    }

    /// Returns the words after the datagrams, with the control words.
    #[inline(always)]
    fn memory(&self, control: &'static Control) -> Map {
        Map { control, words: self.0.wrapping_add(maps::DATAGRAM_WORDS * ParsedSlot::ALL) }
    }
}

impl Scratch for ScratchMap {
    #[inline(always)]
    fn store(&self, place: ParsedSlot, datagram: Datagram) {
        // SAFETY: the pointer is to this CPU's value of the scratch map, which has room for this many
        // datagrams, and nothing else runs at this hook on this CPU meanwhile.
        unsafe { self.place(place).write(datagram) };
    }

    #[inline(always)]
    fn load(&self, place: ParsedSlot) -> Option<&Datagram> {
        let place = hide(self.place(place) as usize) as *const Datagram;
        // SAFETY: the same slot, which was written just before: `judge` loads only after a store.
        Some(unsafe { &*place })
    }
}

/// Looks up this CPU's scratch value: each hook has one for traffic and one for self-tests.
#[inline(always)]
fn scratch(hook: Direction, self_test: u32) -> Option<ScratchMap> {
    let scratch = maps::SCRATCH.get_ptr_mut(hook as u32 + 2 * self_test)?;
    Some(ScratchMap(scratch.cast::<u64>()))
}

/// Returns the slot in force. Called once per packet, so that a packet sees a single generation.
#[inline(always)]
fn slot_in_force(control: &Control) -> u32 {
    Active(control.word(word::ACTIVE)).slot(clock::now())
}

/// Looks up the generation in force. Called once per packet.
#[inline(always)]
fn in_force(control: &Control) -> Option<&'static Generation> {
    maps::POLICY.get(slot_in_force(control))
}

/// Decides a plain packet, on the fast path, by the generation in force. Returns `None` for any other packet,
/// for a self-test, and for every packet while a suspension of the policy or the grace period holds, or may
/// hold.
#[inline(always)]
pub(crate) fn fast_path<C: Context>(hook: Direction, packet: &Frame<C>) -> Option<Decision> {
    let control = maps::CONTROL.get(0)?;
    if control.word(word::PANIC) | control.word(word::GRACE) | u64::from(packet.self_test()) != 0 {
        return None;
    }
    let memory = Stack { unknown: control.word(word::ACTIVE) };
    let policy = Policy { generation: in_force(control)?, memory };
    let image = Image::open(&policy)?;
    let tables = Tables::in_peace(&image, Table::<Flows, _>::of(&image), Table::<Fragments, _>::of(&image));
    decide::fast_path(hook, packet, &tables, control.word(word::PORT_BLOOM))
}

/// Judges any frame, on the general path, by the generation in force.
#[inline(always)]
pub(crate) fn judge<C: Context>(hook: Direction, packet: &Frame<C>) -> Decision {
    let closed = Decision::because(Reason::NoPolicy);
    let Some(control) = maps::CONTROL.get(0) else { return closed };
    let self_test = packet.self_test();
    let Some(scratch) = scratch(hook, self_test) else { return closed };
    let memory = scratch.memory(control);
    let slot = slot_in_force(control);
    memory.begin(self_test, slot);
    let Some(generation) = maps::POLICY.get(slot) else {
        return decide::judge_without_policy(hook, packet, &memory, clock::now(), &scratch);
    };
    let policy = Policy { generation, memory };
    let Some(image) = Image::open(&policy) else { return closed };
    let tables = Tables::new(&image, Table::<Flows, _>::of(&image), Table::<Fragments, _>::of(&image));
    decide::judge(hook, packet, &tables, &scratch)
}

/// Returns the decision on a packet for the general path while the general program is missing.
#[inline(always)]
pub(crate) fn unjudged<C: Context>(hook: Direction, packet: &Frame<C>) -> Decision {
    let closed = Decision::because(Reason::Internal);
    let Some(control) = maps::CONTROL.get(0) else { return closed };
    let Some(scratch) = scratch(hook, packet.self_test()) else { return closed };
    let Some(generation) = in_force(control) else { return closed };
    let policy = Policy { generation, memory: scratch.memory(control) };
    let Some(image) = Image::open(&policy) else { return closed };
    let tables = Tables::new(&image, Table::<Flows, _>::of(&image), Table::<Fragments, _>::of(&image));
    decide::unjudged(hook, &tables)
}

/// Returns the last datagram that the general path judged at this hook.
#[inline(always)]
pub(crate) fn judged(hook: Direction) -> Option<&'static Datagram> {
    let scratch = maps::SCRATCH.get_ptr_mut(hook as u32)?;
    let scratch = ScratchMap(scratch.cast::<u64>());
    let datagram = hide(scratch.place(ParsedSlot::Outer) as usize) as *const Datagram;
    // SAFETY: the caller has a decision that says that `judge` has written the datagram, and the value lives
    // as long as the program.
    Some(unsafe { &*datagram })
}
