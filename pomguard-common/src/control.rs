//! What holds beside the generations: which one is in force, panic, the grace period after a first
//! start, and the pinholes (failsafe rows and timed exceptions), which hold in every generation.
//!
//! Each is one aligned 64-bit word of one cache line, [`Control`], or one line of a small table, so
//! that a packet sees the old state or the new one. Every deadline is in ticks and is judged by the
//! programs themselves: it passes whether or not a daemon lives.

use crate::{
    flow::Word,
    image::{Address, Family},
};

/// The value of the control map. User space writes single words of it, the programs read them.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Control(pub [Word; Control::WORDS]);

impl Control {
    /// Words of the line.
    pub const WORDS: usize = 8;

    /// The word at `index`, one of [`word`]; 0 beyond the line.
    #[must_use]
    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        match self.0.get(index) {
            Some(word) => word.load(),
            None => 0,
        }
    }
}

const _: () = assert!(size_of::<Control>() == 64);

/// Words of [`Control`].
pub mod word {
    /// [`crate::image::Active`]: the generation in force.
    pub const ACTIVE: usize = 0;
    /// [`super::Timed`]: a [`super::panic`] kind and when it ends.
    pub const PANIC: usize = 1;
    /// [`super::Timed`]: kind 1 while mid-flow packets without a known conversation pass and are counted.
    pub const GRACE: usize = 2;
    /// Number of lines of the pinhole table that may hold one.
    pub const PINHOLES: usize = 3;
    /// [`super::Pinhole::shade`] of every pinhole, or-ed: a packet whose own bit is not set has none.
    pub const SHADE: usize = 4;
}

/// Kinds of panic, for [`word::PANIC`].
pub mod panic {
    /// None: the policy holds.
    pub const NONE: u8 = 0;
    /// Only failsafe rows hold, in both directions; what the link needs goes on.
    pub const ISOLATE: u8 = 1;
    /// Nothing is dropped; everything is counted as the policy would have judged it.
    pub const OPEN: u8 = 2;
}

/// A kind, and the tick at which it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed(pub u64);

impl Timed {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Of a kind, until `deadline` (in ticks; 0 = without an end).
    #[must_use]
    pub const fn until(kind: u8, deadline: u32) -> Self {
        Self(kind as u64 | (deadline as u64) << 32)
    }

    /// The deadline in ticks; 0 = none.
    #[must_use]
    pub const fn deadline(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The kind as written, whether or not its time is up.
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.0 as u8
    }

    /// The kind that holds at `now`; 0 when none does, or none any more.
    #[must_use]
    #[inline(always)]
    pub const fn holds(self, now: u32) -> u8 {
        if over(self.deadline(), now) { 0 } else { self.kind() }
    }
}

/// Whether a deadline (0 = none) has passed at `now`. Ticks wrap; a deadline lies less than 2^31 away.
#[must_use]
#[inline(always)]
pub const fn over(deadline: u32, now: u32) -> bool {
    deadline != 0 && now.wrapping_sub(deadline) < 1 << 31
}

/// A way through that holds in every generation: a failsafe row, or a timed exception. One line of
/// the pinhole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Pinhole {
    /// First words of the peer's prefix, masked.
    pub peer: Address,
    /// The prefix as a mask.
    pub mask: Address,
    /// First service port in the low half, last one in the high half; both the protocol's number
    /// where there are no ports.
    pub ports: u32,
    /// First client port in the low half, last one in the high half.
    pub client_ports: u32,
    /// The tick at which it ends; 0 = never.
    pub expires: u32,
    /// Counter slot.
    pub row: u16,
    /// Upper protocol.
    pub protocol: u8,
    /// [`Family`] as a number, with [`Pinhole::OUTBOUND`], [`Pinhole::EXCEPTION`]; 0 = the line is free.
    /// Written last and cleared first.
    pub marks: u8,
    /// Zero.
    pub reserved: [u32; 4],
}

const _: () = assert!(size_of::<Pinhole>() == 64);

#[cfg(feature = "user")]
// SAFETY: integers and arrays of them, 16 + 16 + 3 * 4 + 4 + 16 bytes: no padding (asserted above).
unsafe impl aya::Pod for Pinhole {}

impl Pinhole {
    /// A free line.
    pub const FREE: Self = Self {
        peer: [0; 4],
        mask: [0; 4],
        ports: 0,
        client_ports: 0,
        expires: 0,
        row: 0,
        protocol: 0,
        marks: 0,
        reserved: [0; 4],
    };
    /// Mark: this host opens.
    pub const OUTBOUND: u8 = 1 << 4;
    /// Mark: a timed exception; without it a failsafe row.
    pub const EXCEPTION: u8 = 1 << 5;

    /// The bit of a service port in the shade.
    #[must_use]
    #[inline(always)]
    pub const fn shade_of(protocol: u8, port: u16) -> u64 {
        1 << ((port as u32 ^ port as u32 >> 6 ^ protocol as u32) & 63)
    }

    /// The bits of all its service ports.
    #[must_use]
    pub const fn shade(&self) -> u64 {
        let (first, last) = (self.ports & 0xffff, self.ports >> 16);
        let mut bits = 0;
        let mut port = first;
        while port <= last && bits != u64::MAX {
            bits |= Self::shade_of(self.protocol, port as u16);
            port += 1;
        }
        bits
    }

    /// Whether it lets this peer, opened in this direction, use this service at `now`.
    #[must_use]
    #[inline(always)]
    pub const fn admits(
        &self,
        family: Family,
        peer: &Address,
        asked: &crate::image::Tuple,
        now: u32,
    ) -> bool {
        let (port, client) = (asked.port as u32, asked.client_port as u32);
        let direction = if self.marks & Self::OUTBOUND == 0 { 0 } else { 1 };
        self.marks & 0xf == family as u8
            && direction == asked.direction as u8
            && self.protocol == asked.protocol
            && port >= self.ports & 0xffff
            && port <= self.ports >> 16
            && client >= self.client_ports & 0xffff
            && client <= self.client_ports >> 16
            && peer[0] & self.mask[0] == self.peer[0]
            && peer[1] & self.mask[1] == self.peer[1]
            && peer[2] & self.mask[2] == self.peer[2]
            && peer[3] & self.mask[3] == self.peer[3]
            && !over(self.expires, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, image::Tuple, protocol::TCP};

    const fn range(first: u16, last: u16) -> u32 {
        first as u32 | (last as u32) << 16
    }

    #[test]
    fn a_timed_kind_ends_at_its_deadline_even_across_the_wrap() {
        let panic = Timed::until(panic::ISOLATE, 5);
        assert_eq!(panic.holds(4), panic::ISOLATE);
        assert_eq!(panic.holds(5), panic::NONE);
        assert_eq!(panic.holds(u32::MAX), panic::ISOLATE, "the counter has not wrapped yet");
        assert_eq!(Timed::until(panic::OPEN, 0).holds(u32::MAX), panic::OPEN, "0 is no deadline");
        assert_eq!(Timed::NONE.holds(7), panic::NONE);
    }

    #[test]
    fn a_pinhole_admits_its_own_tuples_until_it_expires() {
        let pinhole = Pinhole {
            peer: [0x0a09_0000, 0, 0, 0],
            mask: [0xffff_ff00, u32::MAX, u32::MAX, u32::MAX],
            ports: range(22, 23),
            client_ports: range(1_024, 65_535),
            expires: 100,
            protocol: TCP,
            marks: Family::V4 as u8 | Pinhole::EXCEPTION,
            ..Pinhole::FREE
        };
        let asked = Tuple { direction: Direction::Inbound, protocol: TCP, port: 23, client_port: 1_024 };
        let peer = [0x0a09_0007, 0, 0, 0];
        assert!(pinhole.admits(Family::V4, &peer, &asked, 99));
        assert!(!pinhole.admits(Family::V4, &peer, &asked, 100), "expired");
        assert!(!pinhole.admits(Family::V4, &[0x0a09_0107, 0, 0, 0], &asked, 99), "another prefix");
        assert!(!pinhole.admits(Family::V6, &peer, &asked, 99), "another family");
        for odd in [
            Tuple { port: 24, ..asked },
            Tuple { port: 21, ..asked },
            Tuple { client_port: 1_023, ..asked },
            Tuple { direction: Direction::Outbound, ..asked },
            Tuple { protocol: 17, ..asked },
        ] {
            assert!(!pinhole.admits(Family::V4, &peer, &odd, 99), "{odd:?}");
        }
        assert!(!Pinhole::FREE.admits(Family::V4, &[0; 4], &Tuple { protocol: 0, ..asked }, 0));
    }

    #[test]
    fn the_shade_has_the_bit_of_every_port() {
        let pinhole = Pinhole { ports: range(9_990, 10_001), protocol: TCP, ..Pinhole::FREE };
        for port in 9_990..=10_001 {
            assert_ne!(pinhole.shade() & Pinhole::shade_of(TCP, port), 0, "{port}");
        }
        let all = Pinhole { ports: range(0, 65_535), protocol: TCP, ..Pinhole::FREE };
        assert_eq!(all.shade(), u64::MAX);
    }
}
