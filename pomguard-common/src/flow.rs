//! Conversations that this host opened, remembered so that their answers may come in.
//!
//! A set-associative table in a plain array of buckets, so that the programs find, enter and age
//! entries by themselves, without locks and without user space. A bucket holds
//!
//! * eight *tags*, one cache line. A tag holds 32 bits of the key's hash, the state, and when the
//!   conversation was last seen. It is published with one store.
//! * eight *slots*: the whole key of each. A tag only says where to look; an entry matches when every
//!   bit of its key does. They lie behind the tags, mostly in the same page: of a hundred thousand
//!   conversations in random order each has to be fetched, and its page has to be found once.
//!
//! Each key has two buckets to live in. An entry past its age is free. A new one takes a free slot in
//! its first bucket or, when half of that is taken, in the emptier of the two; else the oldest one that is
//! not an established conversation, else there is no room: a flood of new conversations never pushes out
//! one that lives.
//!
//! Two processors that enter different conversations into one slot at the same instant leave one of
//! them with the other's tag: it does not match, and the next packet that this host sends enters it again.

mod entry;
#[cfg(test)]
mod tests;

pub use entry::{Bucket, Key, Slot, State, Tag, Word};

use crate::{image::Forget, limits::FLOW_WAYS};

/// Where the table lives: an array map in the kernel, a vector on the host.
pub trait Store: Forget {
    /// A bucket.
    fn bucket(&self, bucket: u32) -> Option<&Bucket>;
    /// Number of buckets minus one (they are a power of two).
    fn mask(&self) -> u32;
    /// Keys the hash.
    fn secret(&self) -> u64;
    /// How long an entry in this state lives, in ticks.
    fn age(&self, state: State) -> u32;
    /// The time in ticks.
    fn now(&self) -> u32;
    /// Hands a key on by reference. In the kernel it lies in a map meanwhile: the stack is short.
    #[inline(always)]
    fn with<R>(&self, key: Key, then: impl FnOnce(&Key) -> R) -> R {
        then(&key)
    }
}

impl<S: Store> Store for &S {
    #[inline(always)]
    fn bucket(&self, bucket: u32) -> Option<&Bucket> {
        (**self).bucket(bucket)
    }

    #[inline(always)]
    fn mask(&self) -> u32 {
        (**self).mask()
    }

    #[inline(always)]
    fn secret(&self) -> u64 {
        (**self).secret()
    }

    #[inline(always)]
    fn age(&self, state: State) -> u32 {
        (**self).age(state)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        (**self).now()
    }

    #[inline(always)]
    fn with<R>(&self, key: Key, then: impl FnOnce(&Key) -> R) -> R {
        (**self).with(key, then)
    }
}

/// Stamp of a conversation that was there before the first policy: it is never judged again.
pub const GRANDFATHERED: u32 = 0;

/// Stamp of a conversation that no generation has judged: it is judged again with every packet.
pub const UNJUDGED: u32 = u32::MAX;

/// A live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its slot, counted over all buckets.
    pub slot: u32,
    /// Its tag when it was found.
    pub tag: Tag,
    /// The row that allowed it.
    pub row: u16,
    /// The generation that judged it, or [`GRANDFATHERED`].
    pub stamp: u32,
}

/// The second bucket of a hash.
#[inline(always)]
const fn other_bucket(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ (hash as u32).rotate_left(11)
}

/// No slot.
const NOWHERE: u32 = u32::MAX;

/// Tag and slot by the slot's number.
#[inline(always)]
fn at<S: Store>(store: &S, slot: u32) -> Option<(&Word, &Slot)> {
    let bucket = store.bucket(slot / FLOW_WAYS as u32)?;
    let way = slot as usize % FLOW_WAYS;
    Some((&bucket.tags[way], &bucket.slots[way]))
}

/// Finds a live conversation.
#[inline(always)]
pub fn find<S: Store>(store: &S, key: Key) -> Option<Found> {
    let slot = store.with(key, |key| locate(store, key));
    if slot == NOWHERE {
        return None;
    }
    let (tag, entry) = at(store, slot)?;
    let (tag, row) = (Tag(tag.load()), entry.row.load());
    Some(Found { slot, tag, row: row as u16, stamp: (row >> 32) as u32 })
}

/// The slot of a live conversation, or [`NOWHERE`]. A function of its own in the programs.
#[inline(never)]
fn locate<S: Store>(store: &S, key: &Key) -> u32 {
    let slot = match search(store, key) {
        Some(found) => found.slot,
        None => NOWHERE,
    };
    store.forget(slot.into()) as u32
}

/// Finds a live conversation, without leaving the function that asks.
#[inline(always)]
pub(crate) fn search<S: Store>(store: &S, key: &Key) -> Option<Found> {
    let hash = key.hash(store.secret());
    let now = store.now();
    let mut number = hash as u32 & store.mask();
    let mut choice = 0;
    while choice < 2 {
        let bucket = store.bucket(number)?;
        let mut way = 0;
        while way < FLOW_WAYS {
            let tag = Tag(bucket.tags[way].load());
            let entry = &bucket.slots[way];
            if (tag.0 ^ hash) >> 32 == 0 && same(&entry.key, key) {
                let state = tag.state();
                if !matches!(state, State::Free) && tag.idle(now) <= store.age(state) {
                    let slot = number * FLOW_WAYS as u32 + way as u32;
                    let row = entry.row.load();
                    return Some(Found { slot, tag, row: row as u16, stamp: (row >> 32) as u32 });
                }
            }
            way += 1;
        }
        number = other_bucket(hash) & store.mask();
        choice += 1;
    }
    None
}

/// The same value, of which the compiler knows nothing: it would make a branch of every term of a
/// comparison, and the verifier walks them all.
#[inline(always)]
fn unforeseen(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: one move of the register onto itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

#[inline(always)]
fn same(stored: &[Word; 5], key: &Key) -> bool {
    // Written out, so that the programs keep the key in registers.
    let difference = stored[0].load() ^ key.0[0]
        | stored[1].load() ^ key.0[1]
        | stored[2].load() ^ key.0[2]
        | stored[3].load() ^ key.0[3]
        | stored[4].load() ^ key.0[4];
    unforeseen(difference) == 0
}

/// Marks a conversation as seen, and moves it to a state. Stores only when something changes: the
/// line stays shared between processors while nothing does.
#[inline(always)]
pub fn touch<S: Store>(store: &S, found: &Found, state: State) {
    /// Ticks that a time stamp may lag behind: about a second.
    const STALE: u32 = 4;
    let now = store.now();
    if (found.tag.state() as u8 != state as u8 || found.tag.idle(now) >= STALE)
        && let Some((tag, _)) = at(store, found.slot)
    {
        tag.store(Tag::new(found.tag.0, state, now).0);
    }
}

/// Notes that a generation has judged a conversation, and by which row.
#[inline(always)]
pub fn restamp<S: Store>(store: &S, found: &Found, row: u16, stamp: u32) {
    if let Some((_, slot)) = at(store, found.slot) {
        slot.row.store(u64::from(row) | u64::from(stamp) << 32);
    }
}

/// What entering a conversation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Entered {
    /// Into a free slot.
    New = 1,
    /// In the place of an older one that was not established.
    Evicted = 2,
    /// There was no room.
    Full = 3,
}

impl Entered {
    /// The outcome with this number; none for others.
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

/// Whether a live entry in state `old` makes room for a new one in state `new`.
#[inline(always)]
const fn yields(old: State, new: State) -> bool {
    match old {
        State::Free | State::Opening | State::Closing | State::Fragment => true,
        State::Established => false,
        State::Udp | State::Icmp | State::Other => !matches!(new, State::Opening),
    }
}

/// Enters a conversation that [`find`] did not find.
#[inline(always)]
pub fn enter<S: Store>(store: &S, key: Key, state: State, row: u16, stamp: u32) -> Entered {
    store.with(key, |key| place(store, key, state, row, stamp))
}

/// Finds a place for a conversation and puts it there. A function of its own in the programs.
#[inline(never)]
fn place<S: Store>(store: &S, key: &Key, state: State, row: u16, stamp: u32) -> Entered {
    /// Above every idle time.
    const FREE: u64 = 1 << 32;
    /// Slots of the first bucket that are taken whatever the second one has.
    const CROWDED: usize = 4;
    let hash = key.hash(store.secret());
    let now = store.now();
    // The best place so far: how good it is, above 29 bits of slot.
    let mut best = 0;
    let mut bucket = hash as u32 & store.mask();
    let mut choice = 0;
    while choice < 2 {
        let Some(candidates) = store.bucket(bucket) else { return Entered::Full };
        let mut way = 0;
        while way < FLOW_WAYS {
            let tag = Tag(candidates.tags[way].load());
            let old = tag.state();
            let idle = tag.idle(now);
            let worth = if matches!(old, State::Free) || idle > store.age(old) {
                // Slots are filled from the first on, so that the first free one tells how full a bucket is.
                let emptiness = if choice == 0 && way < CROWDED { FLOW_WAYS } else { FLOW_WAYS - way };
                FREE + emptiness as u64
            } else if yields(old, state) {
                u64::from(idle) + 1
            } else {
                0
            };
            let slot = bucket * FLOW_WAYS as u32 + way as u32;
            if worth > best >> 29 {
                best = worth << 29 | u64::from(slot);
            }
            best = store.forget(best);
            way += 1;
        }
        bucket = other_bucket(hash) & store.mask();
        choice += 1;
    }
    let worth = best >> 29;
    if worth == 0 {
        return Entered::Full;
    }
    let free = worth > FREE;
    let place = (best & ((1 << 29) - 1)) as u32;
    let Some((tag, slot)) = at(store, place) else { return Entered::Full };
    // Nobody matches the slot while its key is half written: the tag goes first and comes last.
    tag.store(0);
    let mut i = 0;
    while i < 5 {
        slot.key[i].store(key.0[i]);
        i += 1;
    }
    slot.row.store(u64::from(row) | u64::from(stamp) << 32);
    tag.store(Tag::new(hash, state, now).0);
    if free { Entered::New } else { Entered::Evicted }
}
