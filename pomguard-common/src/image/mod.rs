//! The bytes of one compiled policy, as user space writes them and the programs read them.
//!
//! An image is an array of 64-byte lines, so that one array look-up fetches one cache line and the kernel
//! inlines every look-up. One array holds one whole generation: a packet that has fetched its array cannot
//! see another generation. Everything is found by position:
//!
//! | section | lines | question that the section answers |
//! | --- | --- | --- |
//! | [`head`] | 1 | where the rest is; modes and switches |
//! | local addresses | 1 + 4 | is this address ours? |
//! | prefix levels | 1 + 2 | which prefix lengths occur? |
//! | VLANs, ages | 2 | which tags are ours, how long is a flow remembered? |
//! | ports | 1,026 | does any row name this port? (bitmap with ranks, 8 bytes per 32 ports) |
//! | services | some | which column of the class × service table is this port? (ports of equal meaning share one); is it in audit? |
//! | filters | 2 × 1,024 | may any prefix of the site cover this address? (one byte per /16, per hashed /48) |
//! | IPv4, IPv6 buckets | some | which class of address is this? (exact hash per prefix length, longest first) |
//! | cells | some | may this class use this service, and by which row? |
//!
//! A class is a set of rows. The table class × service is sparse. Its rows overlap in one array of cells (row
//! displacement): a class' number is an offset, and `cells[class + service]` belongs to the class if the cell
//! carries that number.

mod lookup;

pub use lookup::{Image, Miss, MissReason, RowMatch, ones};

use crate::{
    Direction,
    control::{ControlView, peer_note},
    protocol,
};
pub use crate::{
    barrier::Barrier,
    net::{Address, Family, Tuple},
};

/// One line: the result of one array look-up. Words are in the host's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [u32; 16]);

const _: () = assert!(size_of::<Line>() == 64);

#[cfg(feature = "user")]
// SAFETY: sixteen integers without padding (asserted above).
unsafe impl aya::Pod for Line {}

impl Line {
    /// All zero.
    pub const ZERO: Self = Self([0; 16]);

    /// Returns the word at `index`, which wraps at the end of the line so that no access leaves the line.
    #[must_use]
    #[inline(always)]
    pub const fn word(&self, index: u32) -> u32 {
        self.0[(index & 15) as usize]
    }

    /// Returns the 16-bit value at `index` (0 to 31).
    #[must_use]
    #[inline(always)]
    pub const fn half(&self, index: u32) -> u16 {
        (self.word(index >> 1) >> ((index & 1) * 16)) as u16
    }

    /// Returns the byte at `index` (0 to 63).
    #[must_use]
    #[inline(always)]
    pub const fn byte(&self, index: u32) -> u8 {
        (self.word(index >> 2) >> ((index & 3) * 8)) as u8
    }

    /// Returns the 64-bit value at `index` (0 to 7).
    #[must_use]
    #[inline(always)]
    pub const fn long(&self, index: u32) -> u64 {
        self.word(2 * index) as u64 | (self.word(2 * index + 1) as u64) << 32
    }
}

/// Source of the lines: an array map in the kernel, a vector on the host.
pub trait Lines: Barrier + ControlView {
    /// Returns the line at `index`, or `None` beyond the end.
    fn line(&self, index: u32) -> Option<&Line>;

    /// Calls [`Image::look_up`]. In the programs, a separate function that the verifier checks once.
    #[inline(always)]
    fn look_up(&self, image: &Image<'_, Self>, family: Family, address: &Address) -> Class {
        image.look_up(family, address)
    }
}

impl Barrier for [Line] {}

impl ControlView for [Line] {}

impl Lines for [Line] {
    fn line(&self, index: u32) -> Option<&Line> {
        self.get(index as usize)
    }
}

/// Line of the [`head`].
pub const HEAD: u32 = 0;
/// Line of the IPv4 addresses of this host that the fast path knows: sixteen words, padded with the first
/// address. The general path uses [`Class`], which covers all addresses.
pub const LOCAL_V4: u32 = 1;
/// First line of the IPv6 addresses of this host that the fast path knows: four addresses a line.
pub const LOCAL_V6: u32 = 2;
/// Line of the IPv4 prefix masks, longest first, eight words; then eight words of lengths.
pub const LEVELS_V4: u32 = 6;
/// First of two lines of IPv6 prefix masks, longest first, 16 bytes each (four words, high to low).
pub const LEVELS_V6: u32 = 7;
/// Line of the VLAN ids that are judged like untagged frames: 32 half words, 0 = none.
pub const VLANS: u32 = 9;
/// Line of the ages of flows in ticks, one word per [`crate::flow::State`]. The last word is the generation,
/// counted from 1.
pub const AGES: u32 = 10;
/// First word of the budgets in the line of the ages: packets per tick, for each [`crate::rate::Rated`].
pub const BUDGETS: u32 = 8;
/// Word of the generation in the line of the ages.
pub const GENERATION_WORD: u32 = 15;
/// Word in the line of the ages that is added to the clock: 0, except in tests that move time.
pub const CLOCK_WORD: u32 = 14;
/// The word that says which generation is in force. A change of policy writes only this word.
///
/// The word can carry a deadline, after which the programs themselves return to the fallback generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active(pub u64);

impl Active {
    /// Returns the word for a slot that is in force without a deadline.
    #[must_use]
    pub const fn confirmed(slot: u8) -> Self {
        Self(slot as u64 | (slot as u64) << 8)
    }

    /// Returns the word for a slot that is in force until `deadline` (in ticks, not 0), and then `fallback`.
    #[must_use]
    pub const fn until(slot: u8, fallback: u8, deadline: u32) -> Self {
        Self(slot as u64 | (fallback as u64) << 8 | (deadline as u64) << 32)
    }

    /// Returns the slot that was installed last.
    #[must_use]
    pub const fn installed(self) -> u8 {
        self.0 as u8
    }

    /// Returns the slot that is in force after the deadline.
    #[must_use]
    pub const fn fallback(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Returns the deadline in ticks; 0 = none.
    #[must_use]
    #[inline(always)]
    pub const fn deadline(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the slot in force at `now`.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self, now: u32) -> u32 {
        let expired = self.deadline() != 0 && now.wrapping_sub(self.deadline()) < 1 << 31;
        (if expired { self.0 >> 8 } else { self.0 }) as u32 & 0xff
    }
}
/// First line of the data that only user space reads: generation, digest, counts.
pub const RECORD: u32 = 11;
/// First line of the sections whose position varies.
pub const SECTIONS: u32 = 16;

/// Number of VLAN ids that an image can hold.
pub const VLAN_IDS: usize = 32;

/// Inbound and outbound mode: how a would-be drop is treated.
pub mod mode {
    /// Everything may leave; packets that no row lists are counted as such. Outbound only.
    pub const TRACK: u8 = 0;
    /// Passed, and counted as a would-be drop.
    pub const AUDIT: u8 = 1;
    /// Dropped.
    pub const ENFORCE: u8 = 2;

    /// Returns both directions' modes, one byte each, with audit in place of enforce.
    #[must_use]
    #[inline(always)]
    pub const fn opened(modes: u32) -> u32 {
        const ENFORCED: u32 = ENFORCE as u32 | (ENFORCE as u32) << 8;
        modes & !ENFORCED | (modes & ENFORCED) >> 1
    }
}

/// Bits of the head's switches: packet classes that settings may change.
pub mod switch {
    /// VRRP heartbeats pass.
    pub const VRRP: u32 = 1;
    /// LLDP, LACP, spanning tree and EAPOL pass.
    pub const LINK_CONTROL: u32 = 1 << 1;
    /// IGMP and MLD pass.
    pub const GROUP_MEMBERSHIP: u32 = 1 << 2;
    /// DHCP and DHCPv6 leases pass.
    pub const DHCP: u32 = 1 << 3;
    /// ICMPv6 echo requests pass without a row.
    pub const ECHO_V6: u32 = 1 << 4;
    /// ICMP redirects pass.
    pub const REDIRECTS: u32 = 1 << 5;
}

/// Words of the head line.
pub mod head {
    /// [`crate::ABI_VERSION`].
    pub const ABI: u32 = 0;
    /// Inbound mode in bits 0 to 7, outbound mode in bits 8 to 15.
    pub const MODES: u32 = 1;
    /// Bits of [`super::switch`].
    pub const SWITCHES: u32 = 2;
    /// First line of the ports.
    pub const PORTS: u32 = 3;
    /// First line of the services.
    pub const SERVICES: u32 = 4;
    /// First line of the IPv4 filter.
    pub const FILTER_V4: u32 = 5;
    /// First line of the IPv6 filter.
    pub const FILTER_V6: u32 = 6;
    /// First line of the IPv4 buckets.
    pub const BUCKETS_V4: u32 = 7;
    /// Number of IPv4 buckets (a power of two) minus one.
    pub const MASK_V4: u32 = 8;
    /// First line of the IPv6 buckets.
    pub const BUCKETS_V6: u32 = 9;
    /// Number of IPv6 buckets (a power of two) minus one.
    pub const MASK_V6: u32 = 10;
    /// First line of the cells.
    pub const CELLS: u32 = 11;
    /// [`super::Class`] of an IPv4 address that no other prefix covers (the rows for `0.0.0.0/0`).
    pub const DEFAULT_V4: u32 = 12;
    /// [`super::Class`] of an IPv6 address that no other prefix covers (the rows for `::/0`).
    pub const DEFAULT_V6: u32 = 13;
    /// Varies the hashes until every bucket chain is short.
    pub const SEED: u32 = 14;
    /// IPv6 levels that are probed for every address: those shorter than /48.
    pub const ALWAYS_V6: u32 = 15;
}

/// Words of the port section, per direction: TCP, UDP, then protocols by number.
pub const PORT_WORDS: u32 = 2_048 + 2_048 + 8;
/// Lines of the port section: eight pairs of words (bits, rank) a line, both directions.
pub const PORT_LINES: u32 = (2 * PORT_WORDS).div_ceil(8);
/// Lines of one filter section.
pub const FILTER_LINES: u32 = 65_536 / 64;

/// Returns the position of a (direction, protocol, port) in the port section, in bits.
#[must_use]
#[inline(always)]
pub const fn port_position(direction: Direction, protocol: u8, port: u16) -> u32 {
    let part = match protocol {
        protocol::TCP => port as u32,
        protocol::UDP => 65_536 + port as u32,
        other => 2 * 65_536 + other as u32,
    };
    direction as u32 * PORT_WORDS * 32 + part
}

/// The result of a port look-up: a column of the class × service table, with a mark. The service section
/// holds one half word in this form for each listed port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service(pub u32);

impl Service {
    /// Bits of the column.
    pub const COLUMN: u16 = 0x7fff;
    /// A row that names the port is in audit: packets to the port from any other peer are counted as would-be
    /// drops, and pass.
    pub const AUDIT: u16 = 1 << 15;

    /// Mark of a service in the form of [`Self::pack`].
    const SOME: u64 = 1 << 16;

    /// Returns a service, or none, as one word.
    #[inline(always)]
    pub(crate) const fn pack(service: Option<Self>) -> u64 {
        match service {
            Some(service) => service.0 as u64 | Self::SOME,
            None => 0,
        }
    }

    /// Returns the service, or none, of a word from [`Self::pack`].
    #[inline(always)]
    pub(crate) const fn unpack(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word as u32 & 0xffff)) }
    }

    /// Returns the column.
    #[must_use]
    #[inline(always)]
    pub const fn column(self) -> u32 {
        self.0 & Self::COLUMN as u32
    }

    /// Returns true if the port is in audit.
    #[must_use]
    #[inline(always)]
    pub const fn in_audit(self) -> bool {
        self.0 & Self::AUDIT as u32 != 0
    }
}

/// The result of an address look-up: nothing (0), or an offset into the cells with marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub u32);

const _: () =
    assert!(4 * crate::limits::IMAGE_LINES <= Class::OFFSET as usize, "an offset into the cells fits");

impl Class {
    /// A stranger: no prefix of the site covers the address.
    pub const NONE: Self = Self(0);
    /// Bits of the offset.
    pub const OFFSET: u32 = 0x000f_ffff;
    /// Packets to the address are for this host. This host may send from the address if the class is also
    /// [`Self::HELD`].
    pub const OWN: u32 = 1 << 20;
    /// The address is on this machine, so that nobody else sends from the address. Without [`Self::OWN`], the
    /// site file does not give the address to this host.
    pub const HELD: u32 = 1 << 21;
    /// Another host may take over the address, and this host may lose it: [`Self::HELD`] is valid only while
    /// the daemon says so, see [`crate::control::word::HOLDERS`].
    pub const SHARED: u32 = 1 << 22;
    /// Bits of the prefix level.
    pub const LEVEL: u32 = 0x0700_0000;
    /// Position of the prefix level.
    pub const LEVEL_SHIFT: u32 = 24;
    /// The bucket has spilled into the next one (kept in the first entry of the bucket).
    pub const SPILLED: u32 = 1 << 29;
    /// The entry is taken.
    pub const PRESENT: u32 = 1 << 30;
    /// The site file names the address as that of a host or peer.
    pub const KNOWN: u32 = 1 << 31;

    /// Returns the offset of the class' first cell.
    #[must_use]
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 & Self::OFFSET
    }

    /// Returns the note about a packet whose peer has this class, see [`peer_note`]. Computed without a
    /// branch.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn note(self) -> u64 {
        ((self.0 / Self::KNOWN) as u64 * peer_note::KNOWN) | peer_note::READ
    }

    /// Returns true if the site file names the address.
    #[must_use]
    #[inline(always)]
    pub const fn known(self) -> bool {
        self.0 & Self::KNOWN != 0
    }

    /// Returns true if packets to the address are for this host.
    #[must_use]
    #[inline(always)]
    pub const fn is_own(self) -> bool {
        self.0 & Self::OWN != 0
    }

    /// Returns true if the address was on this machine when the image was made.
    #[must_use]
    #[inline(always)]
    pub const fn is_held(self) -> bool {
        self.0 & Self::HELD != 0
    }

    /// Returns true if this host may send from the address. `fresh` is true if [`Self::HELD`] is up to date.
    #[must_use]
    #[inline(always)]
    pub const fn may_send(self, fresh: bool) -> bool {
        self.is_own() && (self.is_held() || self.0 & Self::SHARED != 0 && !fresh)
    }

    /// Returns true if nobody else sends from the address. `fresh` is true if [`Self::HELD`] is up to date.
    #[must_use]
    #[inline(always)]
    pub const fn is_sent_by_us_alone(self, fresh: bool) -> bool {
        self.is_held() && (fresh || self.0 & Self::SHARED == 0)
    }

    /// Returns true if the site file gives the address to nobody: neither to this host nor to another.
    #[must_use]
    #[inline(always)]
    pub const fn is_unclaimed(self) -> bool {
        self.0 & (Self::OWN | Self::KNOWN) == 0
    }
}

/// Words of one cell: four cells a line.
pub mod cell {
    /// Number of words of a cell.
    pub const WORDS: u32 = 4;
    /// Offset of the class that owns the cell, plus one; 0 = free.
    pub const OWNER: u32 = 0;
    /// Row slot in the low half, marks in the high half.
    pub const ROW: u32 = 1;
    /// First client port in the low half, last one in the high half.
    pub const CLIENT: u32 = 2;
    /// Cell with another client-port range for the same pair; 0 = none.
    pub const NEXT: u32 = 3;
    /// Mark in the high half of [`ROW`]: a failsafe row.
    pub const FAILSAFE: u32 = 1 << 16;
}

/// Golden-ratio multiplier (Knuth, TAOCP 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// A second odd multiplier (from the MurmurHash3 finaliser, public domain).
const MIX: u64 = 0xff51_afd7_ed55_8ccd;

/// Returns the bucket number of a masked IPv4 address.
#[must_use]
#[inline(always)]
pub const fn bucket_v4(seed: u32, level: u32, address: u32) -> u32 {
    let x = (address as u64 | ((level ^ seed) as u64) << 32).wrapping_mul(GOLDEN);
    (x >> 36) as u32
}

/// Returns the bucket number of a masked IPv6 address.
#[must_use]
#[inline(always)]
pub const fn bucket_v6(seed: u32, level: u32, high: u64, low: u64) -> u32 {
    let x = (high ^ seed as u64).wrapping_mul(GOLDEN) ^ low.wrapping_add(level as u64).wrapping_mul(MIX);
    ((x ^ (x >> 29)).wrapping_mul(GOLDEN) >> 36) as u32
}

/// Returns the position of an IPv6 address in the filter: the first 48 bits, hashed.
#[must_use]
#[inline(always)]
pub const fn filter_v6(high: u64) -> u32 {
    ((high >> 16).wrapping_mul(GOLDEN) >> 48) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_direction_protocol_and_port_has_a_bit_of_its_own() {
        assert_eq!(
            port_position(Direction::Inbound, protocol::TCP, u16::MAX) + 1,
            port_position(Direction::Inbound, protocol::UDP, 0)
        );
        assert_eq!(
            port_position(Direction::Inbound, protocol::UDP, u16::MAX) + 1,
            port_position(Direction::Inbound, 0, 0)
        );
        assert!(
            port_position(Direction::Inbound, 255, 9) < port_position(Direction::Outbound, protocol::TCP, 0)
        );
        assert!(port_position(Direction::Outbound, 255, 9) / 32 / 8 < PORT_LINES);
    }

    #[test]
    fn a_line_reads_alike_in_every_width() {
        let line = Line([0x0403_0201, 0x0807_0605, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfffe_fdfc]);
        assert_eq!(line.byte(5), 6);
        assert_eq!(line.half(1), 0x0403);
        assert_eq!(line.long(0), 0x0807_0605_0403_0201);
        assert_eq!(line.byte(63), 0xff);
        assert_eq!(line.word(31), line.word(15), "an index beyond the line wraps");
    }
}
