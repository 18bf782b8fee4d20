//! What a packet comes to, in one word.

use crate::{
    flow::{Entered, State},
    image::RowMatch,
    reason::{Reason, Verdict},
};

/// No row.
pub const NO_ROW: u16 = u16::MAX;

/// What a packet comes to. The one exit of the programs turns it into an action and counts it.
///
/// One word, so that the programs can put it where their verifier forgets what it knows of it
/// ([`crate::barrier::Barrier`]): there are many ways to a decision, and one way on from it.
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
    /// Of a drop: the address of this end is given to nobody by the site file, so overrides may let the packet
    /// pass. No decision has it that leaves [`super::judge`].
    pub(super) const UNCLAIMED: u64 = 1 << 32;
    /// What a ruling comes to for an ICMP error: see what it quotes.
    pub(super) const QUOTES: u64 = u64::MAX;

    /// The decision as a plain number, which is not 0.
    #[must_use]
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The decision of a number from [`Self::word`]; none of 0.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word)) }
    }

    /// For a reason that no row is behind.
    #[inline(always)]
    pub const fn because(reason: Reason) -> Self {
        Self(reason as u64 | (NO_ROW as u64) << Self::ROW_SHIFT)
    }

    /// For the reason with this number, which no row is behind.
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

    /// The flow is to be remembered in this state.
    #[inline(always)]
    pub(super) const fn remembered_as(self, state: State) -> Self {
        Self(self.0 | (state as u64) << Self::STATE_SHIFT)
    }

    /// The decision on a self-test (1), which enters no flow and counts under no row; the same decision for 0.
    #[inline(always)]
    pub(super) const fn without_trace(self, self_test: u64) -> Self {
        let all = self_test.wrapping_neg();
        Self(self.0 & !(all & Self::STATE) | all & (NO_ROW as u64) << Self::ROW_SHIFT)
    }

    /// The state to remember the flow in; free when it is not to be.
    #[inline(always)]
    pub(super) const fn state(self) -> State {
        State::from_number(((self.0 & Self::STATE) >> Self::STATE_SHIFT) as u32)
    }

    /// A socket of this host sends the packet.
    #[inline(always)]
    pub(super) const fn sent_by_socket(self, socket: bool) -> Self {
        if socket { Self(self.0 | Self::FROM_SOCKET) } else { self }
    }

    /// True if a socket of this host sends the packet.
    #[inline(always)]
    pub(super) const fn is_from_socket(self) -> bool {
        self.0 & Self::FROM_SOCKET != 0
    }

    /// The decision about a packet of whose two ends this host's is given to nobody.
    #[inline(always)]
    pub(super) const fn unclaimed(self, unclaimed: bool) -> Self {
        Self(self.0 | (unclaimed as u64) << 32)
    }

    /// The decision as it leaves [`super::judge`].
    #[inline(always)]
    pub(super) const fn bare(self) -> Self {
        Self(self.0 & !Self::UNCLAIMED)
    }

    /// Returns true if overrides may let a packet pass that would be dropped: nothing is wrong with the packet.
    #[inline(always)]
    pub(super) const fn may_be_overridden(self) -> bool {
        self.is_miss() || self.0 & Self::UNCLAIMED != 0
    }

    /// A drop that is not enforced yet: counted as such, and passed.
    #[inline(always)]
    pub(super) const fn not_enforced(self, audit: bool) -> Self {
        if audit { Self(self.0 | Self::AUDITED) } else { self }
    }

    #[inline(always)]
    pub(super) const fn entering(self, entered: Entered) -> Self {
        Self(self.0 | (entered as u64) << Self::ENTERED_SHIFT)
    }

    /// Number of the reason.
    #[must_use]
    #[inline(always)]
    pub const fn reason_number(self) -> u8 {
        (self.0 & Self::REASON) as u8
    }

    /// Why.
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

    /// Counter slot of the row that allowed it, or [`NO_ROW`].
    #[must_use]
    #[inline(always)]
    pub const fn row(self) -> u16 {
        (self.0 >> Self::ROW_SHIFT) as u16
    }

    /// It opens a flow.
    #[must_use]
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & Self::OPENS != 0
    }

    /// A drop that the mode of the direction, or a row in audit, only counts.
    #[must_use]
    #[inline(always)]
    pub const fn audited(self) -> bool {
        self.0 & Self::AUDITED != 0
    }

    /// 1 if [`Self::audited`], else 0: without a branch.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn audited_bit(self) -> u64 {
        (self.0 / Self::AUDITED) & 1
    }

    /// What happened to the flow table.
    #[must_use]
    #[inline(always)]
    pub const fn entered(self) -> Option<Entered> {
        Entered::from_number((self.0 & Self::ENTERED) >> Self::ENTERED_SHIFT)
    }

    /// Whether a drop reason says that nothing allows the packet, rather than that something is wrong
    /// with it. What a row's audit lets through is one all the same: an override is counted before it.
    #[inline(always)]
    pub(super) const fn is_miss(self) -> bool {
        /// All below 64.
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

    /// Whether it lets in something that is no answer, or may be none: its port serves.
    #[inline(always)]
    pub(super) const fn lets_in(self) -> bool {
        const ALLOWED: u64 = bits(&[Reason::Row, Reason::Failsafe, Reason::Exception, Reason::Grace]);
        self.among(ALLOWED) || self.audited() && self.is_miss()
    }

    /// A denial of something that would answer, and that no row's audit lets through.
    #[inline(always)]
    pub(super) const fn answers_nothing_known(self) -> bool {
        const MIDWAY: u64 =
            bits(&[Reason::NoFlow, Reason::NoFlowKnown, Reason::ClientPort, Reason::UnsolicitedReply]);
        self.among(MIDWAY) && !self.audited()
    }

    /// Whether it holds in panic, isolate, without a second look: a failsafe row of the image, what the
    /// link needs, and what was asked for overrides already.
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

    /// Whether the packet goes on.
    #[must_use]
    #[inline(always)]
    pub const fn passes(self) -> bool {
        Verdict::of_number(self.reason_number()).is_pass() || self.audited()
    }
}

/// A bit for each reason.
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
