//! What holds beside the generations: which one is in force, panic, the grace period after a first
//! start, and the pinholes (failsafe rows and timed exceptions), which hold in every generation.
//!
//! Each is one aligned 64-bit word of one cache line, [`Control`], or one line of a small table, so
//! that a packet sees the old state or the new one. Every deadline is in ticks and is judged by the
//! programs themselves: it passes whether or not a daemon lives.

use crate::{
    flow::Word,
    image::{Address, Family, Forget, Tuple},
    limits,
    serve::Served,
};

/// The value of the control map. User space writes single words of it, the programs read them.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Control(pub [Word; Control::WORDS]);

impl Control {
    /// Words of both lines. The second one is for what few packets ask.
    pub const WORDS: usize = 16;

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

const _: () = assert!(size_of::<Control>() == 128);

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
    /// The first of [`GENERIC_WORDS`] words, each [`super::generic`] of an interface whose XDP mode is generic, or 0.
    pub const GENERIC: usize = 8;
    /// Number of those words. Interfaces beyond it count as native.
    pub const GENERIC_WORDS: usize = 8;
}

/// The word of an interface in generic mode.
#[must_use]
#[inline(always)]
pub const fn generic(interface: u32) -> u64 {
    1 << 32 | interface as u64
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

    /// Whether it is none that is free, and the peer lies in its prefix, of whatever family.
    #[inline(always)]
    const fn is_for(&self, peer: [u64; 2]) -> bool {
        let (own, mask) = (halves(&self.peer), halves(&self.mask));
        self.marks != 0 && peer[0] & mask[0] == own[0] && peer[1] & mask[1] == own[1]
    }

    /// Whether it is about the tuple.
    #[inline(always)]
    const fn answers(&self, asked: Asked) -> bool {
        // An exception does not match a question for failsafe tuples alone.
        let mark = if asked.0 & Asked::FAILSAFE_ONLY == 0 { Self::EXCEPTION } else { 0 };
        let kind = (self.protocol as u64) << Asked::PROTOCOL_SHIFT
            | ((self.marks & !mark) as u64) << Asked::MARKS_SHIFT;
        if kind ^ asked.0 >> Asked::PROTOCOL_SHIFT << Asked::PROTOCOL_SHIFT != 0 {
            return false;
        }
        let (port, client) = (asked.0 as u32 & 0xffff, (asked.0 >> Asked::CLIENT_SHIFT) as u32 & 0xffff);
        port >= self.ports & 0xffff
            && port <= self.ports >> 16
            && client >= self.client_ports & 0xffff
            && client <= self.client_ports >> 16
    }

    #[inline(always)]
    const fn hit(&self) -> Hit {
        let exception = if self.marks & Self::EXCEPTION == 0 { 0 } else { Hit::EXCEPTION };
        Hit(self.row as u32 | Hit::SOME | exception)
    }
}

/// An address in two words: the stack of the programs is short.
#[inline(always)]
const fn halves(address: &Address) -> [u64; 2] {
    [(address[0] as u64) << 32 | address[1] as u64, (address[2] as u64) << 32 | address[3] as u64]
}

/// Where the programs read what holds beside the generations. On the host nothing does, unless it is given.
pub trait Standing {
    /// A word of [`Control`], one of [`word`].
    #[inline(always)]
    fn control(&self, index: usize) -> u64 {
        let _ = index;
        0
    }

    /// Where the packets of a [`crate::rate::Rated`] are counted, a word for each processor.
    #[inline(always)]
    fn spent(&self, rated: u32) -> Option<&Word> {
        let _ = rated;
        None
    }

    /// A line of the pinhole table; none beyond its end.
    #[inline(always)]
    fn pinhole(&self, index: u32) -> Option<&Pinhole> {
        let _ = index;
        None
    }

    /// 1 for a self-test, 0 for a packet of the network. A self-test meets no rate, is counted under no row and
    /// changes no flow. A number, because the verifier would walk what follows a branch twice.
    #[inline(always)]
    fn self_test(&self) -> u64 {
        0
    }

    /// When a local port served; `None` beyond the end of the table.
    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        let _ = index;
        None
    }
}

/// What the pinholes are asked, in one word: a function of the programs takes few arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(u64);

impl Asked {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    const CLIENT_SHIFT: u32 = 16;
    const FAILSAFE_ONLY: u64 = 1 << 32;
    const PROTOCOL_SHIFT: u32 = 48;
    const MARKS_SHIFT: u32 = 56;

    /// May a peer of this family have this tuple; and do only failsafe tuples count?
    #[must_use]
    #[inline(always)]
    pub const fn new(family: Family, tuple: &Tuple, failsafe_only: bool) -> Self {
        let Tuple { direction, protocol, port, client_port } = *tuple;
        let marks = family as u64 | (direction as u64 * Pinhole::OUTBOUND as u64);
        Self(
            port as u64
                | (client_port as u64) << Self::CLIENT_SHIFT
                | (failsafe_only as u64 * Self::FAILSAFE_ONLY)
                | (protocol as u64) << Self::PROTOCOL_SHIFT
                | marks << Self::MARKS_SHIFT,
        )
    }

    /// The question, or nothing when the shade rules out that any pinhole is about it.
    #[must_use]
    #[inline(always)]
    pub const fn shaded(self, shade: u64) -> Self {
        let bit = Pinhole::shade_of((self.0 >> Self::PROTOCOL_SHIFT) as u8, self.0 as u16);
        if shade & bit == 0 { Self::NOTHING } else { self }
    }
}

/// A pinhole that was found, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit(u32);

impl Hit {
    const SOME: u32 = 1 << 16;
    const EXCEPTION: u32 = 1 << 17;

    /// Whether there is one.
    #[must_use]
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Whether it is a timed exception.
    #[must_use]
    #[inline(always)]
    pub const fn is_exception(self) -> bool {
        self.0 & Self::EXCEPTION != 0
    }

    /// Its counter slot.
    #[must_use]
    #[inline(always)]
    pub const fn row(self) -> u16 {
        self.0 as u16
    }
}

/// Two answers about one peer, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hits(pub u64);

impl Hits {
    /// The answer to the first question.
    #[must_use]
    #[inline(always)]
    pub const fn first(self) -> Hit {
        Hit(self.0 as u32)
    }

    /// The answer to the second.
    #[must_use]
    #[inline(always)]
    pub const fn second(self) -> Hit {
        Hit((self.0 >> 32) as u32)
    }
}

/// What the pinholes answer to two questions about one peer.
#[inline(always)]
pub fn search<S: Standing + Forget + ?Sized>(
    standing: &S,
    peer: &Address,
    [one, two]: [Asked; 2],
    now: u32,
) -> Hits {
    // Of the ways to the questions the verifier need not know: the table is walked once for all.
    let (one, two) = (standing.forget(one.0), standing.forget(two.0));
    Hits(if one | two == 0 { 0 } else { search_lines(standing, peer, one, two, now) })
}

/// A function of its own in the programs.
#[inline(never)]
fn search_lines<S: Standing + Forget + ?Sized>(
    standing: &S,
    peer: &Address,
    one: u64,
    two: u64,
    now: u32,
) -> u64 {
    let lines = standing.control(word::PINHOLES);
    let peer = halves(peer);
    let mut found = standing.forget(0);
    let mut at = 0;
    while at < limits::PINHOLES as u32 && u64::from(at) < lines {
        let Some(line) = standing.pinhole(at) else { break };
        if line.is_for(peer) && !over(line.expires, now) {
            let hit = u64::from(line.hit().0);
            if found as u32 == 0 && line.answers(Asked(one)) {
                found |= hit;
            }
            if found >> 32 == 0 && line.answers(Asked(two)) {
                found |= hit << 32;
            }
            found = standing.forget(found);
        }
        at += 1;
    }
    standing.forget(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, protocol::TCP};

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

    /// A control line and pinholes.
    struct Given<'a>(Control, &'a [Pinhole]);

    impl Forget for Given<'_> {}

    impl Standing for Given<'_> {
        fn control(&self, index: usize) -> u64 {
            self.0.word(index)
        }

        fn pinhole(&self, index: u32) -> Option<&Pinhole> {
            self.1.get(index as usize)
        }
    }

    fn given(pinholes: &[Pinhole]) -> Given<'_> {
        let control = Control::default();
        control.0[word::PINHOLES].store(pinholes.len() as u64);
        control.0[word::SHADE].store(pinholes.iter().fold(0, |shade, line| shade | line.shade()));
        Given(control, pinholes)
    }

    const LINE: Pinhole = Pinhole {
        peer: [0x0a09_0000, 0, 0, 0],
        mask: [0xffff_ff00, u32::MAX, u32::MAX, u32::MAX],
        ports: range(22, 23),
        client_ports: range(1_024, 65_535),
        expires: 100,
        row: 7,
        protocol: TCP,
        marks: Family::V4 as u8 | Pinhole::EXCEPTION,
        ..Pinhole::FREE
    };
    const ASKED: Tuple = Tuple { direction: Direction::Inbound, protocol: TCP, port: 23, client_port: 1_024 };
    const PEER: Address = [0x0a09_0007, 0, 0, 0];

    fn hit(pinholes: &[Pinhole], family: Family, peer: &Address, asked: Tuple, now: u32) -> Option<u16> {
        let asked = Asked::new(family, &asked, false);
        let hits = search(&given(pinholes), peer, [Asked::NOTHING, asked], now);
        assert!(!hits.first().is_some(), "what was not asked is not answered");
        hits.second().is_some().then(|| hits.second().row())
    }

    #[test]
    fn a_pinhole_admits_its_own_tuples_until_it_expires() {
        let line = &[Pinhole::FREE, LINE];
        assert_eq!(hit(line, Family::V4, &PEER, ASKED, 99), Some(7));
        assert_eq!(hit(line, Family::V4, &PEER, ASKED, 100), None, "expired");
        assert_eq!(hit(line, Family::V4, &[0x0a09_0107, 0, 0, 0], ASKED, 99), None, "another prefix");
        assert_eq!(hit(line, Family::V6, &PEER, ASKED, 99), None, "another family");
        for odd in [
            Tuple { port: 24, ..ASKED },
            Tuple { port: 21, ..ASKED },
            Tuple { client_port: 1_023, ..ASKED },
            Tuple { direction: Direction::Outbound, ..ASKED },
            Tuple { protocol: 17, ..ASKED },
        ] {
            assert_eq!(hit(line, Family::V4, &PEER, odd, 99), None, "{odd:?}");
        }
        let none = Tuple { protocol: 0, ..ASKED };
        assert_eq!(hit(&[Pinhole::FREE], Family::V4, &[0; 4], none, 0), None, "a free line");
    }

    #[test]
    fn an_exception_does_not_answer_for_failsafe_tuples() {
        let only = Asked::new(Family::V4, &ASKED, true);
        let both = Asked::new(Family::V4, &ASKED, false);
        let failsafe = Pinhole { marks: Family::V4 as u8, row: 9, ..LINE };
        let hits = search(&given(&[LINE]), &PEER, [only, both], 0);
        assert!(!hits.first().is_some());
        assert!(hits.second().is_exception() && hits.second().row() == 7);
        let hits = search(&given(&[LINE, failsafe]), &PEER, [only, both], 0);
        assert!(hits.first().is_some() && !hits.first().is_exception() && hits.first().row() == 9);
        assert_eq!(hits.second().row(), 7, "the first line wins");
    }

    #[test]
    fn a_question_that_no_pinhole_is_about_ends_at_the_shade() {
        let asked = Asked::new(Family::V4, &ASKED, false);
        assert_eq!(asked.shaded(LINE.shade()), asked);
        assert_eq!(asked.shaded(!LINE.shade()), Asked::NOTHING);
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
