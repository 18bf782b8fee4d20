//! The decision on one packet, packed into one word.

use crate::{
    control::peer_note,
    flow::{Entered, State},
    image::RowMatch,
    reason::{Reason, Verdict},
};

/// The row number that means "no row".
pub const NO_ROW: u16 = u16::MAX;

/// The decision on one packet. The programs turn it into an action, and count it, at a single exit.
///
/// The decision is one word so that the programs can hide it from the verifier ([`crate::barrier::Barrier`]):
/// many paths lead to a decision, and the verifier must explore the code after it only once.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Decision(pub(super) u64);

impl Decision {
    pub(super) const REASON: u64 = 0xff;
    pub(super) const OPENS: u64 = 1 << 8;
    pub(super) const AUDITED: u64 = 1 << 9;
    pub(super) const ENTERED_SHIFT: u32 = 10;
    pub(super) const ENTERED: u64 = 3 << Self::ENTERED_SHIFT;
    pub(super) const STATE_SHIFT: u32 = 12;
    pub(super) const STATE: u64 = 7 << Self::STATE_SHIFT;
    pub(super) const FROM_SOCKET: u64 = 1 << 15;
    pub(super) const ROW_SHIFT: u32 = 16;
    /// Set on a drop if the site file gives the address of this host's end to no host or peer, so that
    /// overrides may let the packet pass. [`super::judge`] clears the bit.
    pub(super) const UNCLAIMED: u64 = 1 << 32;
    /// Position of the marks about the packet, of which each is a bit of [`peer_note`].
    const NOTE_SHIFT: u32 = 33;
    /// The special word for an ICMP error: the packet that the error quotes decides.
    pub(super) const QUOTES: u64 = u64::MAX;

    /// Returns the decision as a plain number, which is never 0.
    #[must_use]
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Returns the decision with this number from [`Self::word`], or `None` for 0.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word)) }
    }

    /// Returns the decision for a reason without a row.
    #[inline(always)]
    pub const fn because(reason: Reason) -> Self {
        Self(reason as u64 | (NO_ROW as u64) << Self::ROW_SHIFT)
    }

    /// Returns the decision for the reason with this number, without a row.
    #[inline(always)]
    pub(super) const fn numbered(reason: u8) -> Self {
        Self(reason as u64 | (NO_ROW as u64) << Self::ROW_SHIFT)
    }

    #[inline(always)]
    pub(super) const fn by_row(row_match: RowMatch) -> Self {
        let reason = if row_match.failsafe { Reason::Failsafe } else { Reason::Row };
        Self::because(reason).under(row_match.row)
    }

    #[inline(always)]
    pub(super) const fn under(self, row: u16) -> Self {
        Self(self.0 & !((NO_ROW as u64) << Self::ROW_SHIFT) | (row as u64) << Self::ROW_SHIFT)
    }

    #[inline(always)]
    pub(super) const fn opening(self, opens: bool) -> Self {
        if opens { Self(self.0 | Self::OPENS) } else { self }
    }

    /// Returns the decision with the state in which the flow is to be remembered.
    #[inline(always)]
    pub(super) const fn remembered_as(self, state: State) -> Self {
        Self(self.0 | (state as u64) << Self::STATE_SHIFT)
    }

    /// Returns the decision on a self-test (1), which enters no flow and counts under no row; for 0, returns
    /// the same decision.
    #[inline(always)]
    pub(super) const fn without_trace(self, self_test: u64) -> Self {
        let all = self_test.wrapping_neg();
        Self(self.0 & !(all & Self::STATE) | all & (NO_ROW as u64) << Self::ROW_SHIFT)
    }

    /// Returns the state in which the flow is to be remembered, or `State::Free` if no flow is to be
    /// remembered.
    #[inline(always)]
    pub(super) const fn state(self) -> State {
        State::from_number(((self.0 & Self::STATE) >> Self::STATE_SHIFT) as u32)
    }

    /// Marks the packet as sent by a socket of this host if `socket` is true.
    #[inline(always)]
    pub(super) const fn sent_by_socket(self, socket: bool) -> Self {
        if socket { Self(self.0 | Self::FROM_SOCKET) } else { self }
    }

    /// Returns true if a socket of this host sends the packet.
    #[inline(always)]
    pub(super) const fn is_from_socket(self) -> bool {
        self.0 & Self::FROM_SOCKET != 0
    }

    /// Sets the mark that the site file gives the address of this host's end to no host.
    #[inline(always)]
    pub(super) const fn unclaimed(self, unclaimed: bool) -> Self {
        Self(self.0 | (unclaimed as u64) << 32)
    }

    /// Returns the decision without the marks that are internal to [`super::judge`].
    #[inline(always)]
    pub(super) const fn bare(self) -> Self {
        Self(self.0 & !Self::UNCLAIMED)
    }

    /// Returns the decision with a note about the packet, see [`peer_note`].
    #[inline(always)]
    pub(super) const fn noting(self, note: u64) -> Self {
        Self(self.0 | note << Self::NOTE_SHIFT)
    }

    /// Returns 1 if the packet was read up to its addresses and the peer is a known system, else 0.
    #[must_use]
    #[inline(always)]
    pub const fn known_bit(self) -> u64 {
        self.0 >> Self::NOTE_SHIFT & peer_note::KNOWN
    }

    /// Returns true if the packet was read up to its addresses.
    #[must_use]
    #[inline(always)]
    pub const fn is_read(self) -> bool {
        self.0 >> Self::NOTE_SHIFT & peer_note::READ != 0
    }

    /// Returns true if overrides may let a dropped packet pass: no row allowed the packet, and nothing is
    /// wrong with it.
    #[inline(always)]
    pub(super) const fn may_be_overridden(self) -> bool {
        self.is_miss() || self.0 & Self::UNCLAIMED != 0
    }

    /// Marks the drop as not enforced if `audit` is true: it is counted as a would-be drop, and the packet
    /// passes.
    #[inline(always)]
    pub(super) const fn not_enforced(self, audit: bool) -> Self {
        if audit { Self(self.0 | Self::AUDITED) } else { self }
    }

    #[inline(always)]
    pub(super) const fn entering(self, entered: Entered) -> Self {
        Self(self.0 | (entered as u64) << Self::ENTERED_SHIFT)
    }

    /// Returns the number of the reason.
    #[must_use]
    #[inline(always)]
    pub const fn reason_number(self) -> u8 {
        (self.0 & Self::REASON) as u8
    }

    /// Returns the reason.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match Reason::from_number(self.reason_number()) {
            Some(reason) => reason,
            None => Reason::Internal,
        }
    }

    #[inline(always)]
    pub(super) const fn is(self, reason: Reason) -> bool {
        self.reason_number() == reason as u8
    }

    /// Returns the counter slot of the row that allowed the packet, or [`NO_ROW`].
    #[must_use]
    #[inline(always)]
    pub const fn row(self) -> u16 {
        (self.0 >> Self::ROW_SHIFT) as u16
    }

    /// Returns true if the packet opens a flow.
    #[must_use]
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & Self::OPENS != 0
    }

    /// Returns true for a would-be drop that passes and is only counted, because the direction or a row is in
    /// audit.
    #[must_use]
    #[inline(always)]
    pub const fn audited(self) -> bool {
        self.0 & Self::AUDITED != 0
    }

    /// Returns 1 if [`Self::audited`], else 0, without a branch.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn audited_bit(self) -> u64 {
        (self.0 / Self::AUDITED) & 1
    }

    /// Returns the outcome of entering the flow into the flow table, if it was entered.
    #[must_use]
    #[inline(always)]
    pub const fn entered(self) -> Option<Entered> {
        Entered::from_number((self.0 & Self::ENTERED) >> Self::ENTERED_SHIFT)
    }

    /// Returns true if the reason is a miss: no row allows the packet, but nothing is wrong with the packet.
    /// A packet that passes because a row is in audit is a miss too: an override takes precedence in the
    /// counters.
    #[inline(always)]
    pub(super) const fn is_miss(self) -> bool {
        /// All numbers are below 64.
        const MISSES: u64 = bits(&[
            Reason::Protocol,
            Reason::ProtocolKnown,
            Reason::Port,
            Reason::PortKnown,
            Reason::Source,
            Reason::SourceKnown,
            Reason::ClientPort,
            Reason::NoFlow,
            Reason::NoFlowKnown,
            Reason::IcmpType,
            Reason::Destination,
            Reason::UnsolicitedReply,
        ]);
        self.among(MISSES)
    }

    /// Returns true if the packet is let in and is, or may be, something other than an answer: its port
    /// serves.
    #[inline(always)]
    pub(super) const fn lets_in(self) -> bool {
        const ALLOWED: u64 = bits(&[Reason::Row, Reason::Failsafe, Reason::Exception, Reason::Grace]);
        self.among(ALLOWED) || self.audited() && self.is_miss()
    }

    /// Returns true for a drop of a packet that would answer, unless a row in audit lets it pass.
    #[inline(always)]
    pub(super) const fn answers_nothing_known(self) -> bool {
        const MIDWAY: u64 =
            bits(&[Reason::NoFlow, Reason::NoFlowKnown, Reason::ClientPort, Reason::UnsolicitedReply]);
        self.among(MIDWAY) && !self.audited()
    }

    /// Returns true if the decision holds in lockdown without a second look: a failsafe row of the image, a
    /// service that the link needs, or a packet for which the overrides were asked already.
    #[inline(always)]
    pub(super) const fn goes_on_isolated(self) -> bool {
        const HOLDS: u64 = bits(&[
            Reason::Failsafe,
            Reason::Arp,
            Reason::Neighbour,
            Reason::Dhcp,
            Reason::IcmpRelated,
            Reason::Multicast,
            Reason::LinkControl,
            Reason::Vrrp,
            Reason::Fragment,
            Reason::IcmpControl,
            Reason::OwnMulticast,
        ]);
        self.among(HOLDS)
    }

    #[inline(always)]
    const fn among(self, reasons: u64) -> bool {
        let number = self.0 & Self::REASON;
        number < 64 && reasons >> number & 1 != 0
    }

    /// Returns true if the packet passes.
    #[must_use]
    #[inline(always)]
    pub const fn passes(self) -> bool {
        Verdict::of_number(self.reason_number()).is_pass() || self.audited()
    }
}

/// Returns a word with one bit set per reason.
const fn bits(reasons: &[Reason]) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < reasons.len() {
        assert!((reasons[i] as u8) < 64, "the reason has a bit");
        bits |= 1 << reasons[i] as u8;
        i += 1;
    }
    bits
}

impl core::fmt::Debug for Decision {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Decision")
            .field("reason", &self.reason())
            .field("row", &(self.row() != NO_ROW).then_some(self.row()))
            .field("opens", &self.opens())
            .field("audited", &self.audited())
            .field("entered", &self.entered())
            .finish()
    }
}
