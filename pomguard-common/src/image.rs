//! The bytes of one compiled policy, as user space writes and the programs read them.
//!
//! An image is an array of 64-byte lines, so that one array look-up brings one cache line, and the
//! kernel inlines every look-up. One array holds one whole generation: a packet that has fetched
//! its array cannot see another generation. Everything is found by position:
//!
//! | what | lines | question it answers |
//! | --- | --- | --- |
//! | [`head`] | 1 | where the rest is; modes and switches |
//! | local addresses | 1 + 4 | is this address ours? |
//! | prefix levels | 1 + 2 | which prefix lengths occur? |
//! | VLANs, ages | 2 | which tags are ours, how long is a conversation remembered? |
//! | ports | 1,026 | does any row name this port? (bitmap with ranks, 8 bytes per 32 ports) |
//! | services | some | which column of the matrix is this port? (ports of equal meaning share one) |
//! | filters | 2 × 1,024 | may any prefix of the site cover this address? (one byte per /16, per hashed /48) |
//! | IPv4, IPv6 buckets | some | which class of address is this? (exact hash per prefix length, longest first) |
//! | cells | some | may this class use this service, and by which row? |
//!
//! A class is a set of rows. The matrix class × service is sparse; its rows are laid over each other
//! in one array of cells (row displacement): a class' number is its offset, `cells[class + service]`
//! belongs to it when the cell carries that number.

use crate::{Direction, limits, protocol};

/// One line: what one array look-up returns. Words are in the host's byte order.
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

    /// The word at `index`, which wraps at the line's end so that no access leaves it.
    #[must_use]
    #[inline(always)]
    pub const fn word(&self, index: u32) -> u32 {
        self.0[(index & 15) as usize]
    }

    /// The 16-bit value at `index` (0 to 31).
    #[must_use]
    #[inline(always)]
    pub const fn half(&self, index: u32) -> u16 {
        (self.word(index >> 1) >> ((index & 1) * 16)) as u16
    }

    /// The byte at `index` (0 to 63).
    #[must_use]
    #[inline(always)]
    pub const fn byte(&self, index: u32) -> u8 {
        (self.word(index >> 2) >> ((index & 3) * 8)) as u8
    }

    /// The 64-bit value at `index` (0 to 7).
    #[must_use]
    #[inline(always)]
    pub const fn long(&self, index: u32) -> u64 {
        self.word(2 * index) as u64 | (self.word(2 * index + 1) as u64) << 32
    }
}

/// Makes the kernel's verifier forget what it knows of a value.
///
/// It knows from which of sixteen places a value came, or that it is one of two constants, and walks
/// everything behind once for each. Where ways join that differ in nothing else, the value goes
/// through memory that the verifier knows nothing about. On the host it is the value.
pub trait Forget {
    /// The same value.
    #[inline(always)]
    fn forget(&self, value: u64) -> u64 {
        value
    }
}

/// Where lines come from: an array map in the kernel, a vector on the host.
pub trait Lines: Forget {
    /// The line at `index`; none beyond the end.
    fn line(&self, index: u32) -> Option<&Line>;
}

impl Forget for [Line] {}

impl Lines for [Line] {
    fn line(&self, index: u32) -> Option<&Line> {
        self.get(index as usize)
    }
}

/// Line of the [`head`].
pub const HEAD: u32 = 0;
/// Line of the local IPv4 addresses: sixteen, the first repeated to fill up.
pub const LOCAL_V4: u32 = 1;
/// First line of the local IPv6 addresses: four each.
pub const LOCAL_V6: u32 = 2;
/// Line of the IPv4 prefix masks, longest first, eight words; then eight words of lengths.
pub const LEVELS_V4: u32 = 6;
/// First of two lines of IPv6 prefix masks, longest first, 16 bytes each (four words, high to low).
pub const LEVELS_V6: u32 = 7;
/// Line of the VLAN ids judged like untagged frames: 32 halves, 0 = none.
pub const VLANS: u32 = 9;
/// Line of the ages of conversations in ticks, a word per [`crate::flow::State`]; the last word is
/// the generation, counted from 1.
pub const AGES: u32 = 10;
/// Word of the generation in the line of the ages.
pub const GENERATION_WORD: u32 = 15;
/// Word in the line of the ages that is added to the clock: 0, but for tests that move time.
pub const CLOCK_WORD: u32 = 14;
/// The word that says which generation is in force; the only thing a change of policy flips.
///
/// It can carry a deadline: past it the programs themselves return to the fallback generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active(pub u64);

impl Active {
    /// In force without a deadline.
    #[must_use]
    pub const fn settled(slot: u8) -> Self {
        Self(slot as u64 | (slot as u64) << 8)
    }

    /// In force until `deadline` (in ticks, not 0), then `fallback`.
    #[must_use]
    pub const fn until(slot: u8, fallback: u8, deadline: u32) -> Self {
        Self(slot as u64 | (fallback as u64) << 8 | (deadline as u64) << 32)
    }

    /// The slot that was installed last.
    #[must_use]
    pub const fn installed(self) -> u8 {
        self.0 as u8
    }

    /// The slot that holds once the deadline has passed.
    #[must_use]
    pub const fn fallback(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The deadline in ticks; 0 = none.
    #[must_use]
    #[inline(always)]
    pub const fn deadline(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The slot in force at `now`.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self, now: u32) -> u32 {
        let expired = self.deadline() != 0 && now.wrapping_sub(self.deadline()) < 1 << 31;
        (if expired { self.0 >> 8 } else { self.0 }) as u32 & 0xff
    }
}
/// First line of what only user space reads: generation, digest, counts.
pub const RECORD: u32 = 11;
/// First line of the sections that move.
pub const SECTIONS: u32 = 16;

/// VLAN ids that an image can hold.
pub const VLAN_IDS: usize = 32;

/// Inbound and outbound mode: what becomes of a would-be drop.
pub mod mode {
    /// Everything may leave; what no row lists is counted as such. Outbound only.
    pub const TRACK: u8 = 0;
    /// Passed, and counted as a would-be drop.
    pub const AUDIT: u8 = 1;
    /// Dropped.
    pub const ENFORCE: u8 = 2;
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
    /// [`super::Class`] of an IPv4 address that no other prefix covers (what `0.0.0.0/0` grants).
    pub const DEFAULT_V4: u32 = 12;
    /// The same for IPv6.
    pub const DEFAULT_V6: u32 = 13;
    /// Varies the hashes until every bucket chain is short.
    pub const SEED: u32 = 14;
    /// IPv6 levels that are probed for every address: those shorter than /48.
    pub const ALWAYS_V6: u32 = 15;
}

/// Words of the port section, per direction: TCP, UDP, then protocols by number.
pub const PORT_WORDS: u32 = 2_048 + 2_048 + 8;
/// Lines of the port section: eight words of (bits, rank) a line, both directions.
pub const PORT_LINES: u32 = (2 * PORT_WORDS).div_ceil(8);
/// Lines of one filter section.
pub const FILTER_LINES: u32 = 65_536 / 64;

/// Position of a (direction, protocol, port) in the port section, in bits.
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

/// What an address look-up returns: nothing (0), or an offset into the cells with marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub u32);

impl Class {
    /// A stranger: no prefix of the site covers the address.
    pub const NONE: Self = Self(0);
    /// Bits of the offset.
    pub const OFFSET: u32 = 0x00ff_ffff;
    /// Bits of the prefix level.
    pub const LEVEL: u32 = 0x0700_0000;
    /// Position of the prefix level.
    pub const LEVEL_SHIFT: u32 = 24;
    /// The bucket has spilled into the next one (kept in its first entry).
    pub const SPILLED: u32 = 1 << 29;
    /// The entry is taken.
    pub const PRESENT: u32 = 1 << 30;
    /// The site file names the address as a host's or peer's.
    pub const KNOWN: u32 = 1 << 31;

    /// Where the class' cells begin.
    #[must_use]
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 & Self::OFFSET
    }

    /// Whether the site file names the address.
    #[must_use]
    #[inline(always)]
    pub const fn known(self) -> bool {
        self.0 & Self::KNOWN != 0
    }
}

/// Words of one cell: four cells a line.
pub mod cell {
    /// Words.
    pub const WORDS: u32 = 4;
    /// Offset of the class it belongs to, plus one; 0 = free.
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

/// An address as four words, most significant first; an IPv4 address is in the first word alone.
pub type Address = [u32; 4];

/// IP version of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// Golden-ratio multiplier (Knuth, TAOCP 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// A second odd multiplier (from the MurmurHash3 finaliser, public domain).
const MIX: u64 = 0xff51_afd7_ed55_8ccd;

/// Bucket number of a masked IPv4 address.
#[must_use]
#[inline(always)]
pub const fn bucket_v4(seed: u32, level: u32, address: u32) -> u32 {
    let x = (address as u64 | ((level ^ seed) as u64) << 32).wrapping_mul(GOLDEN);
    (x >> 36) as u32
}

/// Bucket number of a masked IPv6 address.
#[must_use]
#[inline(always)]
pub const fn bucket_v6(seed: u32, level: u32, high: u64, low: u64) -> u32 {
    let x = (high ^ seed as u64).wrapping_mul(GOLDEN) ^ low.wrapping_add(level as u64).wrapping_mul(MIX);
    ((x ^ (x >> 29)).wrapping_mul(GOLDEN) >> 36) as u32
}

/// Position of an IPv6 address in the filter: its first 48 bits, hashed.
#[must_use]
#[inline(always)]
pub const fn filter_v6(high: u64) -> u32 {
    ((high >> 16).wrapping_mul(GOLDEN) >> 48) as u32
}

/// What the image is asked: may a peer use this service from this port?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Inbound: the peer opens. Outbound: this host does.
    pub direction: Direction,
    /// Upper protocol.
    pub protocol: u8,
    /// Port of the side that is opened to; the protocol's own number where there are no ports.
    pub port: u16,
    /// Port of the side that opens; 0 where there are no ports.
    pub client_port: u16,
}

/// The row that allows a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Counter slot of the row.
    pub row: u16,
    /// Whether it is a failsafe row.
    pub failsafe: bool,
}

/// Why no row allows a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Denial {
    /// No row names the port.
    Port = 0,
    /// Rows name the port, but not for this address.
    Peer = 1,
    /// A row names both, but not this client port.
    ClientPort = 2,
    /// A look-up failed that cannot fail in a well-formed image.
    Broken = 3,
}

/// An image and its head line: what every question is asked of.
pub struct Image<'a, L: Lines + ?Sized> {
    lines: &'a L,
    head: &'a Line,
}

impl<L: Lines + ?Sized> Clone for Image<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Lines + ?Sized> Copy for Image<'_, L> {}

impl<'a, L: Lines + ?Sized> Image<'a, L> {
    /// Opens an image; none when it has no head of this version.
    #[inline(always)]
    pub fn open(lines: &'a L) -> Option<Self> {
        let head = lines.line(HEAD)?;
        if head.word(head::ABI) != crate::ABI_VERSION {
            return None;
        }
        Some(Self { lines, head })
    }

    /// Where its lines come from.
    #[inline(always)]
    pub const fn lines(&self) -> &'a L {
        self.lines
    }

    /// Mode of a direction, see [`mode`].
    #[inline(always)]
    pub fn mode(&self, direction: Direction) -> u8 {
        (self.head.word(head::MODES) >> (8 * direction as u32)) as u8
    }

    /// Whether a packet class is switched on, see [`switch`].
    #[inline(always)]
    pub fn switch(&self, bit: u32) -> bool {
        self.head.word(head::SWITCHES) & bit != 0
    }

    /// How long a conversation in this state is remembered, in ticks.
    #[inline(always)]
    pub fn age(&self, state: u32) -> u32 {
        match self.lines.line(AGES) {
            Some(line) => line.word(state),
            None => 0,
        }
    }

    /// The generation, counted from 1; it wraps after four thousand million changes.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        match self.lines.line(AGES) {
            Some(line) => line.word(GENERATION_WORD),
            None => 0,
        }
    }

    /// Ticks to add to the clock.
    #[inline(always)]
    pub fn clock_offset(&self) -> u32 {
        match self.lines.line(AGES) {
            Some(line) => line.word(CLOCK_WORD),
            None => 0,
        }
    }

    /// Whether frames with this VLAN id are judged like untagged ones.
    #[inline(always)]
    pub fn serves_vlan(&self, id: u16) -> bool {
        let Some(line) = self.lines.line(VLANS) else { return false };
        let mut i = 0;
        while i < VLAN_IDS as u32 {
            if line.half(i) == id {
                return true;
            }
            i += 1;
        }
        false
    }

    /// Whether the address is one of this host's.
    #[inline(always)]
    pub fn is_local(&self, family: Family, address: &Address) -> bool {
        self.lines.forget(self.lists_local(family, address).into()) != 0
    }

    #[inline(always)]
    fn lists_local(&self, family: Family, address: &Address) -> bool {
        if matches!(family, Family::V4) {
            let Some(line) = self.lines.line(LOCAL_V4) else { return false };
            // The first line holds them all; the first ones are the likely ones.
            let mut i = 0;
            while i < limits::LOCAL_ADDRESSES as u32 {
                if line.word(i) == address[0] {
                    return true;
                }
                i += 1;
            }
            return false;
        }
        let mut at = LOCAL_V6;
        while at < LOCAL_V6 + limits::LOCAL_ADDRESSES as u32 / 4 {
            let Some(line) = self.lines.line(at) else { return false };
            let mut i = 0;
            while i < 4 {
                if line.word(4 * i) == address[0]
                    && line.word(4 * i + 1) == address[1]
                    && line.word(4 * i + 2) == address[2]
                    && line.word(4 * i + 3) == address[3]
                {
                    return true;
                }
                i += 1;
            }
            at += 1;
        }
        false
    }

    /// Column of the matrix for a (direction, protocol, port); none when no row names it.
    #[inline(always)]
    pub fn service(&self, direction: Direction, protocol: u8, port: u16) -> Option<u32> {
        let position = port_position(direction, protocol, port);
        let word = position >> 5;
        let line = self.lines.line(self.head.word(head::PORTS).wrapping_add(word >> 3))?;
        let bits = line.word((word & 7) * 2);
        let bit = position & 31;
        if bits >> bit & 1 == 0 {
            return None;
        }
        let rank = line.word((word & 7) * 2 + 1).wrapping_add(ones(bits & ((1 << bit) - 1)));
        let line = self.lines.line(self.head.word(head::SERVICES).wrapping_add(rank >> 5))?;
        Some(u32::from(line.half(rank & 31)))
    }

    /// Class of an address: that of the longest prefix covering it.
    #[inline(always)]
    pub fn class(&self, family: Family, address: &Address) -> Class {
        let class = match family {
            Family::V4 => self.class_v4(address[0]),
            Family::V6 => self.class_v6(
                u64::from(address[0]) << 32 | u64::from(address[1]),
                u64::from(address[2]) << 32 | u64::from(address[3]),
            ),
        };
        Class(self.lines.forget(class.0.into()) as u32)
    }

    #[inline(always)]
    fn class_v4(&self, address: u32) -> Class {
        let default = Class(self.head.word(head::DEFAULT_V4));
        let position = address >> 16;
        let Some(filter) = self.lines.line(self.head.word(head::FILTER_V4).wrapping_add(position >> 6))
        else {
            return Class::NONE;
        };
        let levels = u32::from(filter.byte(position & 63));
        if levels == 0 {
            return default;
        }
        let Some(masks) = self.lines.line(LEVELS_V4) else { return Class::NONE };
        let seed = self.head.word(head::SEED);
        let mut level = 0;
        while level < limits::PREFIX_LEVELS as u32 {
            if levels >> level & 1 != 0 {
                let key = address & masks.word(level);
                let found = self.probe_v4(bucket_v4(seed, level, key), level, key);
                if found.0 != 0 {
                    return found;
                }
            }
            level += 1;
        }
        default
    }

    #[inline(always)]
    fn probe_v4(&self, bucket: u32, level: u32, key: u32) -> Class {
        let wanted = Class::PRESENT | level << Class::LEVEL_SHIFT;
        let mut probe = 0;
        while probe < limits::BUCKET_PROBES as u32 {
            let at = bucket.wrapping_add(probe) & self.head.word(head::MASK_V4);
            let Some(line) = self.lines.line(self.head.word(head::BUCKETS_V4).wrapping_add(at)) else {
                return Class::NONE;
            };
            let mut i = 0;
            while i < 8 {
                let value = line.word(8 + i);
                if line.word(i) == key && value & (Class::PRESENT | Class::LEVEL) == wanted {
                    return Class(value);
                }
                i += 1;
            }
            if line.word(8) & Class::SPILLED == 0 {
                break;
            }
            probe += 1;
        }
        Class::NONE
    }

    #[inline(always)]
    fn class_v6(&self, high: u64, low: u64) -> Class {
        let default = Class(self.head.word(head::DEFAULT_V6));
        let position = filter_v6(high);
        let Some(filter) = self.lines.line(self.head.word(head::FILTER_V6).wrapping_add(position >> 6))
        else {
            return Class::NONE;
        };
        let levels = u32::from(filter.byte(position & 63)) | self.head.word(head::ALWAYS_V6);
        if levels == 0 {
            return default;
        }
        let seed = self.head.word(head::SEED);
        let mut level = 0;
        while level < limits::PREFIX_LEVELS as u32 {
            if levels >> level & 1 != 0 {
                let Some(masks) = self.lines.line(LEVELS_V6 + (level >> 2)) else { return Class::NONE };
                let high = high & masks.long((level & 3) * 2);
                let low = low & masks.long((level & 3) * 2 + 1);
                let found = self.probe_v6(bucket_v6(seed, level, high, low), level, high, low);
                if found.0 != 0 {
                    return found;
                }
            }
            level += 1;
        }
        default
    }

    #[inline(always)]
    fn probe_v6(&self, bucket: u32, level: u32, high: u64, low: u64) -> Class {
        let wanted = Class::PRESENT | level << Class::LEVEL_SHIFT;
        let mut probe = 0;
        while probe < limits::BUCKET_PROBES as u32 {
            let at = bucket.wrapping_add(probe) & self.head.word(head::MASK_V6);
            let Some(line) = self.lines.line(self.head.word(head::BUCKETS_V6).wrapping_add(at)) else {
                return Class::NONE;
            };
            let mut i = 0;
            while i < 3 {
                let value = line.word(12 + i);
                if line.long(2 * i) == high
                    && line.long(2 * i + 1) == low
                    && value & (Class::PRESENT | Class::LEVEL) == wanted
                {
                    return Class(value);
                }
                i += 1;
            }
            if line.word(12) & Class::SPILLED == 0 {
                break;
            }
            probe += 1;
        }
        Class::NONE
    }

    /// The row that lets this class use this service from this client port.
    ///
    /// # Errors
    /// [`Denial::Peer`] or [`Denial::ClientPort`].
    #[inline(always)]
    pub fn cell(&self, class: Class, service: u32, client_port: u16) -> Result<Grant, Denial> {
        if class.0 == 0 {
            return Err(Denial::Peer);
        }
        let owner = class.offset() + 1;
        let mut at = class.offset().wrapping_add(service);
        let mut denial = Denial::Peer;
        let mut link = 0;
        while link < limits::CELL_CHAIN as u32 {
            let Some(line) = self.lines.line(self.head.word(head::CELLS).wrapping_add(at >> 2)) else {
                return Err(Denial::Broken);
            };
            let word = (at & 3) * cell::WORDS;
            if line.word(word + cell::OWNER) != owner {
                return Err(denial);
            }
            let client = line.word(word + cell::CLIENT);
            let row = line.word(word + cell::ROW);
            if u32::from(client_port) >= client & 0xffff && u32::from(client_port) <= client >> 16 {
                return Ok(Grant { row: row as u16, failsafe: row & cell::FAILSAFE != 0 });
            }
            denial = Denial::ClientPort;
            at = line.word(word + cell::NEXT);
            if at == 0 {
                return Err(denial);
            }
            link += 1;
        }
        Err(denial)
    }

    /// The row that lets a class of peers and this host talk.
    ///
    /// # Errors
    /// Why none does.
    #[inline(always)]
    pub fn grant(&self, class: Class, tuple: &Tuple) -> Result<Grant, Denial> {
        let answer = match self.service(tuple.direction, tuple.protocol, tuple.port) {
            None => Err(Denial::Port),
            Some(service) => self.cell(class, service, tuple.client_port),
        };
        unpack(self.lines.forget(pack(answer)))
    }
}

/// A mark above everything that a grant can be.
const DENIED: u64 = 1 << 31;

#[inline(always)]
const fn pack(answer: Result<Grant, Denial>) -> u64 {
    match answer {
        Ok(grant) => grant.row as u64 | (grant.failsafe as u64) << 16,
        Err(denial) => DENIED | denial as u64,
    }
}

#[inline(always)]
const fn unpack(answer: u64) -> Result<Grant, Denial> {
    if answer & DENIED == 0 {
        return Ok(Grant { row: answer as u16, failsafe: answer >> 16 & 1 != 0 });
    }
    Err(match answer & 3 {
        0 => Denial::Port,
        1 => Denial::Peer,
        2 => Denial::ClientPort,
        _ => Denial::Broken,
    })
}

/// Number of ones in a word; BPF has no instruction for it (Hacker's Delight 5-1).
#[must_use]
#[inline(always)]
pub const fn ones(word: u32) -> u32 {
    let pairs = word - (word >> 1 & 0x5555_5555);
    let fours = (pairs & 0x3333_3333) + (pairs >> 2 & 0x3333_3333);
    let eights = (fours + (fours >> 4)) & 0x0f0f_0f0f;
    eights.wrapping_mul(0x0101_0101) >> 24
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_counts_like_the_machine_does() {
        for word in [0, 1, 0x8000_0000, u32::MAX, 0x5555_5555, 0xdead_beef, 0x0f0f_00f0] {
            assert_eq!(ones(word), word.count_ones(), "{word:#x}");
        }
    }

    #[test]
    fn a_packed_answer_comes_back_as_it_was() {
        for denial in [Denial::Port, Denial::Peer, Denial::ClientPort, Denial::Broken] {
            assert_eq!(unpack(pack(Err(denial))), Err(denial));
        }
        for row in [0, 1, 8_191, u16::MAX] {
            for failsafe in [false, true] {
                assert_eq!(unpack(pack(Ok(Grant { row, failsafe }))), Ok(Grant { row, failsafe }));
            }
        }
    }

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
