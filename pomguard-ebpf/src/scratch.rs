//! The scratch map: memory that one packet needs in addition to the stack.

use pomguard_common::{
    Direction,
    control::{Control, ControlView, Override, halves},
    decide::{ParsedSlot, Scratch},
    flow::{Candidates, Key, Word},
    image::{Address, Barrier, Line},
    parse::Datagram,
    rate::Rated,
    serve::Served,
};

use crate::{
    barrier::hide,
    calls,
    layout::{self as at, VALUES},
    maps,
};

/// This CPU's value for one hook.
#[derive(Clone, Copy)]
pub(crate) struct Memory(*mut u64);

impl Memory {
    /// Looks up the value with this number. Only the lowest bits count.
    #[inline(always)]
    pub(crate) fn with_index(index: u32) -> Option<Self> {
        let words = maps::SCRATCH.get_ptr_mut(index & (VALUES as u32 - 1))?;
        Some(Self(words.cast::<u64>()))
    }

    /// Looks up the value of a hook, and begins a packet there.
    #[inline(always)]
    pub(crate) fn begin(hook: Direction, self_test: u32, slot: u32) -> Option<Self> {
        let index = hook as u32 + 2 * self_test;
        let memory = Self::with_index(index)?;
        memory.set(at::INDEX, index.into());
        memory.set(at::SELF_TEST, self_test.into());
        memory.set(at::SLOT, slot.into());
        memory.set(at::NOTE, 0);
        Some(memory)
    }

    /// Copies the ages of the generation that judges the packet.
    #[inline(always)]
    pub(crate) fn keep_ages(self, line: &Line) {
        let mut at = 0;
        while at < at::LINE {
            self.set(at::AGES + at, line.long(at as u32));
            at += 1;
        }
    }

    /// Returns the address of a word.
    #[inline(always)]
    const fn word(self, at: usize) -> *mut u64 {
        self.0.wrapping_add(at)
    }

    #[inline(always)]
    fn get(self, at: usize) -> u64 {
        // SAFETY: a word of this CPU's value. Nothing else runs at this hook on this CPU meanwhile.
        unsafe { self.word(at).read_volatile() }
    }

    #[inline(always)]
    fn set(self, at: usize, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.word(at).write_volatile(value) };
    }

    /// Returns the number of the value, which the verifier does not know.
    #[inline(always)]
    pub(crate) fn index(self) -> u32 {
        self.get(at::INDEX) as u32
    }

    /// Returns the slot of the generation that judges the packet.
    #[inline(always)]
    pub(crate) fn slot(self) -> u32 {
        self.get(at::SLOT) as u32
    }

    /// Returns 1 for a self-test.
    #[inline(always)]
    pub(crate) fn self_test(self) -> u64 {
        self.get(at::SELF_TEST)
    }

    /// Returns a word of the copy of the ages. The index wraps at the end of the line.
    #[inline(always)]
    pub(crate) fn age_word(self, index: u32) -> u32 {
        let words = self.word(at::AGES).cast::<u32>();
        // SAFETY: a half of a word of the copy; see `get`.
        unsafe { words.wrapping_add(hide(index as usize) & (2 * at::LINE - 1)).read_volatile() }
    }

    /// Keeps a key for [`Self::key`].
    #[inline(always)]
    pub(crate) fn keep_key(self, key: Key) {
        let mut at = 0;
        while at < key.0.len() {
            self.set(at::KEY + at, key.0[at]);
            at += 1;
        }
    }

    /// Returns the key that was kept.
    #[inline(always)]
    pub(crate) fn key(&self) -> &Key {
        // SAFETY: the words for a key, which `keep_key` has written and which do not change meanwhile.
        unsafe { &*self.word(at::KEY).cast::<Key>() }
    }

    /// Keeps an address of two words for [`Self::address`], in the place of the key.
    #[inline(always)]
    pub(crate) fn keep_address(self, address: [u64; 2]) {
        self.set(at::KEY, address[0]);
        self.set(at::KEY + 1, address[1]);
    }

    /// Returns the address that was kept.
    #[inline(always)]
    pub(crate) fn address(self) -> [u64; 2] {
        [self.get(at::KEY), self.get(at::KEY + 1)]
    }

    /// Returns the words for candidates.
    #[inline(always)]
    pub(crate) fn candidates(&self) -> &Candidates {
        // SAFETY: the words for candidates, which have no other use; a candidate is a shared word.
        unsafe { &*self.word(at::CANDIDATES).cast::<Candidates>() }
    }

    /// Returns the last datagram that was judged with this value.
    #[inline(always)]
    pub(crate) fn judged(self) -> &'static Datagram {
        let datagram = hide(self.place(ParsedSlot::Outer) as usize) as *const Datagram;
        // SAFETY: the caller has a decision that says that `judge` has written the datagram, and the value
        // lives as long as the program.
        unsafe { &*datagram }
    }

    #[inline(always)]
    const fn place(self, place: ParsedSlot) -> *mut Datagram {
        self.word(at::DATAGRAMS + at::DATAGRAM * place as usize).cast()
    }
}

impl Barrier for Memory {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.set(at::BARRIER, value);
        self.get(at::BARRIER)
    }
}

impl Scratch for Memory {
    #[inline(always)]
    fn store(&self, place: ParsedSlot, datagram: Datagram) {
        // SAFETY: the words for this datagram. Nothing else runs at this hook on this CPU meanwhile.
        unsafe { self.place(place).write(datagram) };
    }

    #[inline(always)]
    fn load(&self, place: ParsedSlot) -> Option<&Datagram> {
        let place = hide(self.place(place) as usize) as *const Datagram;
        // SAFETY: the same words, which were written just before: `judge` loads only after a store.
        Some(unsafe { &*place })
    }
}

/// The state that holds in addition to the generations, and the memory of the packet.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) control: &'static Control,
    pub(crate) memory: Memory,
}

impl Barrier for View {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.memory.barrier(value)
    }
}

impl ControlView for View {
    #[inline(always)]
    fn control(&self, index: usize) -> u64 {
        self.control.word(index)
    }

    #[inline(always)]
    fn spent(&self, rated: u32) -> Option<&Word> {
        let rated = hide(rated as usize) & (Rated::COUNT - 1);
        // SAFETY: one of the words for rates, which have no other use.
        Some(unsafe { &*self.memory.word(at::SPENT).wrapping_add(rated).cast::<Word>() })
    }

    #[inline(always)]
    fn override_rule(&self, index: u32) -> Option<&Override> {
        maps::OVERRIDES.get(index)
    }

    #[inline(always)]
    fn matching_override(&self, peer: &Address, query: u64, now: u32) -> u32 {
        self.memory.keep_address(halves(peer));
        // Hidden: the compiler knows more about the result than the verifier.
        hide(calls::pom_override(self.memory.index(), query, now) as usize) as u32
    }

    #[inline(always)]
    fn self_test(&self) -> u64 {
        self.memory.self_test()
    }

    #[inline(always)]
    fn slot_bit(&self) -> u64 {
        Override::slot_bit(self.memory.slot()).into()
    }

    #[inline(always)]
    fn note_peer(&self, note: u64) {
        self.memory.set(at::NOTE, note);
    }

    #[inline(always)]
    fn noted_peer(&self) -> u64 {
        self.memory.get(at::NOTE)
    }

    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        maps::SERVED.get(index)
    }
}
