//! Room for a new flow, and which entry makes it.
//!
//! A new entry takes a free slot in its first bucket or, when half of that is taken, in the emptier of its
//! two. Where both buckets are full, another entry makes room, the longest idle one of the first line here
//! that has any:
//!
//! 1. past its age, which is as good as free;
//! 2. closed;
//! 3. suspect;
//! 4. unanswered (opening TCP, UDP that nobody has answered, ICMP), of a class that has more than its share
//!    of the two buckets: of the new flow's own class first;
//! 5. unanswered, of the new flow's own class;
//! 6. answered UDP, while UDP has more than its share.
//!
//! A class's share is a quarter, so that no class is pushed below it. If no line has any, there is no room,
//! except for what must not fail ([`Newcomer::urgent`]): that takes an unanswered entry of any class, else
//! answered UDP, else established TCP, each the longest idle one.

use super::{State, Store, Tag, Word, at, port_time, ports};
use crate::{
    flow::Key,
    limits::{FLOW_WAYS, FLOWS},
};

/// What entering a flow came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Entered {
    /// Into a free slot.
    New = 1,
    /// In the place of an older one that yields.
    Evicted = 2,
    /// There was no room.
    Full = 3,
}

impl Entered {
    /// The outcome with this number; `None` for others.
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

/// A flow that is to be entered, alongside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The state, with [`Self::URGENT`].
    what: u32,
    /// Row slot, marks and generation as they lie in the [`super::Slot`].
    row: u64,
}

impl Newcomer {
    /// Always finds room.
    const URGENT: u32 = 1 << 8;

    /// A flow in a state, allowed by a row under a generation.
    #[must_use]
    #[inline(always)]
    pub const fn new(state: State, row: u16, epoch: u32) -> Self {
        Self { what: state as u32, row: row as u64 | (epoch as u64) << 32 }
    }

    /// The same, with [`super::mark`]s of what this host sent.
    #[must_use]
    #[inline(always)]
    pub const fn marked(self, ours: u8) -> Self {
        Self { row: self.row | (ours as u64) << 16, ..self }
    }

    /// The same, which always finds room if `urgent`.
    #[must_use]
    #[inline(always)]
    pub const fn urgent(self, urgent: bool) -> Self {
        if urgent { Self { what: self.what | Self::URGENT, ..self } } else { self }
    }
}

/// The best entry of each kind that may make room: how long it was idle, plus one, above its slot.
pub type Candidates = [Word; KINDS];

/// Number of kinds, a power of two.
const KINDS: usize = 16;

/// Kinds of entries, in the order in which they make room, as far as it is fixed.
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

/// Classes: where the number of entries of each stands in the word that counts them.
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

/// Entries of one class that are its share of two buckets.
const SHARE: u64 = 2 * FLOW_WAYS as u64 / 4;

/// Bits of a slot's number.
const SLOT_BITS: u32 = 29;

const _: () = assert!(FLOWS < 1 << SLOT_BITS, "a slot fits alongside its worth");

/// Enters a flow that [`super::find`] did not find.
#[inline(always)]
pub fn enter<S: Store>(store: &S, key: Key, newcomer: Newcomer) -> Entered {
    store.with(key, |key| place(store, key, newcomer.what, newcomer.row))
}

/// Finds a place for a flow and puts it there. A function of its own in the programs.
#[inline(never)]
fn place<S: Store>(store: &S, key: &Key, what: u32, row: u64) -> Entered {
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
    // Before the tag: who sees the flow sees that its port has one.
    if let Some(time) = port_time(store, key) {
        ports::note(time, now);
    }
    // Nobody matches the slot while its key is half written: the tag goes first and comes last.
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

/// Notes the best entry of each kind in the two buckets of a hash, and returns how many live ones each class
/// has.
#[inline(always)]
fn survey<S: Store>(store: &S, best: &Candidates, hash: u64, now: u32) -> u64 {
    /// Slots of the first bucket that are taken whatever the second one has.
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
            let state = tag.state();
            let idle = tag.idle(now);
            let (kind, worth) = if matches!(state, State::Free) || idle > store.age(state) {
                // Slots are filled from the first on, so that the first free one tells how full a bucket is.
                let emptiness = if choice == 0 && way < CROWDED { FLOW_WAYS } else { FLOW_WAYS - way };
                (kind::FREE, emptiness as u64)
            } else {
                counts += 1 << class_of(state as u32);
                let kind =
                    if tag.suspect() { kind::SUSPECT } else { (KIND_OF >> (4 * state as u32)) as usize };
                (kind, u64::from(idle) + 1)
            };
            let slot = bucket * FLOW_WAYS as u32 + way as u32;
            // A number of which the compiler knows nothing is bounded where the verifier sees it.
            let noted = &best[super::hide(kind as u64) as usize & (KINDS - 1)];
            if worth > noted.load() >> SLOT_BITS {
                noted.store(worth << SLOT_BITS | u64::from(slot));
            }
            counts = store.barrier(counts);
            way += 1;
        }
        bucket = super::other_bucket(hash) & store.mask();
        choice += 1;
    }
    counts
}

/// The entry that makes room, 0 for none: the table at the head of this file.
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
    let (mut any, mut over, mut own_over, mut own_any) = (0, 0, 0, 0);
    let mut i = 0;
    while i < UNANSWERED.len() {
        let (kind, class) = UNANSWERED[i];
        let worth = best[kind].load();
        if worth > any {
            any = worth;
        }
        if class == own {
            own_any = worth;
        }
        if counts >> class & 0xff > SHARE {
            if class == own {
                own_over = worth;
            }
            if worth > over {
                over = worth;
            }
        }
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
