//! The flow table: flows that this host opened, remembered so that their answers may come in.
//!
//! A set-associative table in a plain array of buckets, so that the programs find, enter and age
//! entries by themselves, without locks and without user space. A bucket holds
//!
//! * eight *tags*, one cache line. A tag holds 29 bits of the key's hash, the state, and when the
//!   flow was last seen. It is published with one store.
//! * eight *slots*: the whole key of each. A tag only says where to look; an entry matches when every
//!   bit of its key does. They lie behind the tags, mostly in the same page: of a hundred thousand
//!   flows in random order each has to be fetched, and its page has to be found once.
//!
//! Each key has two buckets to live in. [`enter`] says which entry makes room where both are full, and
//! [`segment`] when a TCP flow has ended.
//!
//! Two processors that enter different flows into one slot at the same instant leave one of
//! them with the other's tag: it does not match, and the next packet that this host sends enters it again.

mod entry;
#[cfg(test)]
mod port_tests;
pub mod ports;
mod room;
mod tcp;
#[cfg(test)]
mod tests;

pub use entry::{Bucket, Key, Slot, State, Tag, mark};
pub use room::{Candidates, Entered, Newcomer, enter};
pub use tcp::{plain_segment, segment};

use self::ports::FlowPort;
pub use crate::word::{Byte, Half, Quarter, Word};
use crate::{barrier::Barrier, limits::FLOW_WAYS, protocol};

/// Where the table lives: an array map in the kernel, a vector on the host.
pub trait Store: Barrier {
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
    /// Words in which [`enter`] notes the entries that may make room. In the kernel they lie in a map: the
    /// stack is short. `None` ends in [`Entered::Full`].
    fn candidates(&self) -> Option<&Candidates>;
    /// The times of a local port; `None` if the table has none, and every key is to be searched for.
    fn port(&self, port: u16) -> Option<&FlowPort>;
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
    fn candidates(&self) -> Option<&Candidates> {
        (**self).candidates()
    }

    #[inline(always)]
    fn port(&self, port: u16) -> Option<&FlowPort> {
        (**self).port(port)
    }

    #[inline(always)]
    fn with<R>(&self, key: Key, then: impl FnOnce(&Key) -> R) -> R {
        (**self).with(key, then)
    }
}

/// Stamp of a flow that was there before the first policy: it is never judged again.
pub const GRANDFATHERED: u32 = 0;

/// Stamp of a flow that no generation has judged: it is judged again with every packet.
pub const UNJUDGED: u32 = u32::MAX;

/// The generation after this one. It is neither [`GRANDFATHERED`] nor [`UNJUDGED`].
#[must_use]
pub const fn next_generation(generation: u32) -> u32 {
    if generation >= UNJUDGED - 1 { GRANDFATHERED + 1 } else { generation + 1 }
}

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
    pub epoch: u32,
}

impl Found {
    /// In no slot.
    pub(crate) const NOWHERE: Self = Self { slot: NOWHERE, tag: Tag(0), row: u16::MAX, epoch: 0 };
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

/// The time of the local port of a key; `None` if the table keeps none for it.
#[inline(always)]
fn port_time<'a, S: Store>(store: &'a S, key: &Key) -> Option<&'a Half> {
    if !ports::keeps(key.protocol()) {
        return None;
    }
    Some(store.port(key.local_port())?.time(key.protocol()))
}

/// Returns true if the table may hold a flow of this key.
#[inline(always)]
fn may_hold<S: Store>(store: &S, key: &Key, now: u32) -> bool {
    match port_time(store, key) {
        Some(time) => ports::may_have_flow(time.load(), port_age(store, key.protocol()), now),
        None => true,
    }
}

/// Ticks after which no flow of a transport is left at a port: no less than the age of each of its states. A sum and
/// no maximum, which would cost a branch for each.
#[inline(always)]
fn port_age<S: Store>(store: &S, protocol: u8) -> u64 {
    let age = |state| u64::from(store.age(state));
    if protocol == protocol::UDP {
        age(State::Udp) + age(State::Unanswered)
    } else {
        age(State::Opening) + age(State::Established) + age(State::Closed)
    }
}

/// Finds a live connection.
#[inline(always)]
pub fn find<S: Store>(store: &S, key: Key) -> Option<Found> {
    let slot = store.with(key, |key| locate(store, key));
    if slot == NOWHERE {
        return None;
    }
    let (tag, entry) = at(store, slot)?;
    Some(Found { slot, tag: Tag(tag.load()), row: entry.row.load(), epoch: entry.epoch.load() })
}

/// The slot of a live connection, or [`NOWHERE`]. A function of its own in the programs.
#[inline(never)]
fn locate<S: Store>(store: &S, key: &Key) -> u32 {
    let slot = match search(store, key) {
        Some(found) => found.slot,
        None => NOWHERE,
    };
    store.barrier(slot.into()) as u32
}

/// Finds a live connection, without leaving the function that asks.
#[inline(always)]
pub(crate) fn search<S: Store>(store: &S, key: &Key) -> Option<Found> {
    let now = store.now();
    if !may_hold(store, key, now) {
        return None;
    }
    let hash = key.hash(store.secret());
    let mut number = hash as u32 & store.mask();
    let mut choice = 0;
    while choice < 2 {
        let bucket = store.bucket(number)?;
        let mut way = 0;
        while way < FLOW_WAYS {
            let tag = Tag(bucket.tags[way].load());
            let entry = &bucket.slots[way];
            if tag.is_of(hash) && same(&entry.key, key) {
                let state = tag.state();
                if !matches!(state, State::Free) && tag.idle(now) <= store.age(state) {
                    let slot = number * FLOW_WAYS as u32 + way as u32;
                    // Looked up again: a pointer that is kept over the search makes the verifier walk it more than once.
                    if let Some(time) = port_time(store, key) {
                        ports::note(time, now);
                    }
                    return Some(Found { slot, tag, row: entry.row.load(), epoch: entry.epoch.load() });
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
pub(crate) fn hide(value: u64) -> u64 {
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
    hide(difference) == 0
}

/// Ticks that a time stamp may lag behind: about a second.
const STALE: u32 = 4;

/// Marks a flow as seen, and moves it to a state. Stores only when something changes: the
/// line stays shared between processors while nothing does.
#[inline(always)]
pub fn touch<S: Store>(store: &S, found: &Found, state: State) {
    let now = store.now();
    if (found.tag.state() as u8 != state as u8 || found.tag.idle(now) >= STALE)
        && let Some((tag, _)) = at(store, found.slot)
    {
        tag.store(Tag::new(found.tag.0, state, now).0);
    }
}

/// Notes that the peer of a UDP flow has answered, which does not keep the flow alive (RFC 6092 REC-16).
#[inline(always)]
pub fn answered<S: Store>(store: &S, found: &Found) {
    if matches!(found.tag.state(), State::Unanswered)
        && let Some((tag, _)) = at(store, found.slot)
    {
        tag.store(found.tag.moved(State::Udp).0);
    }
}

/// Notes that a generation has judged a flow, and by which row.
#[inline(always)]
pub fn set_epoch<S: Store>(store: &S, found: &Found, row: u16, epoch: u32) {
    if let Some((_, slot)) = at(store, found.slot) {
        slot.row.store(row);
        slot.epoch.store(epoch);
    }
}
