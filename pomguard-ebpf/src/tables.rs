//! The maps in the form that the decision uses.

use core::marker::PhantomData;

use pomguard_common::{
    Direction,
    control::{Control, ControlView, Override, halves, word},
    decide::{self, Decision, Tables},
    flow::{Bucket, Candidates, State, Store, Word, ports::FlowPort, prints::Prints},
    image::{AGES, Active, Address, Barrier, Class, Family, GENERATION_WORD, Image, Line, Lines},
    parse::Datagram,
    reason::Reason,
    serve::Served,
};

use crate::{
    barrier::hide,
    calls, clock,
    flows::{Flows, Fragments, Home, Table, at_home},
    maps::{self, Generation},
    packet::{Context, Frame},
    scratch::{Memory, View},
};

/// The state that the fast path sees in addition to the generations: no suspension, grace period or override
/// holds there.
struct Peace {
    /// A number that is unknown to the verifier.
    unknown: u64,
}

impl Barrier for Peace {
    /// Works without memory: the verifier does not know the sum, nor that the difference cancels the
    /// addition.
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        let sum = hide(value.wrapping_add(self.unknown) as usize) as u64;
        sum.wrapping_sub(self.unknown)
    }
}

impl ControlView for Peace {
    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        maps::SERVED.get(index)
    }
}

/// The lines of one generation, and the state that holds in addition.
struct Policy<V> {
    generation: &'static Generation,
    view: V,
}

impl<V: Barrier> Barrier for Policy<V> {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.view.barrier(value)
    }
}

impl<V: ControlView + Barrier> ControlView for Policy<V> {
    #[inline(always)]
    fn control(&self, index: usize) -> u64 {
        self.view.control(index)
    }

    #[inline(always)]
    fn spent(&self, rated: u32) -> Option<&Word> {
        self.view.spent(rated)
    }

    #[inline(always)]
    fn override_rule(&self, index: u32) -> Option<&Override> {
        self.view.override_rule(index)
    }

    #[inline(always)]
    fn matching_override(&self, peer: &Address, query: u64, now: u32) -> u32 {
        self.view.matching_override(peer, query, now)
    }

    #[inline(always)]
    fn self_test(&self) -> u64 {
        self.view.self_test()
    }

    #[inline(always)]
    fn slot_bit(&self) -> u64 {
        self.view.slot_bit()
    }

    #[inline(always)]
    fn note_peer(&self, note: u64) {
        self.view.note_peer(note);
    }

    #[inline(always)]
    fn noted_peer(&self) -> u64 {
        self.view.noted_peer()
    }

    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        self.view.served(index)
    }
}

impl Lines for Policy<Peace> {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.generation.get(index)
    }
}

impl Lines for Policy<View> {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.generation.get(index)
    }

    #[inline(always)]
    fn look_up(&self, _: &Image<'_, Self>, family: Family, address: &Address) -> Class {
        let memory = self.view.memory;
        memory.keep_address(halves(address));
        // Hidden: the compiler knows more about the result than the verifier.
        Class(hide(calls::pom_class(memory.index(), family as u32) as usize) as u32)
    }
}

/// Returns the class of the address that is kept in the scratch. `family` is 4 or 6.
///
/// Fetches the generation that judges the packet once more. If another generation took its slot meanwhile,
/// which takes several changes of policy within one packet, the address has no class.
#[inline(always)]
pub(crate) fn class(memory: Memory, family: u32) -> Class {
    let Some(control) = maps::CONTROL.get(0) else { return Class::NONE };
    let Some(generation) = maps::POLICY.get(memory.slot()) else { return Class::NONE };
    let policy = Policy { generation, view: View { control, memory } };
    let Some(image) = Image::open(&policy) else { return Class::NONE };
    if image.generation() != memory.age_word(GENERATION_WORD) {
        return Class::NONE;
    }
    let [high, low] = memory.address();
    let address = [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32];
    let family = if family == Family::V4 as u32 { Family::V4 } else { Family::V6 };
    image.look_up(family, &address)
}

/// A table of flows for the fast path, which only looks flows up.
struct Plain<'a, 'b, P: Home> {
    image: &'b Image<'a, Policy<Peace>>,
    home: PhantomData<P>,
}

impl<P: Home> Barrier for Plain<'_, '_, P> {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.image.lines().barrier(value)
    }
}

impl<P: Home> Store for Plain<'_, '_, P> {
    at_home!(P);

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
        None
    }
}

/// Returns the slot in force. Called once per packet, so that a packet sees a single generation.
#[inline(always)]
fn slot_in_force(control: &Control) -> u32 {
    Active(control.word(word::ACTIVE)).slot(clock::now())
}

/// Decides a plain packet, on the fast path, by the generation in force. Returns `None` for any other packet,
/// for a self-test, and for every packet while a suspension of the policy or the grace period holds, or may
/// hold.
#[inline(always)]
pub(crate) fn fast_path<C: Context>(hook: Direction, packet: &Frame<C>) -> Option<Decision> {
    let control = maps::CONTROL.get(0)?;
    if control.word(word::SUSPENSION) | control.word(word::GRACE) | u64::from(packet.self_test()) != 0 {
        return None;
    }
    let unknown = control.word(word::ACTIVE);
    let policy = Policy { generation: maps::POLICY.get(slot_in_force(control))?, view: Peace { unknown } };
    let image = Image::open(&policy)?;
    let flows = Plain::<Flows> { image: &image, home: PhantomData };
    let fragments = Plain::<Fragments> { image: &image, home: PhantomData };
    let tables = Tables::in_peace(&image, flows, fragments);
    decide::fast_path(hook, packet, &tables, control.word(word::PORT_BLOOM))
}

/// Calls `then` with the tables of the generation in force, or `without` if there is no policy.
#[inline(always)]
fn by_policy<C: Context>(
    hook: Direction,
    packet: &Frame<C>,
    then: impl FnOnce(&Tables<'_, Policy<View>, Table<Flows>, Table<Fragments>>, &Memory) -> Decision,
    without: impl FnOnce(&View) -> Decision,
) -> Option<Decision> {
    let control = maps::CONTROL.get(0)?;
    let slot = slot_in_force(control);
    let memory = Memory::begin(hook, packet.self_test(), slot)?;
    let view = View { control, memory };
    let Some(generation) = maps::POLICY.get(slot) else { return Some(without(&view)) };
    let policy = Policy { generation, view };
    let image = Image::open(&policy)?;
    memory.keep_ages(policy.line(AGES)?);
    let tables = Tables::new(&image, Table::new(memory), Table::new(memory));
    Some(then(&tables, &memory))
}

/// Judges any frame, on the general path, by the generation in force.
#[inline(always)]
pub(crate) fn judge<C: Context>(hook: Direction, packet: &Frame<C>) -> Decision {
    let decision = by_policy(
        hook,
        packet,
        |tables, memory| decide::judge(hook, packet, tables, memory),
        |view| decide::judge_without_policy(hook, packet, view, clock::now(), &view.memory),
    );
    decision.unwrap_or(Decision::because(Reason::NoPolicy))
}

/// Returns the decision on a packet for the general path while the general program is missing.
#[inline(always)]
pub(crate) fn unjudged<C: Context>(hook: Direction, packet: &Frame<C>) -> Decision {
    let closed = Decision::because(Reason::Internal);
    let decision = by_policy(hook, packet, |tables, _| decide::unjudged(hook, tables), |_| closed);
    decision.unwrap_or(closed)
}

/// Returns the last datagram that the general path judged at this hook.
#[inline(always)]
pub(crate) fn judged(hook: Direction) -> Option<&'static Datagram> {
    Some(Memory::with_index(hook as u32)?.judged())
}
