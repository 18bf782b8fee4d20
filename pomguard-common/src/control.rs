//! State that holds in addition to the generations: the generation in force, the suspension of the policy,
//! the grace period after a first start, and the overrides. Overrides are failsafe rows, which belong to a
//! generation, and timed exceptions, which hold in all.
//!
//! Each item is one aligned 64-bit word of [`Control`], or one line of a small table, so that a packet sees
//! either the old state or the new one. Every deadline is in ticks. The programs themselves check the
//! deadlines, so they take effect even without a running daemon.

use crate::{
    barrier::Barrier,
    flow::{hide, less},
    limits,
    net::{Address, Family, Tuple},
    served::Served,
    word::Word,
};

/// The value of the control map. User space writes single words, and the programs read them.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Control(pub [Word; Control::WORDS]);

impl Control {
    /// Words of both cache lines. The second line is for words that few packets need.
    pub const WORDS: usize = 16;

    /// Returns the word at `index`, one of [`word`], or 0 beyond the end.
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
    /// [`super::Timed`]: the kind of suspension ([`super::suspension`]) and its end.
    pub const SUSPENSION: usize = 1;
    /// [`super::Timed`]: kind 1 while mid-flow packets without a known flow pass and are counted.
    pub const GRACE: usize = 2;
    /// Number of lines of the override table that may be in use.
    pub const OVERRIDES: usize = 3;
    /// [`super::Override::port_bloom`] of every override, or-ed: a packet whose own bit is not set matches no
    /// override.
    pub const PORT_BLOOM: usize = 4;
    /// [`super::Timed`]: kind 1 while [`crate::image::Class::HELD`] is up to date. The daemon keeps extending
    /// the deadline.
    pub const HOLDERS: usize = 5;
    /// The first of [`GENERIC_WORDS`] words. Each is [`super::generic`] of an interface whose XDP mode is
    /// generic, or 0.
    pub const GENERIC: usize = 8;
    /// Number of words for interfaces in generic mode. Further interfaces count as native.
    pub const GENERIC_WORDS: usize = 8;
}

/// Returns the word of an interface in generic mode.
#[must_use]
#[inline(always)]
pub const fn generic(interface: u32) -> u64 {
    1 << 32 | interface as u64
}

/// Bits of the note about a packet, which goes with the decision to the table of drops.
pub mod peer_note {
    /// The peer is a known system.
    pub const KNOWN: u64 = 1;
    /// The packet was read up to its addresses.
    pub const READ: u64 = 2;
}

/// Kinds of suspension of the policy, for [`word::SUSPENSION`].
pub mod suspension {
    /// No suspension: the policy holds.
    pub const NONE: u8 = 0;
    /// Lockdown: only failsafe rows hold, in both directions; the protocols that the link needs still pass.
    pub const LOCKDOWN: u8 = 1;
    /// Bypass: nothing is dropped; everything is counted as the policy would have judged it.
    pub const BYPASS: u8 = 2;
}

/// A kind, and the tick of the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed(pub u64);

impl Timed {
    /// The value for "nothing holds".
    pub const NONE: Self = Self(0);

    /// Returns the value for a kind that holds until `deadline` (in ticks; 0 = no deadline).
    #[must_use]
    pub const fn until(kind: u8, deadline: u32) -> Self {
        Self(kind as u64 | (deadline as u64) << 32)
    }

    /// Returns the deadline in ticks; 0 = none.
    #[must_use]
    pub const fn deadline(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the kind as written, even if the deadline has passed.
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.0 as u8
    }

    /// Returns the kind that holds at `now`, or 0 if none does.
    #[must_use]
    #[inline(always)]
    pub const fn holds(self, now: u32) -> u8 {
        if over(self.deadline(), now) { 0 } else { self.kind() }
    }
}

/// Returns true if a deadline (0 = none) has passed at `now`. Ticks wrap; a deadline lies less than 2^31
/// ticks away.
#[must_use]
#[inline(always)]
pub const fn over(deadline: u32, now: u32) -> bool {
    deadline != 0 && now.wrapping_sub(deadline) < 1 << 31
}

/// A failsafe row or a timed exception: one line of the override table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Override {
    /// The peer's prefix, masked.
    pub peer: Address,
    /// The mask of the prefix.
    pub mask: Address,
    /// First service port in the low half, last one in the high half. For a protocol without ports, both are
    /// the protocol's number.
    pub ports: u32,
    /// First client port in the low half, last one in the high half.
    pub client_ports: u32,
    /// The tick at which the override ends; 0 = never.
    pub expires: u32,
    /// Counter slot.
    pub row: u16,
    /// Upper protocol.
    pub protocol: u8,
    /// [`Family`] as a number, with [`Override::OUTBOUND`], [`Override::EXCEPTION`]; 0 = the line is free.
    /// Written last and cleared first.
    pub marks: u8,
    /// Generation slots for which the line holds, one bit each. A packet looks only at lines with the bit of
    /// the slot that judges it, so the word that switches the policy also switches the failsafe rows.
    pub slots: u32,
    /// Always 0.
    pub reserved: [u32; 3],
}

const _: () = assert!(size_of::<Override>() == 64);

#[cfg(feature = "user")]
// SAFETY: integers and arrays of them, 16 + 16 + 3 * 4 + 4 + 4 + 12 bytes: no padding (asserted above).
unsafe impl aya::Pod for Override {}

impl Override {
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
        slots: 0,
        reserved: [0; 3],
    };
    /// Mark: this host opens the connection.
    pub const OUTBOUND: u8 = 1 << 4;
    /// Mark: a timed exception. A line without this mark is a failsafe row.
    pub const EXCEPTION: u8 = 1 << 5;
    /// The bits of all generation slots, see [`Override::slots`].
    pub const EVERY_SLOT: u32 = (1 << limits::GENERATIONS) - 1;

    /// Returns the bit of a generation slot, see [`Override::slots`].
    #[must_use]
    #[inline(always)]
    pub const fn slot_bit(slot: u32) -> u32 {
        1_u32.wrapping_shl(slot)
    }

    /// Returns the bit of a service port in the port bloom.
    #[must_use]
    #[inline(always)]
    pub const fn port_bloom_bit(protocol: u8, port: u16) -> u64 {
        1 << ((port as u32 ^ port as u32 >> 6 ^ protocol as u32) & 63)
    }

    /// Returns the port-bloom bits of all service ports of the line.
    #[must_use]
    pub const fn port_bloom(&self) -> u64 {
        let (first, last) = (self.ports & 0xffff, self.ports >> 16);
        let mut bits = 0;
        let mut port = first;
        while port <= last && bits != u64::MAX {
            bits |= Self::port_bloom_bit(self.protocol, port as u16);
            port += 1;
        }
        bits
    }

    /// Returns true if the prefix of the line covers the peer. Does not check the address family.
    #[inline(always)]
    fn covers(&self, peer: [u64; 2]) -> bool {
        let (own, mask) = (halves(&self.peer), halves(&self.mask));
        hide(peer[0] & mask[0] ^ own[0] | peer[1] & mask[1] ^ own[1]) == 0
    }

    /// Returns true if the line holds at `now` and allows the tuple of the query. A single branch: the
    /// verifier would explore the rest of the table once for each.
    #[inline(always)]
    fn answers(&self, query: OverrideQuery, now: u32) -> bool {
        let Self { ports, client_ports, .. } = *self;
        let part = |value: u32| u64::from(value & 0xffff);
        // An exception does not match a query for failsafe rows alone.
        let both = query.0 & OverrideQuery::FAILSAFE_ONLY ^ OverrideQuery::FAILSAFE_ONLY;
        let ignored = both / OverrideQuery::FAILSAFE_ONLY * u64::from(Self::EXCEPTION);
        let kind = u64::from(self.protocol) << OverrideQuery::PROTOCOL_SHIFT
            | (u64::from(self.marks) & !ignored) << OverrideQuery::MARKS_SHIFT;
        let other_kind = (kind ^ query.0) >> OverrideQuery::PROTOCOL_SHIFT;
        let slots = u64::from(self.slots & Self::EVERY_SLOT) << OverrideQuery::SLOTS_SHIFT & query.0;
        let (port, client) = (part(query.0 as u32), part((query.0 >> OverrideQuery::CLIENT_SHIFT) as u32));
        // See `over`.
        let ended = less(0, self.expires.into()) & less(u64::from(now.wrapping_sub(self.expires)), 1 << 31);
        let outside = less(port, part(ports))
            | less(part(ports >> 16), port)
            | less(client, part(client_ports))
            | less(part(client_ports >> 16), client);
        !(less(0, other_kind) | outside | ended) & less(0, slots) & less(0, self.marks.into()) != 0
    }

    #[inline(always)]
    const fn matched(&self) -> Match {
        let exception = (self.marks & Self::EXCEPTION) as u32 * (Match::EXCEPTION / Self::EXCEPTION as u32);
        Match(self.row as u32 | Match::SOME | exception)
    }
}

/// Returns an address in two words, high and low: the stack of the programs is small.
#[must_use]
#[inline(always)]
pub const fn halves(address: &Address) -> [u64; 2] {
    [(address[0] as u64) << 32 | address[1] as u64, (address[2] as u64) << 32 | address[3] as u64]
}

/// Access of the programs to the state that holds in addition to the generations. By default, no such state
/// holds.
pub trait ControlView {
    /// Returns a word of [`Control`], one of [`word`].
    #[inline(always)]
    fn control(&self, index: usize) -> u64 {
        let _ = index;
        0
    }

    /// Returns the word that counts the packets of a [`crate::rate::Rated`] on this processor.
    #[inline(always)]
    fn spent(&self, rated: u32) -> Option<&Word> {
        let _ = rated;
        None
    }

    /// Returns a line of the override table, or `None` beyond the end.
    #[inline(always)]
    fn override_rule(&self, index: u32) -> Option<&Override> {
        let _ = index;
        None
    }

    /// Calls [`search_lines`]. In the programs, a separate function that the verifier checks once.
    #[inline(always)]
    fn matching_override(&self, peer: &Address, query: u64, now: u32) -> u32 {
        search_lines(self, halves(peer), query, now)
    }

    /// Returns 1 for a self-test, 0 for a packet of the network. A self-test is not rate-limited, counts
    /// under no row and changes no flow. The result is a number, because the verifier would explore the code
    /// after a branch twice.
    #[inline(always)]
    fn self_test(&self) -> u64 {
        0
    }

    /// Returns the [`Override::slot_bit`] of the generation that judges the packet, or 0 where no override
    /// holds.
    #[inline(always)]
    fn slot_bit(&self) -> u64 {
        0
    }

    /// Keeps a note about the packet until the decision, for the table of drops: bits of [`peer_note`].
    #[inline(always)]
    fn note_peer(&self, note: u64) {
        let _ = note;
    }

    /// Returns the note about the packet, or 0 if there is none.
    #[inline(always)]
    fn noted_peer(&self) -> u64 {
        0
    }

    /// Returns the times at which a local port served, or `None` beyond the end of the table.
    #[inline(always)]
    fn served(&self, index: u32) -> Option<&Served> {
        let _ = index;
        None
    }
}

/// A query to the overrides, in one word: a function of the programs takes few arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverrideQuery(u64);

impl OverrideQuery {
    /// The query that matches no override.
    pub const NOTHING: Self = Self(0);
    const CLIENT_SHIFT: u32 = 16;
    const FAILSAFE_ONLY: u64 = 1 << 32;
    const SLOTS_SHIFT: u32 = 33;
    const PROTOCOL_SHIFT: u32 = 48;
    const MARKS_SHIFT: u32 = 56;

    /// Returns the query for an override that allows this tuple to a peer of this family. With
    /// `failsafe_only`, only failsafe rows match. `slot_bit` is from [`ControlView`].
    #[must_use]
    #[inline(always)]
    pub const fn new(family: Family, tuple: &Tuple, failsafe_only: bool, slot_bit: u64) -> Self {
        let Tuple { direction, protocol, port, client_port } = *tuple;
        let marks = family as u64 | (direction as u64 * Override::OUTBOUND as u64);
        Self(
            port as u64
                | (client_port as u64) << Self::CLIENT_SHIFT
                | (failsafe_only as u64 * Self::FAILSAFE_ONLY)
                | slot_bit << Self::SLOTS_SHIFT
                | (protocol as u64) << Self::PROTOCOL_SHIFT
                | marks << Self::MARKS_SHIFT,
        )
    }

    /// Returns the query, or [`Self::NOTHING`] if the port bloom rules out a match.
    #[must_use]
    #[inline(always)]
    pub const fn filtered(self, port_bloom: u64) -> Self {
        let bit = Override::port_bloom_bit((self.0 >> Self::PROTOCOL_SHIFT) as u8, self.0 as u16);
        if port_bloom & bit == 0 { Self::NOTHING } else { self }
    }
}

/// The override that matches a query, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match(u32);

impl Match {
    const SOME: u32 = 1 << 16;
    const EXCEPTION: u32 = 1 << 17;

    /// Returns true if an override matches.
    #[must_use]
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Returns true if the override is a timed exception.
    #[must_use]
    #[inline(always)]
    pub const fn is_exception(self) -> bool {
        self.0 & Self::EXCEPTION != 0
    }

    /// Returns the counter slot of the override.
    #[must_use]
    #[inline(always)]
    pub const fn row(self) -> u16 {
        self.0 as u16
    }
}

/// The results of two queries about one peer, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matches(pub u64);

impl Matches {
    /// Returns the result of the first query.
    #[must_use]
    #[inline(always)]
    pub const fn first(self) -> Match {
        Match(self.0 as u32)
    }

    /// Returns the result of the second query.
    #[must_use]
    #[inline(always)]
    pub const fn second(self) -> Match {
        Match((self.0 >> 32) as u32)
    }
}

/// Looks up the overrides that match two queries about one peer.
#[inline(always)]
pub fn search<S: ControlView + Barrier + ?Sized>(
    view: &S,
    peer: &Address,
    [one, two]: [OverrideQuery; 2],
    now: u32,
) -> Matches {
    let find = |query: OverrideQuery| {
        // The barrier hides how the query was made, so that the verifier explores the look-up only once.
        let query = view.barrier(query.0);
        u64::from(if query == 0 { 0 } else { view.matching_override(peer, query, now) })
    };
    Matches(find(one) | find(two) << 32)
}

/// Walks the override table for a query about a peer, whose address is given in two words, high and low. The
/// word of the query is that of an [`OverrideQuery`]; the result is a [`Match`]. The first line wins.
#[inline(always)]
pub fn search_lines<S: ControlView + ?Sized>(view: &S, peer: [u64; 2], query: u64, now: u32) -> u32 {
    let lines = view.control(word::OVERRIDES);
    let mut at = 0;
    while at < limits::OVERRIDES as u32 && u64::from(at) < lines {
        let Some(line) = view.override_rule(at) else { break };
        if line.covers(peer) && line.answers(OverrideQuery(query), now) {
            return line.matched().0;
        }
        at += 1;
    }
    0
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
        let lockdown = Timed::until(suspension::LOCKDOWN, 5);
        assert_eq!(lockdown.holds(4), suspension::LOCKDOWN);
        assert_eq!(lockdown.holds(5), suspension::NONE);
        assert_eq!(lockdown.holds(u32::MAX), suspension::LOCKDOWN, "the counter has not wrapped yet");
        assert_eq!(
            Timed::until(suspension::BYPASS, 0).holds(u32::MAX),
            suspension::BYPASS,
            "0 is no deadline"
        );
        assert_eq!(Timed::NONE.holds(7), suspension::NONE);
    }

    /// A control value and overrides.
    struct Given<'a>(Control, &'a [Override]);

    impl Barrier for Given<'_> {}

    impl ControlView for Given<'_> {
        fn control(&self, index: usize) -> u64 {
            self.0.word(index)
        }

        fn override_rule(&self, index: u32) -> Option<&Override> {
            self.1.get(index as usize)
        }
    }

    fn given(overrides: &[Override]) -> Given<'_> {
        let control = Control::default();
        control.0[word::OVERRIDES].store(overrides.len() as u64);
        control.0[word::PORT_BLOOM]
            .store(overrides.iter().fold(0, |port_bloom, line| port_bloom | line.port_bloom()));
        Given(control, overrides)
    }

    const LINE: Override = Override {
        peer: [0x0a09_0000, 0, 0, 0],
        mask: [0xffff_ff00, u32::MAX, u32::MAX, u32::MAX],
        ports: range(22, 23),
        client_ports: range(1_024, 65_535),
        expires: 100,
        row: 7,
        protocol: TCP,
        marks: Family::V4 as u8 | Override::EXCEPTION,
        slots: Override::EVERY_SLOT,
        ..Override::FREE
    };
    /// Bit of the generation that the queries are about.
    const SLOT_BIT: u64 = Override::slot_bit(2) as u64;
    const QUERY: Tuple = Tuple { direction: Direction::Inbound, protocol: TCP, port: 23, client_port: 1_024 };
    const PEER: Address = [0x0a09_0007, 0, 0, 0];

    fn matched(
        overrides: &[Override],
        family: Family,
        peer: &Address,
        query: Tuple,
        now: u32,
    ) -> Option<u16> {
        let query = OverrideQuery::new(family, &query, false, SLOT_BIT);
        let matches = search(&given(overrides), peer, [OverrideQuery::NOTHING, query], now);
        assert!(!matches.first().is_some(), "what was not asked is not answered");
        matches.second().is_some().then(|| matches.second().row())
    }

    #[test]
    fn override_admits_its_own_tuples_until_it_expires() {
        let line = &[Override::FREE, LINE];
        assert_eq!(matched(line, Family::V4, &PEER, QUERY, 99), Some(7));
        assert_eq!(matched(line, Family::V4, &PEER, QUERY, 100), None, "expired");
        assert_eq!(matched(line, Family::V4, &[0x0a09_0107, 0, 0, 0], QUERY, 99), None, "another prefix");
        assert_eq!(matched(line, Family::V6, &PEER, QUERY, 99), None, "another family");
        for odd in [
            Tuple { port: 24, ..QUERY },
            Tuple { port: 21, ..QUERY },
            Tuple { client_port: 1_023, ..QUERY },
            Tuple { direction: Direction::Outbound, ..QUERY },
            Tuple { protocol: 17, ..QUERY },
        ] {
            assert_eq!(matched(line, Family::V4, &PEER, odd, 99), None, "{odd:?}");
        }
        let none = Tuple { protocol: 0, ..QUERY };
        assert_eq!(matched(&[Override::FREE], Family::V4, &[0; 4], none, 0), None, "a free line");
    }

    #[test]
    fn line_of_another_generation_does_not_answer() {
        for slot in 0..limits::GENERATIONS as u32 {
            let line = Override { slots: Override::slot_bit(slot), ..LINE };
            let expected = (slot == 2).then_some(7);
            assert_eq!(matched(&[line], Family::V4, &PEER, QUERY, 99), expected, "slot {slot}");
            let others = Override { slots: Override::EVERY_SLOT & !Override::slot_bit(slot), ..LINE };
            let expected = (slot != 2).then_some(7);
            assert_eq!(matched(&[others], Family::V4, &PEER, QUERY, 99), expected, "all slots but {slot}");
        }
        let stray = Override { slots: !Override::EVERY_SLOT, ..LINE };
        assert_eq!(matched(&[stray], Family::V4, &PEER, QUERY, 99), None, "bits beyond the slots are none");
    }

    #[test]
    fn an_exception_does_not_answer_for_failsafe_tuples() {
        let only = OverrideQuery::new(Family::V4, &QUERY, true, SLOT_BIT);
        let both = OverrideQuery::new(Family::V4, &QUERY, false, SLOT_BIT);
        let failsafe = Override { marks: Family::V4 as u8, row: 9, ..LINE };
        let matches = search(&given(&[LINE]), &PEER, [only, both], 0);
        assert!(!matches.first().is_some());
        assert!(matches.second().is_exception() && matches.second().row() == 7);
        let matches = search(&given(&[LINE, failsafe]), &PEER, [only, both], 0);
        assert!(matches.first().is_some() && !matches.first().is_exception() && matches.first().row() == 9);
        assert_eq!(matches.second().row(), 7, "the first line wins");
    }

    #[test]
    fn query_outside_the_port_bloom_finds_no_override() {
        let query = OverrideQuery::new(Family::V4, &QUERY, false, SLOT_BIT);
        assert_eq!(query.filtered(LINE.port_bloom()), query);
        assert_eq!(query.filtered(!LINE.port_bloom()), OverrideQuery::NOTHING);
    }

    #[test]
    fn port_bloom_has_the_bit_of_every_port() {
        let override_rule = Override { ports: range(9_990, 10_001), protocol: TCP, ..Override::FREE };
        for port in 9_990..=10_001 {
            assert_ne!(override_rule.port_bloom() & Override::port_bloom_bit(TCP, port), 0, "{port}");
        }
        let all = Override { ports: range(0, 65_535), protocol: TCP, ..Override::FREE };
        assert_eq!(all.port_bloom(), u64::MAX);
    }
}
