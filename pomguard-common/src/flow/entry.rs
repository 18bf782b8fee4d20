//! What the table holds: a key, a state with its time, and how both lie in a bucket.

use crate::{
    limits::FLOW_WAYS,
    net::{Address, Family},
    word::{Byte, Half, Quarter, Word},
};

/// The state of a flow. Whether a peer's RST has made a flow suspect is told alongside it, see [`Tag::suspect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// A slot that holds nothing.
    Free = 0,
    /// TCP: this host's SYN is out, nothing came back.
    Opening = 1,
    /// TCP: the other side has answered. At most one side has sent its FIN.
    Established = 2,
    /// TCP: both sides have sent their FIN, or this host has sent a RST.
    Closed = 3,
    /// UDP: the other side has answered.
    Udp = 4,
    /// ICMP echo.
    Icmp = 5,
    /// A first fragment that was let through; its followers may come.
    Fragment = 6,
    /// UDP: nothing came back yet.
    Unanswered = 7,
}

impl State {
    /// Every state but [`State::Free`].
    pub const ALL: [Self; 7] = [
        Self::Opening,
        Self::Established,
        Self::Closed,
        Self::Udp,
        Self::Icmp,
        Self::Fragment,
        Self::Unanswered,
    ];

    /// How long an entry in this state is remembered, in seconds.
    #[must_use]
    pub const fn age_seconds(self) -> u32 {
        match self {
            Self::Free => 0,
            // Linux gives up connecting after 127 s of SYN retransmits, each of which refreshes.
            Self::Opening => 120,
            // RFC 5382 REQ-5 and RFC 6092 REC-35: no less than 2 h 4 min.
            Self::Established => 7_440,
            // RFC 9293 section 3.4.2: twice the longest life of a segment.
            Self::Closed => 240,
            // RFC 4787 REQ-5 recommends five minutes.
            Self::Udp => 300,
            // RFC 5508 REQ-2: no less than 60 s.
            // RFC 8200 section 4.5: reassembly gives up after as long.
            Self::Icmp | Self::Fragment => 60,
            // As nf_conntrack; RFC 4787 asks for two minutes, which a table that anybody on the host fills
            // cannot give.
            Self::Unanswered => 30,
        }
    }

    /// The state with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number & 7 {
            1 => Self::Opening,
            2 => Self::Established,
            3 => Self::Closed,
            4 => Self::Udp,
            5 => Self::Icmp,
            6 => Self::Fragment,
            7 => Self::Unanswered,
            _ => Self::Free,
        }
    }
}

/// What was seen of the ends of a flow, a byte per direction: each is written in its own direction alone, so
/// that two processors never undo each other's marks.
pub mod mark {
    /// Ours: this host's FIN left.
    pub const FIN: u8 = 1;
    /// Ours: this host's RST left.
    pub const RST: u8 = 2;
    /// Ours: a socket of this host sent what the flow was entered with, and the socket table tells when it
    /// is gone. Of what is forwarded or translated, the socket table knows nothing, or something else.
    pub const SOCKET: u8 = 4;
    /// Theirs: the peer's FIN was seen.
    pub const PEER_FIN: u8 = 1;
}

/// The two ends of a flow as seen from this host: 40 bytes without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Key(pub [u64; 5]);

impl Key {
    /// The key of a flow between a local and a peer end.
    #[must_use]
    #[inline(always)]
    pub const fn new(
        family: Family,
        protocol: u8,
        local: &Address,
        local_port: u16,
        peer: &Address,
        peer_port: u16,
    ) -> Self {
        let local = [(local[0] as u64) << 32 | local[1] as u64, (local[2] as u64) << 32 | local[3] as u64];
        let peer = [(peer[0] as u64) << 32 | peer[1] as u64, (peer[2] as u64) << 32 | peer[3] as u64];
        Self::of_words(family, protocol, local, local_port, peer, peer_port)
    }

    /// The same, of addresses as two words each, high and low.
    #[must_use]
    #[inline(always)]
    pub const fn of_words(
        family: Family,
        protocol: u8,
        local: [u64; 2],
        local_port: u16,
        peer: [u64; 2],
        peer_port: u16,
    ) -> Self {
        let ports = (local_port as u64) << 48 | (peer_port as u64) << 32;
        Self([local[0], local[1], peer[0], peer[1], ports | (protocol as u64) << 8 | family as u64])
    }

    /// The protocol.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        (self.0[4] >> 8) as u8
    }

    /// The port of this host's end.
    #[must_use]
    #[inline(always)]
    pub const fn local_port(&self) -> u16 {
        (self.0[4] >> 48) as u16
    }

    /// The key of a fragmented datagram: who sends to whom under which identification.
    #[must_use]
    #[inline(always)]
    pub const fn fragment(
        family: Family,
        protocol: u8,
        source: &Address,
        destination: &Address,
        id: u32,
        outbound: bool,
    ) -> Self {
        let protocol = match family {
            Family::V4 => protocol,
            // RFC 8200 section 4.5: the next header of later fragments does not count.
            Family::V6 => 0,
        };
        Self([
            (source[0] as u64) << 32 | source[1] as u64,
            (source[2] as u64) << 32 | source[3] as u64,
            (destination[0] as u64) << 32 | destination[1] as u64,
            (destination[2] as u64) << 32 | destination[3] as u64,
            (id as u64) << 32 | (outbound as u64) << 16 | (protocol as u64) << 8 | family as u64,
        ])
    }

    /// The key of a self-test (1), which no flow and no fragmented datagram has; the same key for 0.
    #[must_use]
    #[inline(always)]
    pub const fn of_self_test(self, self_test: u64) -> Self {
        let [own_high, own_low, peer_high, peer_low, rest] = self.0;
        Self([own_high, own_low, peer_high, peer_low, rest ^ self_test << 31])
    }

    /// A 64-bit hash, keyed so that nobody outside can aim at a bucket.
    #[must_use]
    #[inline(always)]
    pub const fn hash(&self, secret: u64) -> u64 {
        const A: u64 = 0x9e37_79b9_7f4a_7c15;
        const B: u64 = 0xff51_afd7_ed55_8ccd;
        let mut x = (self.0[4] ^ secret).wrapping_mul(A);
        x ^= x >> 32;
        x = (x ^ self.0[2]).wrapping_mul(B);
        x ^= x >> 29;
        x = (x ^ self.0[0]).wrapping_mul(A);
        x ^= x >> 32;
        if self.0[1] | self.0[3] != 0 {
            x = (x ^ self.0[3]).wrapping_mul(B);
            x ^= x >> 29;
            x = (x ^ self.0[1]).wrapping_mul(A);
            x ^= x >> 32;
        }
        x = (x ^ secret).wrapping_mul(B);
        x ^ (x >> 32)
    }
}

/// One slot's key, as it stands in the map, with the row that allowed the flow.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot {
    /// The words of the [`Key`].
    pub key: [Word; 5],
    /// Row slot.
    pub row: Quarter,
    /// [`mark`]s of what this host sent. Only egress writes them.
    pub ours: Byte,
    /// [`mark`]s of what the peer sent. Only ingress writes them.
    pub theirs: Byte,
    /// The generation that judged the flow.
    pub epoch: Half,
}

/// One bucket: seven cache lines.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    /// What is known of the flows in the slots.
    pub tags: [Word; FLOW_WAYS],
    /// Their keys.
    pub slots: [Slot; FLOW_WAYS],
}

const _: () = assert!(size_of::<Slot>() == 48 && size_of::<Bucket>() == 7 * 64);

/// A tag: bits 63..35 of the hash, the upper 3 bits of the time, the suspect bit, 3 bits of state, the lower
/// 28 bits of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// Bits of the time in ticks. At four ticks a second it wraps after 17 years: an entry that nobody has
    /// cleared would seem to be fresh then.
    pub const TIME: u32 = 0x7fff_ffff;
    /// A peer's RST was the last that was heard.
    pub const SUSPECT: u64 = 1 << 31;
    /// Lowest bit of the hash.
    const HASH_SHIFT: u32 = 35;
    /// Bits of the time that lie in the lower half.
    const LOW_BITS: u32 = 28;

    /// Puts a tag together.
    #[must_use]
    #[inline(always)]
    pub const fn new(hash: u64, state: State, now: u32) -> Self {
        let high = ((now & Self::TIME) >> Self::LOW_BITS) as u64;
        let low = (now & ((1 << Self::LOW_BITS) - 1)) as u64;
        Self(
            hash >> Self::HASH_SHIFT << Self::HASH_SHIFT
                | high << 32
                | (state as u64) << Self::LOW_BITS
                | low,
        )
    }

    /// The same entry in another state, with the same time, and not suspect.
    #[must_use]
    #[inline(always)]
    pub const fn moved(self, state: State) -> Self {
        Self::new(self.0, state, self.time())
    }

    /// True if the tag may be that of a key with this hash.
    #[must_use]
    #[inline(always)]
    pub const fn is_of(self, hash: u64) -> bool {
        (self.0 ^ hash) >> Self::HASH_SHIFT == 0
    }

    /// The state.
    #[must_use]
    #[inline(always)]
    pub const fn state(self) -> State {
        State::from_number(self.0 as u32 >> Self::LOW_BITS)
    }

    /// True if a peer's RST was the last that was heard of the flow.
    #[must_use]
    #[inline(always)]
    pub const fn suspect(self) -> bool {
        self.0 & Self::SUSPECT != 0
    }

    #[inline(always)]
    const fn time(self) -> u32 {
        self.0 as u32 & ((1 << Self::LOW_BITS) - 1) | ((self.0 >> 32) as u32 & 7) << Self::LOW_BITS
    }

    /// Ticks since it was last seen.
    #[must_use]
    #[inline(always)]
    pub const fn idle(self, now: u32) -> u32 {
        now.wrapping_sub(self.time()) & Self::TIME
    }
}
