//! The table of drops: the denied peers, with port and reason.
//!
//! Each CPU has a separate table, so that plain additions are exact and no cache line is shared. A table has
//! two areas. In the area of *known systems*, the key holds the peer's whole address. In the area of
//! *strangers*, the key holds the peer's prefix (/24, /48), and the entry keeps the address that came first.
//! No scan by strangers takes room from a known system.
//!
//! An area is an array of buckets. A bucket holds eight *tags* in one cache line, and eight *slots*. A tag
//! has 32 bits of the key's hash and the time of the last packet. An entry is replaced if its bucket is full
//! and no packet has come for [`IDLE`] ticks. The packets of a replaced entry, and packets that found no
//! room, are added to the *rest*, by area, direction, mode and reason. So at any time the entries and the
//! rest add up to all recorded packets.

use crate::{
    Direction,
    decide::Decision,
    flow::{Word, hide, less},
    image::Family,
    packet::{Packet, be16, be32, be64},
    parse::{Datagram, Kind, ethertype},
    protocol,
    reason::{FIRST_DROP, Reason},
};

/// Words of an element of the map. Its 16 KiB fit the kernel's unit of per-CPU allocation.
pub const ELEMENT: usize = 2_048;
/// Elements of one area.
pub const AREA: usize = 4;
/// The element that holds the rest.
pub const REST: usize = 2 * AREA;
/// Elements of the map: strangers, known systems, then the rest.
pub const ELEMENTS: usize = REST + 1;
/// Slots of a bucket.
pub const WAYS: usize = 8;
/// Words of a slot.
pub const SLOT: usize = 7;
/// Words of a bucket: the tags, then the slots.
pub const BUCKET: usize = WAYS + WAYS * SLOT;
/// Buckets of an element.
pub const BUCKETS: usize = ELEMENT / BUCKET;
/// Slots of one area, on each CPU.
pub const SLOTS: usize = AREA * BUCKETS * WAYS;
/// Ticks without a packet after which an entry may make room: about 15 seconds. The daemon reads the table
/// every second.
pub const IDLE: u32 = 60;

/// Positions of the fields in a slot, in words.
pub mod field {
    /// The first of the two words of the peer's address.
    pub const PEER: usize = 0;
    /// [`super::DropKey::what`]; 0 if the slot was never taken.
    pub const WHAT: usize = 2;
    /// Packets.
    pub const PACKETS: usize = 3;
    /// Bytes, link header included.
    pub const BYTES: usize = 4;
    /// The tick of the first packet in the low half; the number of times that the slot was taken in the high
    /// half.
    pub const FIRST: usize = 5;
    /// The port at the other end of the first packet. In the first slot of a bucket, the upper half holds the
    /// tick at which the bucket may have room again.
    pub const OTHER_PORT: usize = 6;
}

/// The form of [`DropKey::peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PeerKind {
    /// The frame has no peer.
    None = 0,
    /// An IPv4 address in the upper half of the first word.
    V4 = 1,
    /// An IPv6 address.
    V6 = 2,
    /// A MAC address in the lower 48 bits of the first word: the frame is not IP.
    Mac = 3,
}

/// The key under which a drop is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DropKey {
    /// The peer, in the form of its [`PeerKind`].
    pub peer: [u64; 2],
    /// From bit 0: port (16 bits), protocol (8), reason (8), VLAN (12), [`PeerKind`] (2), direction (1),
    /// audited (1), known (1), service at the sender (1).
    pub what: u64,
}

impl DropKey {
    const PROTOCOL: u32 = 16;
    const REASON: u32 = 24;
    const VLAN: u32 = 32;
    const KIND: u32 = 44;
    /// Position of the first of the three marks (direction, audited, known) that name a part of the rest.
    const PART: u32 = 46;
    const AUDITED: u32 = 47;
    const KNOWN: u32 = 48;
    const SENDER: u32 = 49;

    /// Returns the key of a decision, `known` (1 if the peer is a known system) and an end of the packet.
    #[must_use]
    #[inline(always)]
    pub const fn new(hook: Direction, decision: Decision, known: u64, end: End) -> Self {
        let what = end.port as u64
            | (end.protocol as u64) << Self::PROTOCOL
            | (decision.reason_number() as u64) << Self::REASON
            | (end.vlan as u64 & 0xfff) << Self::VLAN
            | (end.kind as u64) << Self::KIND
            | (hook as u64) << Self::PART
            | decision.audited_bit() << Self::AUDITED
            | (known & 1) << Self::KNOWN
            | (end.sender as u64) << Self::SENDER;
        Self { peer: end.peer, what }
    }

    /// Returns the service port; for ICMP the type in the upper byte and the code in the lower; the EtherType
    /// of a frame that is not IP; 0 for anything else.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.what as u16
    }

    /// Returns the upper protocol, or 0 if the frame is not IP or its protocol could not be read.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        (self.what >> Self::PROTOCOL) as u8
    }

    /// Returns the number of the reason.
    #[must_use]
    pub const fn reason_number(self) -> u8 {
        (self.what >> Self::REASON) as u8
    }

    /// Returns the VLAN id if the reason is about VLANs, else 0.
    #[must_use]
    pub const fn vlan(self) -> u16 {
        (self.what >> Self::VLAN) as u16 & 0xfff
    }

    /// Returns the form of the peer.
    #[must_use]
    pub const fn kind(self) -> PeerKind {
        match self.what >> Self::KIND & 3 {
            1 => PeerKind::V4,
            2 => PeerKind::V6,
            3 => PeerKind::Mac,
            _ => PeerKind::None,
        }
    }

    /// Returns the direction.
    #[must_use]
    pub const fn direction(self) -> Direction {
        if self.what >> Self::PART & 1 == 0 { Direction::Inbound } else { Direction::Outbound }
    }

    /// Returns true if a mode let the packets pass.
    #[must_use]
    pub const fn audited(self) -> bool {
        self.what >> Self::AUDITED & 1 != 0
    }

    /// Returns true if the peer is a known system.
    #[must_use]
    pub const fn known(self) -> bool {
        self.what >> Self::KNOWN & 1 != 0
    }

    /// Returns true if the port is that of the sender of the packets, which seem to be answers.
    #[must_use]
    pub const fn is_sender_port(self) -> bool {
        self.what >> Self::SENDER & 1 != 0
    }

    /// Returns masks of the peer's two words. The masks cover the bits that tell entries apart: all bits for
    /// a known system and for a MAC address, /24 and /48 for a stranger.
    #[must_use]
    #[inline(always)]
    pub const fn mask(self) -> [u64; 2] {
        if self.known() {
            return [u64::MAX; 2];
        }
        match self.kind() {
            PeerKind::V4 => [0xffff_ff00 << 32, 0],
            PeerKind::V6 => [0xffff_ffff_ffff_0000, 0],
            PeerKind::None | PeerKind::Mac => [u64::MAX, 0],
        }
    }

    /// Returns a 64-bit hash of the bits that tell entries apart, keyed so that an outsider cannot aim at a
    /// bucket.
    #[inline(always)]
    const fn hash(&self, mask: [u64; 2], secret: u64) -> u64 {
        const A: u64 = 0x9e37_79b9_7f4a_7c15;
        const B: u64 = 0xff51_afd7_ed55_8ccd;
        let mut x = (self.peer[0] & mask[0] ^ secret).wrapping_mul(A);
        x ^= x >> 32;
        x = (x ^ self.peer[1] & mask[1] ^ self.what.rotate_left(17)).wrapping_mul(B);
        x ^= x >> 29;
        x = x.wrapping_mul(A);
        x ^ x >> 32
    }
}

/// The end of a packet under which its drop is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// As [`DropKey::peer`].
    pub peer: [u64; 2],
    /// The form of the peer.
    pub kind: PeerKind,
    /// As [`DropKey::port`].
    pub port: u16,
    /// The port at the other end.
    pub other_port: u16,
    /// As [`DropKey::is_sender_port`].
    pub sender: bool,
    /// As [`DropKey::protocol`].
    pub protocol: u8,
    /// As [`DropKey::vlan`].
    pub vlan: u16,
}

impl End {
    /// The end of a packet without readable fields.
    pub const NOBODY: Self = Self {
        peer: [0; 2],
        kind: PeerKind::None,
        port: 0,
        other_port: 0,
        sender: false,
        protocol: 0,
        vlan: 0,
    };

    /// Returns the end with the ports as recorded: the service's port, then the other port. The service is at
    /// the destination. For a packet that may be an answer, the service has the lower port: clients use high
    /// ports (RFC 6056).
    #[inline(always)]
    const fn between(mut self, reason: u8, source: u16, destination: u16) -> Self {
        let may_answer = reason == Reason::NoFlow as u8
            || reason == Reason::NoFlowKnown as u8
            || reason == Reason::UnsolicitedReply as u8
            || reason == Reason::Untracked as u8 && self.protocol == protocol::UDP;
        self.sender = may_answer && source < destination;
        (self.port, self.other_port) =
            if self.sender { (source, destination) } else { (destination, source) };
        self
    }

    /// Returns the end of a datagram that was parsed.
    #[must_use]
    #[inline(always)]
    pub const fn of_datagram(hook: Direction, datagram: &Datagram, reason: u8) -> Self {
        let peer = match hook {
            Direction::Inbound => &datagram.source,
            Direction::Outbound => &datagram.destination,
        };
        let kind = match datagram.family {
            Family::V4 => PeerKind::V4,
            Family::V6 => PeerKind::V6,
        };
        let end = Self {
            peer: [(peer[0] as u64) << 32 | peer[1] as u64, (peer[2] as u64) << 32 | peer[3] as u64],
            kind,
            protocol: datagram.protocol,
            ..Self::NOBODY
        };
        match datagram.kind {
            Kind::Ports => end.between(reason, datagram.source_port, datagram.destination_port),
            Kind::Icmp => Self { port: (datagram.icmp_type as u16) << 8 | datagram.icmp_code as u16, ..end },
            Kind::Other | Kind::Follower => end,
        }
    }

    /// Returns the end of a plain packet: TCP or UDP over IPv4 or IPv6 without VLAN tags, options and
    /// fragments.
    #[must_use]
    #[inline(always)]
    pub fn of_plain<P: Packet + ?Sized>(hook: Direction, packet: &P, reason: u8) -> Self {
        // In both families, a plain packet has at least 54 bytes: see the fast path.
        let Some(header) = packet.window::<54>(0) else { return Self::NOBODY };
        if header[14] >> 4 == 4 {
            let peer = match hook {
                Direction::Inbound => be32::<26, 54>(header),
                Direction::Outbound => be32::<30, 54>(header),
            };
            let end = Self {
                peer: [u64::from(peer) << 32, 0],
                kind: PeerKind::V4,
                protocol: header[23],
                ..Self::NOBODY
            };
            return end.between(reason, be16::<34, 54>(header), be16::<36, 54>(header));
        }
        let Some(ports) = packet.window::<4>(54) else { return Self::NOBODY };
        let peer = match hook {
            Direction::Inbound => [be64::<22, 54>(header), be64::<30, 54>(header)],
            Direction::Outbound => [be64::<38, 54>(header), be64::<46, 54>(header)],
        };
        let end = Self { peer, kind: PeerKind::V6, protocol: header[20], ..Self::NOBODY };
        end.between(reason, be16::<0, 4>(ports), be16::<2, 4>(ports))
    }

    /// Returns the end of a frame that could not be parsed up to the ports, as far as the frame shows it: the
    /// address after at most one VLAN tag, else the MAC address. The fields of such a frame are unverified.
    #[must_use]
    #[inline(always)]
    pub fn of_frame<P: Packet + ?Sized>(hook: Direction, packet: &P, reason: u8) -> Self {
        let Some(link) = packet.window::<14>(0) else { return Self::NOBODY };
        let mut kind = be16::<12, 14>(link);
        let mut offset = 14;
        let mut vlan = 0;
        if (kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN)
            && let Some(tag) = packet.window::<4>(14)
        {
            vlan = be16::<0, 4>(tag) & 0xfff;
            kind = be16::<2, 4>(tag);
            offset = 18;
        }
        let about_vlans = reason == Reason::VlanUnknown as u8 || reason == Reason::VlanLimit as u8;
        let end = Self { vlan: if about_vlans { vlan } else { 0 }, ..Self::NOBODY };
        if kind == ethertype::IPV4
            && let Some(header) = packet.window::<20>(offset)
        {
            let peer = match hook {
                Direction::Inbound => be32::<12, 20>(header),
                Direction::Outbound => be32::<16, 20>(header),
            };
            return Self { peer: [u64::from(peer) << 32, 0], kind: PeerKind::V4, protocol: header[9], ..end };
        }
        if kind == ethertype::IPV6
            && let Some(header) = packet.window::<40>(offset)
        {
            let peer = match hook {
                Direction::Inbound => [be64::<8, 40>(header), be64::<16, 40>(header)],
                Direction::Outbound => [be64::<24, 40>(header), be64::<32, 40>(header)],
            };
            return Self { peer, kind: PeerKind::V6, protocol: header[6], ..end };
        }
        let mac = match hook {
            Direction::Inbound => u64::from(be16::<6, 14>(link)) << 32 | u64::from(be32::<8, 14>(link)),
            Direction::Outbound => u64::from(be16::<0, 14>(link)) << 32 | u64::from(be32::<2, 14>(link)),
        };
        Self { peer: [mac, 0], kind: PeerKind::Mac, port: kind, ..end }
    }
}

/// Returns true if a decision is recorded: a drop, a would-be drop that a mode let pass, or the opening of a
/// flow that no row lists.
#[must_use]
#[inline(always)]
pub const fn is_recorded(decision: Decision) -> bool {
    decision.reason_number() >= FIRST_DROP || decision.reason_number() == Reason::Untracked as u8
}

/// Storage of this CPU's table: a map in the kernel, a vector on the host.
pub trait DropStore {
    /// Returns an element, or `None` beyond the end.
    fn element(&self, index: u32) -> Option<&[Word; ELEMENT]>;

    /// Returns a bucket of an element, or `None` beyond the end.
    #[inline(always)]
    fn bucket<'a>(&self, words: &'a [Word; ELEMENT], number: usize) -> Option<&'a [Word; BUCKET]> {
        words.get(number * BUCKET..)?.first_chunk()
    }

    /// Returns the slot of a way, of which only the lowest bits count.
    #[inline(always)]
    fn slot<'a>(&self, words: &'a [Word; BUCKET], way: u64) -> Option<&'a [Word; SLOT]> {
        words.get(WAYS + (way as usize & (WAYS - 1)) * SLOT..)?.first_chunk()
    }

    /// Returns the same value, hidden from the verifier, so that the verifier explores the code after the
    /// next [`Self::join`] once, instead of once per path.
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        value
    }

    /// Marks a place where paths join. The verifier compares paths only at jumps.
    #[inline(always)]
    fn join(&self) {}
}

#[inline(always)]
fn add(word: &Word, more: u64) {
    word.store(word.load().wrapping_add(more));
}

/// Adds packets and bytes to the rest, under the marks and the reason of a key.
#[inline(always)]
fn add_to_rest<S: DropStore>(store: &S, what: u64, packets: u64, bytes: u64) {
    let Some(rest) = store.element(REST as u32) else { return };
    // Kernels up to Linux 6.1 at least know nothing of the OR of two registers: the mask is for their verifier.
    let at = hide(rest_at(what) as u64) as usize & (ELEMENT - 2);
    add(&rest[at], packets);
    add(&rest[at + 1], bytes);
}

/// Returns the index of the first of the two words of the rest for a key: packets, then bytes.
#[must_use]
#[inline(always)]
pub const fn rest_at(what: u64) -> usize {
    let part = (what >> DropKey::PART & 7) as usize;
    let reason = (what >> DropKey::REASON & 0x7f) as usize;
    (part << 7 | reason) << 1
}

/// Returns the key of a part of the rest, without peer and port.
#[must_use]
pub const fn rest_key(at: usize) -> DropKey {
    let part = (at as u64 >> 8 & 7) << DropKey::PART;
    DropKey { peer: [0; 2], what: part | (at as u64 >> 1 & 0x7f) << DropKey::REASON }
}

/// Returns one more than the first way whose tag has the print, or 0 if there is none. Written out: the
/// verifier would explore a loop once for each path through the loop.
#[inline(always)]
fn way_of(tags: &[Word; BUCKET], print: u64) -> u64 {
    let is = |way: usize| tags[way].load() >> 32 == print;
    if is(0) {
        1
    } else if is(1) {
        2
    } else if is(2) {
        3
    } else if is(3) {
        4
    } else if is(4) {
        5
    } else if is(5) {
        6
    } else if is(6) {
        7
    } else if is(7) {
        8
    } else {
        0
    }
}

/// Returns 1 if the value is 0, else 0, without a branch. The value has at most 63 bits.
#[inline(always)]
fn is_zero(value: u64) -> u64 {
    hide(hide(value).wrapping_sub(1) >> 63)
}

/// Returns the way that has been idle the longest (in the lowest three bits) and the idle time (above them).
/// A free way counts as the oldest. No branches: the verifier would explore the code after each branch twice.
#[inline(always)]
fn oldest_way(tags: &[Word; BUCKET], now: u32) -> u64 {
    let candidate = |way: usize| {
        let tag = tags[way].load();
        let idle = u64::from(now.wrapping_sub(tag as u32)) | is_zero(tag >> 32) << 32;
        idle << 3 | way as u64
    };
    let older = |oldest: u64, way: usize| {
        let candidate = candidate(way);
        oldest ^ (oldest ^ candidate) & less(oldest, candidate)
    };
    let oldest = older(older(older(candidate(0), 1), 2), 3);
    older(older(older(older(oldest, 4), 5), 6), 7)
}

/// Returns true if no entry of a bucket can have been idle for long enough: the tick `until` of the next
/// attempt is not yet due. 0 stands for no tick.
#[inline(always)]
const fn is_refused(until: u32, now: u32) -> bool {
    until != 0 && until.wrapping_sub(now).wrapping_sub(1) <= IDLE
}

/// Records a packet: in its entry, in a new entry, or in the rest.
#[inline(always)]
pub fn record<S: DropStore>(store: &S, key: DropKey, other_port: u16, bytes: u32, now: u32, secret: u64) {
    let [high, low] = key.mask();
    let mask = [store.barrier(high), store.barrier(low)];
    let [high, low] = key.peer;
    let key = DropKey { peer: [store.barrier(high), store.barrier(low)], what: store.barrier(key.what) };
    store.join();
    let hash = key.hash(mask, secret);
    let area = (key.what >> DropKey::KNOWN & 1) as u32 * AREA as u32;
    let Some(words) = store.element(area + (hash as u32 & (AREA as u32 - 1))) else { return };
    let Some(words) = store.bucket(words, hash as usize >> 2 & (BUCKETS - 1)) else { return };
    // Never 0: a tag of 0 means a free slot.
    let print = hash >> 32 | 1;
    let way = store.barrier(way_of(words, print));
    store.join();
    if way != 0 {
        let way = way.wrapping_sub(1);
        let Some(slot) = store.slot(words, way) else { return };
        let difference = (slot[field::PEER].load() ^ key.peer[0]) & mask[0]
            | (slot[field::PEER + 1].load() ^ key.peer[1]) & mask[1]
            | slot[field::WHAT].load() ^ key.what;
        if hide(difference) == 0 {
            add(&slot[field::PACKETS], 1);
            add(&slot[field::BYTES], bytes.into());
            words[hide(way) as usize & (WAYS - 1)].store(print << 32 | u64::from(now));
        } else {
            // Another key with the same 31 bits of the hash: an entry for this key would not be found.
            add_to_rest(store, key.what, 1, bytes.into());
        }
        return;
    }
    // A flood of strangers looks for room at every packet: the bucket keeps the tick of the next attempt.
    let refusal = &words[WAYS + field::OTHER_PORT];
    if is_refused((refusal.load() >> 32) as u32, now) {
        add_to_rest(store, key.what, 1, bytes.into());
        return;
    }
    let oldest = oldest_way(words, now);
    if oldest >> 3 <= u64::from(IDLE) {
        let until = now.wrapping_add(IDLE + 1).wrapping_sub((oldest >> 3) as u32);
        refusal.store(refusal.load() & 0xffff | u64::from(until) << 32);
        add_to_rest(store, key.what, 1, bytes.into());
        return;
    }
    let Some(slot) = store.slot(words, oldest) else { return };
    if oldest >> 35 == 0 {
        let what = slot[field::WHAT].load();
        let (packets, bytes) = (slot[field::PACKETS].load(), slot[field::BYTES].load());
        add_to_rest(store, what, packets, bytes);
    }
    slot[field::PEER].store(key.peer[0]);
    slot[field::PEER + 1].store(key.peer[1]);
    slot[field::WHAT].store(key.what);
    slot[field::PACKETS].store(1);
    slot[field::BYTES].store(bytes.into());
    let taken = (slot[field::FIRST].load() >> 32).wrapping_add(1);
    slot[field::FIRST].store(taken << 32 | u64::from(now));
    slot[field::OTHER_PORT].store(other_port.into());
    words[hide(oldest) as usize & (WAYS - 1)].store(print << 32 | u64::from(now));
}

const _: () = {
    assert!(BUCKET * BUCKETS == ELEMENT && BUCKETS.is_power_of_two());
    assert!(AREA == 4, "two bits of the hash choose the element");
    assert!(rest_at(u64::MAX) + 2 == ELEMENT, "the rest fills its element");
};

#[cfg(test)]
mod tests;
