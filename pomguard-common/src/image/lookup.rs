//! Look-ups in an image.

use super::{
    AGES, Address, BUDGETS, CLOCK_WORD, Class, Family, GENERATION_WORD, HEAD, LEVELS_V4, LEVELS_V6, LOCAL_V4,
    LOCAL_V6, Line, Lines, Service, VLAN_IDS, VLANS, bucket_v4, bucket_v6, cell, filter_v6, head,
    port_position,
};
use crate::{Direction, barrier::Barrier, control::halves, limits, net::Tuple, rate::Rated};

/// The row that allows a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMatch {
    /// Counter slot of the row.
    pub row: u16,
    /// True if the row is a failsafe row.
    pub failsafe: bool,
}

/// The cause of a miss: why no row allows a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MissReason {
    /// No row names the port.
    Port = 0,
    /// Rows name the port, but not for this address.
    Peer = 1,
    /// A row names both, but not this client port.
    ClientPort = 2,
    /// A look-up failed that cannot fail in a well-formed image.
    Broken = 3,
}

impl MissReason {
    /// Returns the miss reason with this number; only the lowest two bits count.
    #[inline(always)]
    pub(crate) const fn from_number(number: u32) -> Self {
        match number & 3 {
            0 => Self::Port,
            1 => Self::Peer,
            2 => Self::ClientPort,
            _ => Self::Broken,
        }
    }
}

/// The result if no row allows a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The cause.
    pub miss_reason: MissReason,
    /// True if a row in audit names the port, so that only the peer or the client port does not match: not
    /// enforced.
    pub audit: bool,
}

impl Miss {
    /// The miss of a packet that asks for no service.
    pub const NO_SERVICE: Self = Self { miss_reason: MissReason::Port, audit: false };

    /// Returns the same, hidden from the verifier.
    #[inline(always)]
    pub(crate) fn hidden<B: Barrier + ?Sized>(self, memory: &B) -> Self {
        let word = memory.barrier(self.miss_reason as u64 | u64::from(self.audit) << AUDIT_SHIFT) as u32;
        Self { miss_reason: MissReason::from_number(word), audit: word >> AUDIT_SHIFT & 1 != 0 }
    }
}

/// An image and its head line: every look-up starts here.
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
    /// Opens an image. Returns `None` if the head line does not have this version.
    #[inline(always)]
    pub fn open(lines: &'a L) -> Option<Self> {
        let head = lines.line(HEAD)?;
        if head.word(head::ABI) != crate::ABI_VERSION {
            return None;
        }
        Some(Self { lines, head })
    }

    /// Returns the source of the lines.
    #[inline(always)]
    pub const fn lines(&self) -> &'a L {
        self.lines
    }

    /// Returns the modes of both directions, one byte each, see [`super::mode`].
    #[inline(always)]
    pub const fn modes(&self) -> u32 {
        self.head.word(head::MODES)
    }

    /// Returns true if a packet class is switched on, see [`super::switch`].
    #[inline(always)]
    pub fn switch(&self, bit: u32) -> bool {
        self.head.word(head::SWITCHES) & bit != 0
    }

    /// Returns how long a flow in this state is remembered, in ticks.
    #[inline(always)]
    pub fn age(&self, state: u32) -> u32 {
        match self.lines.line(AGES) {
            Some(line) => line.word(state),
            None => 0,
        }
    }

    /// Returns how many packets of a class may come in within a tick, see [`crate::rate::Rated`].
    #[inline(always)]
    pub fn budget(&self, rated: u32) -> u32 {
        match self.lines.line(AGES) {
            Some(line) => line.word(BUDGETS + (rated & (Rated::COUNT as u32 - 1))),
            None => 0,
        }
    }

    /// Returns the generation, counted from 1. The number wraps after four thousand million changes.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        match self.lines.line(AGES) {
            Some(line) => line.word(GENERATION_WORD),
            None => 0,
        }
    }

    /// Returns the ticks to add to the clock.
    #[inline(always)]
    pub fn clock_offset(&self) -> u32 {
        match self.lines.line(AGES) {
            Some(line) => line.word(CLOCK_WORD),
            None => 0,
        }
    }

    /// Returns true if frames with this VLAN id are judged like untagged ones.
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

    /// Returns true if an IPv4 address is one of this host's.
    #[inline(always)]
    pub(crate) fn is_local_v4(&self, address: u32) -> bool {
        let Some(line) = self.lines.line(LOCAL_V4) else { return false };
        let first = line.word(0);
        let mut i = 0;
        while i < limits::LOCAL_ADDRESSES as u32 {
            let word = line.word(i);
            if word == address {
                return true;
            }
            // Copies of the first address pad the rest of the line.
            if i != 0 && word == first {
                return false;
            }
            i += 1;
        }
        false
    }

    /// Returns true if `ours` is an IPv4 address of this host and `theirs` is not.
    #[inline(always)]
    pub(crate) fn is_local_to_remote_v4(&self, ours: u32, theirs: u32) -> bool {
        let Some(line) = self.lines.line(LOCAL_V4) else { return false };
        let first = line.word(0);
        let mut found = false;
        let mut i = 0;
        while i < limits::LOCAL_ADDRESSES as u32 {
            let word = line.word(i);
            if word == theirs {
                return false;
            }
            if i != 0 && word == first {
                break;
            }
            found |= word == ours;
            i += 1;
        }
        found
    }

    /// Returns the words, high and low, of this host's IPv6 address at a place (0 to 15).
    #[inline(always)]
    fn local_v6(&self, place: u32) -> Option<[u64; 2]> {
        let line = self.lines.line(LOCAL_V6 + place / 4)?;
        let at = place % 4 * 4;
        let two = |at| u64::from(line.word(at)) << 32 | u64::from(line.word(at + 1));
        Some([two(at), two(at + 2)])
    }

    /// Returns true if an IPv6 address is one of this host's.
    #[inline(always)]
    pub(crate) fn is_local_v6(&self, address: [u64; 2]) -> bool {
        let Some(first) = self.local_v6(0) else { return false };
        let mut i = 0;
        while i < limits::LOCAL_ADDRESSES as u32 {
            let Some(own) = self.local_v6(i) else { return false };
            if own == address {
                return true;
            }
            if i != 0 && own == first {
                return false;
            }
            i += 1;
        }
        false
    }

    /// Returns true if `ours` is an IPv6 address of this host and `theirs` is not.
    #[inline(always)]
    pub(crate) fn is_local_to_remote_v6(&self, ours: [u64; 2], theirs: [u64; 2]) -> bool {
        let Some(first) = self.local_v6(0) else { return false };
        let mut found = false;
        let mut i = 0;
        while i < limits::LOCAL_ADDRESSES as u32 {
            let Some(own) = self.local_v6(i) else { return false };
            if own == theirs {
                return false;
            }
            if i != 0 && own == first {
                break;
            }
            found |= own == ours;
            i += 1;
        }
        found
    }

    /// Looks up the service of a (direction, protocol, port). Returns `None` if no row names the port.
    #[inline(always)]
    pub fn service(&self, direction: Direction, protocol: u8, port: u16) -> Option<Service> {
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
        Some(Service(u32::from(line.half(rank & 31))))
    }

    /// Returns the class of an address: that of the longest prefix that covers the address.
    #[inline(always)]
    pub fn class(&self, family: Family, address: &Address) -> Class {
        self.lines.look_up(self, family, address)
    }

    /// Returns the class of an address, as [`Self::class`]. Always inlined.
    #[inline(always)]
    pub fn look_up(&self, family: Family, address: &Address) -> Class {
        let [high, low] = halves(address);
        match family {
            Family::V4 => self.class_v4(address[0]),
            Family::V6 => self.class_v6(high, low),
        }
    }

    #[inline(always)]
    pub(crate) fn class_v4(&self, address: u32) -> Class {
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
            let found = first_v4(line, key, wanted);
            if found.0 != 0 {
                return found;
            }
            if line.word(8) & Class::SPILLED == 0 {
                break;
            }
            probe += 1;
        }
        Class::NONE
    }

    #[inline(always)]
    pub(crate) fn class_v6(&self, high: u64, low: u64) -> Class {
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
            let found = first_v6(line, high, low, wanted);
            if found.0 != 0 {
                return found;
            }
            if line.word(12) & Class::SPILLED == 0 {
                break;
            }
            probe += 1;
        }
        Class::NONE
    }

    /// Looks up the row that lets this class use this service from this client port.
    ///
    /// # Errors
    /// [`MissReason::Peer`] or [`MissReason::ClientPort`] if no row does; [`MissReason::Broken`] if a look-up
    /// fails.
    #[inline(always)]
    pub fn cell(&self, class: Class, service: Service, client_port: u16) -> Result<RowMatch, MissReason> {
        if class.0 == 0 {
            return Err(MissReason::Peer);
        }
        let owner = class.offset() + 1;
        let mut at = class.offset().wrapping_add(service.column());
        let mut miss_reason = MissReason::Peer;
        let mut link = 0;
        while link < limits::CELL_CHAIN as u32 {
            let Some(line) = self.lines.line(self.head.word(head::CELLS).wrapping_add(at >> 2)) else {
                return Err(MissReason::Broken);
            };
            let word = (at & 3) * cell::WORDS;
            if line.word(word + cell::OWNER) != owner {
                return Err(miss_reason);
            }
            let client = line.word(word + cell::CLIENT);
            let row = line.word(word + cell::ROW);
            if u32::from(client_port) >= client & 0xffff && u32::from(client_port) <= client >> 16 {
                return Ok(RowMatch { row: row as u16, failsafe: row & cell::FAILSAFE != 0 });
            }
            miss_reason = MissReason::ClientPort;
            at = line.word(word + cell::NEXT);
            if at == 0 {
                return Err(miss_reason);
            }
            link += 1;
        }
        Err(miss_reason)
    }

    /// Looks up the row that lets a class of peers and this host talk.
    ///
    /// # Errors
    /// The miss reason if no row does.
    #[inline(always)]
    pub fn row_match(&self, class: Class, tuple: &Tuple) -> Result<RowMatch, Miss> {
        let answer = match self.service(tuple.direction, tuple.protocol, tuple.port) {
            None => Err(Miss::NO_SERVICE),
            Some(service) => match self.cell(class, service, tuple.client_port) {
                Ok(row_match) => Ok(row_match),
                Err(miss_reason) => Err(Miss { miss_reason, audit: service.in_audit() }),
            },
        };
        unpack(self.lines.barrier(pack(answer)))
    }
}

/// Marks of an entry that a look-up compares.
const COMPARED: u32 = Class::PRESENT | Class::LEVEL;

/// Returns the class of an IPv4 key in a bucket, or [`Class::NONE`]. `wanted` has the marks. Written out: the
/// verifier would explore a loop once for each path through the loop.
#[inline(always)]
fn first_v4(line: &Line, key: u32, wanted: u32) -> Class {
    macro_rules! ways {
        ($($way:literal)+) => {$(
            let value = line.word(8 + $way);
            if line.word($way) == key && value & COMPARED == wanted {
                return Class(value);
            }
        )+};
    }
    ways!(0 1 2 3 4 5 6 7);
    Class::NONE
}

/// Returns the class of an IPv6 key in a bucket, or [`Class::NONE`]. See [`first_v4`].
#[inline(always)]
fn first_v6(line: &Line, high: u64, low: u64, wanted: u32) -> Class {
    macro_rules! ways {
        ($($way:literal)+) => {$(
            let value = line.word(12 + $way);
            let same = line.long(2 * $way) == high && line.long(2 * $way + 1) == low;
            if same && value & COMPARED == wanted {
                return Class(value);
            }
        )+};
    }
    ways!(0 1 2);
    Class::NONE
}

/// Mark of a miss, above every bit of a row match.
const DENIED: u64 = 1 << 31;
/// Position of the audit mark of a miss, above the miss reason.
const AUDIT_SHIFT: u32 = 2;

#[inline(always)]
const fn pack(answer: Result<RowMatch, Miss>) -> u64 {
    match answer {
        Ok(row_match) => row_match.row as u64 | (row_match.failsafe as u64) << 16,
        Err(miss) => DENIED | miss.miss_reason as u64 | (miss.audit as u64) << AUDIT_SHIFT,
    }
}

#[inline(always)]
const fn unpack(answer: u64) -> Result<RowMatch, Miss> {
    if answer & DENIED == 0 {
        return Ok(RowMatch { row: answer as u16, failsafe: answer >> 16 & 1 != 0 });
    }
    let miss_reason = MissReason::from_number(answer as u32);
    Err(Miss { miss_reason, audit: answer >> AUDIT_SHIFT & 1 != 0 })
}

/// Returns the number of ones in a word; BPF has no instruction for this (Hacker's Delight 5-1).
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
        for miss_reason in [MissReason::Port, MissReason::Peer, MissReason::ClientPort, MissReason::Broken] {
            for audit in [false, true] {
                let miss = Miss { miss_reason, audit };
                assert_eq!(unpack(pack(Err(miss))), Err(miss));
            }
        }
        for row in [0, 1, 8_191, u16::MAX] {
            for failsafe in [false, true] {
                assert_eq!(unpack(pack(Ok(RowMatch { row, failsafe }))), Ok(RowMatch { row, failsafe }));
            }
        }
    }
}
