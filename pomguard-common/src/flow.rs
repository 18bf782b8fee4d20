//! The flow table: flows that this host opened, remembered so that their answers may come in.
//!
//! A set-associative table in a plain array of buckets, so that the programs find, enter and age entries
//! themselves, without locks and without user space. A bucket holds
//!
//! * eight *tags* in one cache line. A tag holds 29 bits of the key's hash, the state, and the time of the last
//!   packet. A tag is published with one store.
//! * eight *slots*, each with a whole key. A tag only says where to look: an entry matches if every bit of the
//!   key does. The slots lie behind the tags, mostly in the same page. With a hundred thousand flows in random
//!   order every slot has to be fetched, and this way the page is looked up once.
//!
//! Each key has two possible buckets. [`enter`] says which entry makes room if both are full, and [`segment`]
//! says when a TCP flow has ended.
//!
//! If two processors enter different flows into one slot at the same instant, one flow may end up with the
//! tag of the other. That flow does not match, and the next packet that this host sends enters it again.

mod entry;
#[cfg(test)]
mod filter_tests;
pub mod ports;
pub mod prints;
mod room;
mod tcp;
#[cfg(test)]
mod tests;

pub use entry::{Bucket, Key, Slot, State, Tag, mark};
pub use room::{Candidates, Entered, Newcomer, enter, place};
pub use tcp::{plain_segment, segment};

use self::{ports::FlowPort, prints::Prints};
pub use crate::word::{Byte, Half, Quarter, Word};
use crate::{barrier::Barrier, limits::FLOW_WAYS, protocol};

/// Storage of the table: an array map in the kernel, a vector on the host.
pub trait Store: Barrier {
    /// Returns a bucket.
    fn bucket(&self, bucket: u32) -> Option<&Bucket>;
    /// Returns the number of buckets, which is a power of two, minus one.
    fn mask(&self) -> u32;
    /// Returns the key of the hash.
    fn secret(&self) -> u64;
    /// Returns how long an entry in this state lives, in ticks.
    fn age(&self, state: State) -> u32;
    /// Returns the time in ticks.
    fn now(&self) -> u32;
    /// Returns the words in which [`enter`] records the entries that may make room. In the kernel they are in
    /// a map, because the stack is small. `None` leads to [`Entered::Full`].
    fn candidates(&self) -> Option<&Candidates>;
    /// Returns the times of a local port, or `None` if the table has none: then every key is searched for.
    fn port(&self, port: u16) -> Option<&FlowPort>;
    /// Returns the prints of a bucket, or `None` if the table has none: then every bucket is searched.
    fn prints(&self, bucket: u32) -> Option<&Prints>;
    /// Calls [`locate`]. In the programs, a separate function that the verifier checks once.
    #[inline(always)]
    fn locate(&self, key: Key) -> u32 {
        locate(self, &key)
    }
    /// Calls [`place`]. In the programs, a separate function that the verifier checks once.
    #[inline(always)]
    fn place(&self, key: Key, what: u32, row: u64) -> Entered {
        place(self, &key, what, row)
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
    fn prints(&self, bucket: u32) -> Option<&Prints> {
        (**self).prints(bucket)
    }

    #[inline(always)]
    fn locate(&self, key: Key) -> u32 {
        (**self).locate(key)
    }

    #[inline(always)]
    fn place(&self, key: Key, what: u32, row: u64) -> Entered {
        (**self).place(key, what, row)
    }
}

/// Epoch of a flow from before the first policy: the flow is never judged again.
pub const GRANDFATHERED: u32 = 0;

/// Epoch of a flow that no generation has judged: the flow is judged again with every packet.
pub const UNJUDGED: u32 = u32::MAX;

/// Returns the generation after this one. The result is neither [`GRANDFATHERED`] nor [`UNJUDGED`].
#[must_use]
pub const fn next_generation(generation: u32) -> u32 {
    if generation >= UNJUDGED - 1 { GRANDFATHERED + 1 } else { generation + 1 }
}

/// A live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The slot number, counted over all buckets.
    pub slot: u32,
    /// The tag when the entry was found.
    pub tag: Tag,
    /// The row that allowed the flow.
    pub row: u16,
    /// The generation that judged the flow, or [`GRANDFATHERED`].
    pub epoch: u32,
}

impl Found {
    /// The entry that stands for "not found".
    pub(crate) const NOWHERE: Self = Self { slot: NOWHERE, tag: Tag(0), row: u16::MAX, epoch: 0 };
}

/// Returns the second bucket of a hash.
#[inline(always)]
const fn other_bucket(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ (hash as u32).rotate_left(11)
}

/// The slot number that means "not found".
pub const NOWHERE: u32 = u32::MAX;

/// Returns the tag and the slot with this slot number.
#[inline(always)]
fn at<S: Store + ?Sized>(store: &S, slot: u32) -> Option<(&Word, &Slot)> {
    let bucket = store.bucket(slot / FLOW_WAYS as u32)?;
    // Hidden: the compiler may know the way and omit the mask, which the verifier must see.
    let way = hide(slot.into()) as usize % FLOW_WAYS;
    Some((&bucket.tags[way], &bucket.slots[way]))
}

/// Returns the time of the local port of a key, or `None` if the table has no time for the key.
#[inline(always)]
fn port_time<'a, S: Store + ?Sized>(store: &'a S, key: &Key) -> Option<&'a Half> {
    if !ports::keeps(key.protocol()) {
        return None;
    }
    Some(store.port(key.local_port())?.time(key.protocol()))
}

/// Returns true if the table may hold a flow with this key.
#[inline(always)]
fn may_hold<S: Store + ?Sized>(store: &S, key: &Key, now: u32) -> bool {
    match port_time(store, key) {
        Some(time) => ports::may_have_flow(time.load(), port_age(store, key.protocol()), now),
        None => true,
    }
}

/// Returns the ticks after which no flow of a transport is left at a port: at least the age of each state. A
/// sum instead of a maximum, which would cost one branch per state.
#[inline(always)]
fn port_age<S: Store + ?Sized>(store: &S, protocol: u8) -> u64 {
    let age = |state| u64::from(store.age(state));
    if protocol == protocol::UDP {
        age(State::Udp) + age(State::Unanswered)
    } else {
        age(State::Opening) + age(State::Established) + age(State::Closed)
    }
}

/// Looks up a live flow.
#[inline(always)]
pub fn find<S: Store>(store: &S, key: Key) -> Option<Found> {
    let slot = store.locate(key);
    if slot == NOWHERE {
        return None;
    }
    let (tag, entry) = at(store, slot)?;
    Some(Found { slot, tag: Tag(tag.load()), row: entry.row.load(), epoch: entry.epoch.load() })
}

/// Returns the number of the slot of a live flow, or [`NOWHERE`].
#[inline(always)]
pub fn locate<S: Store + ?Sized>(store: &S, key: &Key) -> u32 {
    match search(store, key) {
        Some(found) => found.slot,
        None => NOWHERE,
    }
}

#[inline(always)]
fn search<S: Store + ?Sized>(store: &S, key: &Key) -> Option<Found> {
    let now = store.now();
    if !may_hold(store, key, now) {
        return None;
    }
    let hash = key.hash(store.secret());
    let mut number = hash as u32 & store.mask();
    let mut choice = 0;
    while choice < 2 {
        let bucket = store.bucket(number)?;
        let hits = store.barrier(prints::hits(store, number, hash));
        let mut way = if hits == 0 { FLOW_WAYS } else { 0 };
        while way < FLOW_WAYS {
            let tag = Tag(bucket.tags[way].load());
            let entry = &bucket.slots[way];
            if tag.is_of(hash) && same(&entry.key, key) {
                let state = tag.state();
                if !matches!(state, State::Free) && tag.idle(now) <= store.age(state) {
                    let slot = number * FLOW_WAYS as u32 + way as u32;
                    // Looked up a second time: with a pointer kept across the search, the verifier explores
                    // the search more than once.
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

/// The answer of one look at the first entry of a key (`glance`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// The live flow.
    Found(Found),
    /// The table has no such flow.
    Absent,
    /// Only [`find`] can tell: an entry with the same tag has ended, or belongs to another flow.
    Unsure,
}

/// Looks up a live flow for the fast path: compares the key of one entry. Always inlined.
#[inline(always)]
pub(crate) fn glance<S: Store>(store: &S, key: &Key) -> Glance {
    let now = store.now();
    let Some(time) = port_time(store, key) else { return Glance::Unsure };
    if !ports::may_have_flow(time.load(), port_age(store, key.protocol()), now) {
        return Glance::Absent;
    }
    let hash = key.hash(store.secret());
    let mut number = hash as u32 & store.mask();
    let mut choice = 0;
    while choice < 2 {
        let Some(bucket) = store.bucket(number) else { return Glance::Unsure };
        // The barriers make the verifier explore the comparison once, instead of once for each way.
        let hits = store.barrier(prints::hits(store, number, hash));
        let way = if hits == 0 { FLOW_WAYS as u64 } else { first_of(&bucket.tags, hash) };
        let way = store.barrier(way) as usize;
        if way < FLOW_WAYS {
            // Masked at each use: kernels up to Linux 6.1 at least forget the bounds of a number on the stack.
            let masked = || hide(way as u64) as usize & (FLOW_WAYS - 1);
            let tag = Tag(bucket.tags[masked()].load());
            let entry = &bucket.slots[masked()];
            let state = tag.state();
            let live = !matches!(state, State::Free) && tag.idle(now) <= store.age(state);
            if !live || !same(&entry.key, key) {
                return Glance::Unsure;
            }
            ports::note(time, now);
            let slot = number * FLOW_WAYS as u32 + way as u32;
            return Glance::Found(Found { slot, tag, row: entry.row.load(), epoch: entry.epoch.load() });
        }
        number = other_bucket(hash) & store.mask();
        choice += 1;
    }
    Glance::Absent
}

/// Returns the first way whose tag may belong to a hash, or [`FLOW_WAYS`] if there is none. Written out: the
/// verifier would explore a loop once for each path through the loop.
#[inline(always)]
fn first_of(tags: &[Word; FLOW_WAYS], hash: u64) -> u64 {
    let is_of = |way: usize| Tag(tags[way].load()).is_of(hash);
    if is_of(0) {
        0
    } else if is_of(1) {
        1
    } else if is_of(2) {
        2
    } else if is_of(3) {
        3
    } else if is_of(4) {
        4
    } else if is_of(5) {
        5
    } else if is_of(6) {
        6
    } else if is_of(7) {
        7
    } else {
        FLOW_WAYS as u64
    }
}

/// Hides `value` from the optimizer, which would otherwise turn a comparison into one branch per term. The
/// verifier explores each branch separately.
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

/// Returns all ones if `one` is less than `other`, else 0, without a branch. Both have at most 63 bits.
#[inline(always)]
pub(crate) fn less(one: u64, other: u64) -> u64 {
    // Hidden after the shift, too: from a sign the compiler would make a branch.
    hide(hide(one.wrapping_sub(other)) >> 63).wrapping_neg()
}

#[inline(always)]
fn same(stored: &[Word; 5], key: &Key) -> bool {
    // Written out, so that the compiler keeps the key in registers.
    let difference = stored[0].load() ^ key.0[0]
        | stored[1].load() ^ key.0[1]
        | stored[2].load() ^ key.0[2]
        | stored[3].load() ^ key.0[3]
        | stored[4].load() ^ key.0[4];
    hide(difference) == 0
}

/// Ticks by which a time may lag behind before it is renewed: about a second.
const STALE: u32 = 4;

/// Renews the time of a flow, and sets the state. Stores only on a change: otherwise the cache line stays
/// shared between processors.
#[inline(always)]
pub fn touch<S: Store>(store: &S, found: &Found, state: State) {
    let now = store.now();
    if (found.tag.state() as u8 != state as u8 || found.tag.idle(now) >= STALE)
        && let Some((tag, _)) = at(store, found.slot)
    {
        tag.store(Tag::new(found.tag.0, state, now).0);
    }
}

/// Records that the peer of a UDP flow has answered, which does not keep the flow alive (RFC 6092 REC-16).
#[inline(always)]
pub fn answered<S: Store>(store: &S, found: &Found) {
    if matches!(found.tag.state(), State::Unanswered)
        && let Some((tag, _)) = at(store, found.slot)
    {
        tag.store(found.tag.moved(State::Udp).0);
    }
}

/// Records that a generation has judged a flow, and the row that allowed it.
#[inline(always)]
pub fn set_epoch<S: Store>(store: &S, found: &Found, row: u16, epoch: u32) {
    if let Some((_, slot)) = at(store, found.slot) {
        slot.row.store(row);
        slot.epoch.store(epoch);
    }
}
