//! Room for a new flow, and the choice of the entry that makes room.
//!
//! A new entry takes a free slot in its first bucket or, when half of that bucket is taken, in the emptier of
//! its two buckets. If both buckets are full, another entry makes room: the longest idle entry of the first
//! line of this list that has any.
//!
//! 1. Entries past the age of their state, which count as free;
//! 2. closed;
//! 3. suspect;
//! 4. unanswered (opening TCP, UDP without an answer, ICMP, fragments), of a class that has more than its share
//!    of the two buckets: first of the new flow's own class;
//! 5. unanswered, of the new flow's own class;
//! 6. answered UDP, while UDP has more than its share.
//!
//! A class's share is a quarter, so that no class is pushed below a quarter. If no line has an entry, there
//! is no room, except for a flow that must not fail ([`Newcomer::urgent`]). Such a flow takes the longest
//! idle unanswered entry of any class; if there is none, answered UDP; if there is none, established TCP.

use super::{State, Store, Tag, Word, at, hide, less, port_time, ports, prints};
use crate::{
    flow::Key,
    limits::{FLOW_WAYS, FLOWS},
};

/// The result of entering a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Entered {
    /// The flow took a free slot.
    New = 1,
    /// The flow replaced an older entry.
    Evicted = 2,
    /// There was no room.
    Full = 3,
}

impl Entered {
    /// Returns the result with this number, or `None` for any other number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::New),
            2 => Some(Self::Evicted),
            3 => Some(Self::Full),
            _ => None,
        }
    }
}

/// A flow that is to be entered, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The state, with [`Self::URGENT`].
    what: u32,
    /// Row slot, marks and generation as they lie in the [`super::Slot`].
    row: u64,
}

impl Newcomer {
    /// Bit: the flow always finds room.
    const URGENT: u32 = 1 << 8;

    /// Returns a flow in a state, allowed by a row under a generation.
    #[must_use]
    #[inline(always)]
    pub const fn new(state: State, row: u16, epoch: u32) -> Self {
        Self { what: state as u32, row: row as u64 | (epoch as u64) << 32 }
    }

    /// Returns the flow with [`super::mark`]s of this host's packets.
    #[must_use]
    #[inline(always)]
    pub const fn marked(self, ours: u8) -> Self {
        Self { row: self.row | (ours as u64) << 16, ..self }
    }

    /// Returns the flow, which always finds room if `urgent`.
    #[must_use]
    #[inline(always)]
    pub const fn urgent(self, urgent: bool) -> Self {
        if urgent { Self { what: self.what | Self::URGENT, ..self } } else { self }
    }
}

/// The best entry of each kind that may make room: the idle time plus one in the upper bits, the slot in the
/// lower bits.
pub type Candidates = [Word; KINDS];

/// Number of kinds, rounded up to a power of two.
const KINDS: usize = 16;

/// Kinds of entries, in the order in which they make room where that order is fixed.
mod kind {
    pub(super) const FREE: usize = 0;
    pub(super) const CLOSED: usize = 1;
    pub(super) const SUSPECT: usize = 2;
    pub(super) const OPENING: usize = 3;
    pub(super) const UNANSWERED: usize = 4;
    pub(super) const ICMP: usize = 5;
    pub(super) const FRAGMENT: usize = 6;
    pub(super) const UDP: usize = 7;
    pub(super) const ESTABLISHED: usize = 8;
}

/// The kind of a live entry in each state, four bits each.
const KIND_OF: u32 = (kind::OPENING << (4 * State::Opening as usize)
    | kind::ESTABLISHED << (4 * State::Established as usize)
    | kind::CLOSED << (4 * State::Closed as usize)
    | kind::UDP << (4 * State::Udp as usize)
    | kind::ICMP << (4 * State::Icmp as usize)
    | kind::FRAGMENT << (4 * State::Fragment as usize)
    | kind::UNANSWERED << (4 * State::Unanswered as usize)) as u32;

/// Classes: the position, in the word of the counts, of the number of entries of each class.
mod class {
    pub(super) const TCP: u32 = 0;
    pub(super) const UDP: u32 = 8;
    pub(super) const ICMP: u32 = 16;
    pub(super) const FRAGMENT: u32 = 24;
}

/// The class of each state, a byte each.
const CLASS_OF: u64 = (class::UDP as u64) << (8 * State::Udp as u32)
    | (class::UDP as u64) << (8 * State::Unanswered as u32)
    | (class::ICMP as u64) << (8 * State::Icmp as u32)
    | (class::FRAGMENT as u64) << (8 * State::Fragment as u32);

#[inline(always)]
const fn class_of(state: u32) -> u32 {
    (CLASS_OF >> (8 * (state & 7))) as u32 & 0xff
}

/// Number of entries that are one class's share of two buckets.
const SHARE: u64 = 2 * FLOW_WAYS as u64 / 4;

/// Number of bits of a slot number.
const SLOT_BITS: u32 = 29;

const _: () = assert!(FLOWS < 1 << SLOT_BITS, "a slot fits alongside its worth");

/// Enters a flow that [`super::find`] did not find.
#[inline(always)]
pub fn enter<S: Store>(store: &S, key: Key, newcomer: Newcomer) -> Entered {
    store.place(key, newcomer.what, newcomer.row)
}

/// Finds a slot for a flow, and stores the flow there. `what` and `row` are those of a [`Newcomer`].
#[inline(always)]
pub fn place<S: Store + ?Sized>(store: &S, key: &Key, what: u32, row: u64) -> Entered {
    let hash = key.hash(store.secret());
    let now = store.now();
    let Some(best) = store.candidates() else { return Entered::Full };
    let counts = survey(store, best, hash, now);
    let chosen = choose(best, counts, what);
    if chosen == 0 {
        return Entered::Full;
    }
    let free = best[kind::FREE].load() != 0;
    let place = (chosen & ((1 << SLOT_BITS) - 1)) as u32;
    let Some((tag, slot)) = at(store, place) else { return Entered::Full };
    // Written before the tag: a reader that sees the flow also sees that the port has one.
    if let Some(time) = port_time(store, key) {
        ports::note(time, now);
    }
    prints::note(store, place, hash);
    // No key matches the slot while the new key is half written: the tag is cleared first and written last.
    tag.store(0);
    let mut i = 0;
    while i < 5 {
        slot.key[i].store(key.0[i]);
        i += 1;
    }
    slot.row.store(row as u16);
    slot.ours.store((row >> 16) as u8);
    slot.theirs.store(0);
    slot.epoch.store((row >> 32) as u32);
    tag.store(Tag::new(hash, State::from_number(what), now).0);
    if free { Entered::New } else { Entered::Evicted }
}

/// Records the best entry of each kind in the two buckets of a hash. Returns the number of live entries of
/// each class.
#[inline(always)]
fn survey<S: Store + ?Sized>(store: &S, best: &Candidates, hash: u64, now: u32) -> u64 {
    /// Slots of the first bucket that are filled before the second bucket is considered.
    const CROWDED: usize = 4;
    let mut kind = 0;
    while kind < KINDS {
        best[kind].store(0);
        kind += 1;
    }
    let mut counts = 0;
    let mut bucket = hash as u32 & store.mask();
    let mut choice = 0;
    while choice < 2 {
        let Some(candidates) = store.bucket(bucket) else { return 0 };
        let mut way = 0;
        while way < FLOW_WAYS {
            let tag = Tag(candidates.tags[way].load());
            let state = tag.state() as u32;
            let idle = u64::from(tag.idle(now));
            // No branches: the verifier would explore the rest of the loop twice for each.
            let live = less(idle, u64::from(store.age(tag.state())) + 1) & less(0, state.into());
            let suspect = less(0, tag.suspect().into());
            counts += (live >> 63) << class_of(state);
            let kind = u64::from(KIND_OF >> (4 * state));
            let kind = (kind ^ (kind ^ kind::SUSPECT as u64) & suspect) & live;
            // Slots are filled from the first on, so the first free slot tells how full a bucket is.
            let emptiness = if choice == 0 && way < CROWDED { FLOW_WAYS } else { FLOW_WAYS - way };
            let emptiness = emptiness as u64;
            let worth = emptiness ^ (emptiness ^ (idle + 1)) & live;
            let slot = bucket * FLOW_WAYS as u32 + way as u32;
            // `hide` keeps the compiler from dropping the mask: the verifier must see the bound.
            let noted = &best[hide(kind) as usize & (KINDS - 1)];
            let before = noted.load();
            let candidate = worth << SLOT_BITS | u64::from(slot);
            noted.store(before ^ (before ^ candidate) & less(before >> SLOT_BITS, worth));
            counts = store.barrier(counts);
            way += 1;
        }
        bucket = super::other_bucket(hash) & store.mask();
        choice += 1;
    }
    counts
}

/// Returns the entry that makes room by the list at the top of this file, or 0 if there is none.
#[inline(always)]
fn choose(best: &Candidates, counts: u64, what: u32) -> u64 {
    const UNANSWERED: [(usize, u32); 4] = [
        (kind::OPENING, class::TCP),
        (kind::UNANSWERED, class::UDP),
        (kind::ICMP, class::ICMP),
        (kind::FRAGMENT, class::FRAGMENT),
    ];
    let mut kind = kind::FREE;
    while kind <= kind::SUSPECT {
        let worth = best[kind].load();
        if worth != 0 {
            return worth;
        }
        kind += 1;
    }
    let own = class_of(what);
    let larger = |one: u64, other: u64| one ^ (one ^ other) & less(one, other);
    let (mut any, mut over, mut own_over, mut own_any) = (0, 0, 0, 0);
    let mut i = 0;
    // No branches, as in `survey`.
    while i < UNANSWERED.len() {
        let (kind, class) = UNANSWERED[i];
        let worth = best[kind].load();
        let is_own = !less(0, u64::from(class ^ own));
        let is_over = less(SHARE, counts >> class & 0xff);
        any = larger(any, worth);
        over = larger(over, worth & is_over);
        own_any |= worth & is_own;
        own_over |= worth & is_own & is_over;
        i += 1;
    }
    if own_over != 0 {
        return own_over;
    }
    if over != 0 {
        return over;
    }
    if own_any != 0 {
        return own_any;
    }
    if counts >> class::UDP & 0xff > SHARE {
        let worth = best[kind::UDP].load();
        if worth != 0 {
            return worth;
        }
    }
    if what & Newcomer::URGENT == 0 {
        return 0;
    }
    if any != 0 {
        return any;
    }
    match best[kind::UDP].load() {
        0 => best[kind::ESTABLISHED].load(),
        worth => worth,
    }
}
