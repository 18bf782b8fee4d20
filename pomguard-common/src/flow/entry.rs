//! The contents of the flow table: the key, the state with the time, and the layout of both in a bucket.

use crate::{
    limits::FLOW_WAYS,
    net::{Address, Family},
    ticks,
    word::{Byte, Half, Quarter, Word},
};

/// The state of a flow. A separate bit says that a peer's RST has made the flow suspect, see
/// [`Tag::suspect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The slot is free.
    Free = 0,
    /// TCP: this host has sent a SYN, and nothing came back.
    Opening = 1,
    /// TCP: the other side has answered. At most one side has sent its FIN.
    Established = 2,
    /// TCP: both sides have sent their FIN, or this host has sent a RST.
    Closed = 3,
    /// UDP: the other side has answered.
    Udp = 4,
    /// ICMP echo.
    Icmp = 5,
    /// A first fragment passed; the later fragments may pass.
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

    /// Returns how long an entry in this state is remembered by default, in seconds. `[flows]` in the settings
    /// changes the ages.
    #[must_use]
    pub const fn age_seconds(self) -> u32 {
        match self {
            Self::Free => 0,
            // Linux gives up after 127 s of SYN retransmits, each of which renews the entry.
            Self::Opening => 120,
            // As long as nf_conntrack: pools of idle connections go on over a weekend. RFC 5382 REQ-5 and RFC
            // 6092 REC-35 ask for no less than 2 h 4 min.
            Self::Established => 432_000,
            // RFC 9293 section 3.4.2: twice the longest life of a segment.
            Self::Closed => 240,
            // RFC 4787 REQ-5 recommends five minutes.
            Self::Udp => 300,
            // RFC 5508 REQ-2: no less than 60 s.
            // RFC 8200 section 4.5: reassembly also gives up after 60 s.
            Self::Icmp | Self::Fragment => 60,
            // The same as nf_conntrack. RFC 4787 asks for two minutes, but any local user can fill the table
            // with such entries.
            Self::Unanswered => 30,
        }
    }

    /// Returns the state with this number (the lowest three bits).
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

/// Events at the two ends of a flow, one byte per direction. Only the hook of a direction writes that
/// direction's byte, so two processors never undo each other's marks.
pub mod mark {
    /// Ours: this host has sent a FIN.
    pub const FIN: u8 = 1;
    /// Ours: this host has sent a RST.
    pub const RST: u8 = 2;
    /// Ours: a socket of this host sent the packet that created the flow, so the socket table tells when the
    /// socket is gone. For forwarded or translated packets, the socket table knows nothing, or a different
    /// socket.
    pub const SOCKET: u8 = 4;
    /// Theirs: the peer has sent a FIN.
    pub const PEER_FIN: u8 = 1;
}

/// The two ends of a flow as seen from this host: 40 bytes without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Key(pub [u64; 5]);

impl Key {
    /// Returns the key of a flow between a local end and a peer end.
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

    /// Returns the key of a flow. Each address is given as two words, high and low.
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

    /// Returns the protocol.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        (self.0[4] >> 8) as u8
    }

    /// Returns the port of this host's end.
    #[must_use]
    #[inline(always)]
    pub const fn local_port(&self) -> u16 {
        (self.0[4] >> 48) as u16
    }

    /// Returns the key of a fragmented datagram: source, destination, protocol (IPv4 only) and
    /// identification.
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

    /// Returns the key of a self-test (1), which no flow and no fragmented datagram has; for 0, returns the
    /// same key.
    #[must_use]
    #[inline(always)]
    pub const fn of_self_test(self, self_test: u64) -> Self {
        let [own_high, own_low, peer_high, peer_low, rest] = self.0;
        Self([own_high, own_low, peer_high, peer_low, rest ^ self_test << 31])
    }

    /// Returns a 64-bit hash, keyed so that an outsider cannot aim at a bucket.
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

/// The key of one slot as stored in the map, with the row that allowed the flow.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot {
    /// The words of the [`Key`].
    pub key: [Word; 5],
    /// Counter slot of the row.
    pub row: Quarter,
    /// [`mark`]s of this host's packets. Only egress writes them.
    pub ours: Byte,
    /// [`mark`]s of the peer's packets. Only ingress writes them.
    pub theirs: Byte,
    /// The generation that judged the flow.
    pub epoch: Half,
}

/// One bucket: seven cache lines.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    /// Tags of the slots: hash bits, state and time of each flow.
    pub tags: [Word; FLOW_WAYS],
    /// Keys of the flows, and their rows.
    pub slots: [Slot; FLOW_WAYS],
}

const _: () = assert!(size_of::<Slot>() == 48 && size_of::<Bucket>() == 7 * 64);

/// A tag: bits 63..35 of the hash, the upper 3 bits of the time, the suspect bit, 3 bits of state, the lower
/// 28 bits of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// Bits of the time in ticks. At four ticks a second the time wraps after 17 years: an entry that was
    /// never cleared would then seem to be fresh.
    pub const TIME: u32 = 0x7fff_ffff;
    /// Bit: the last packet from the peer was a RST.
    pub const SUSPECT: u64 = 1 << 31;
    /// Position of the lowest hash bit.
    const HASH_SHIFT: u32 = 35;
    /// Number of time bits in the lower half.
    const LOW_BITS: u32 = 28;

    /// Returns the tag of a hash, a state and a time.
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

    /// Returns the tag with another state, the same time, and without the suspect bit.
    #[must_use]
    #[inline(always)]
    pub const fn moved(self, state: State) -> Self {
        Self::new(self.0, state, self.time())
    }

    /// Returns true if the tag may belong to a key with this hash.
    #[must_use]
    #[inline(always)]
    pub const fn is_of(self, hash: u64) -> bool {
        (self.0 ^ hash) >> Self::HASH_SHIFT == 0
    }

    /// Returns the state.
    #[must_use]
    #[inline(always)]
    pub const fn state(self) -> State {
        State::from_number(self.0 as u32 >> Self::LOW_BITS)
    }

    /// Returns true if the last packet from the peer was a RST.
    #[must_use]
    #[inline(always)]
    pub const fn suspect(self) -> bool {
        self.0 & Self::SUSPECT != 0
    }

    #[inline(always)]
    const fn time(self) -> u32 {
        self.0 as u32 & ((1 << Self::LOW_BITS) - 1) | ((self.0 >> 32) as u32 & 7) << Self::LOW_BITS
    }

    /// Returns the ticks since the last packet of the flow, as [`ticks::since`].
    #[must_use]
    #[inline(always)]
    pub fn idle(self, now: u32) -> u32 {
        ticks::since(self.time(), now, Self::TIME)
    }
}
