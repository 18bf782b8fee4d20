//! The environment of a decision: the compiled policy and the two tables, in the kernel or on the host.

use crate::{
    Direction,
    control::{ControlView as _, Timed, suspension, word},
    flow::Store,
    image::{Image, Lines, mode},
};

use super::Decision;

/// The inputs of every decision: the image, the two tables, and the state in which the policy is.
///
/// The rulings are written for any environment, so the programs and the host run the same code.
pub trait Env {
    /// The place of the image's lines.
    type Lines: Lines + ?Sized;
    /// The table of flows.
    type Flows: Store;
    /// The table of fragmented datagrams.
    type Fragments: Store;

    /// Epoch of a fragmented datagram whose first fragment passed in lockdown.
    const ISOLATED_FRAGMENT: u32 = 1;

    /// Returns the compiled policy.
    fn image(&self) -> &Image<'_, Self::Lines>;

    /// Returns the flows.
    fn flows(&self) -> &Self::Flows;

    /// Returns the fragmented datagrams.
    fn fragments(&self) -> &Self::Fragments;

    /// Returns the modes in force and the kind of suspension.
    fn held(&self) -> Held;

    /// Returns the mode of a direction, which says how a would-be drop is treated; see [`mode`].
    #[inline(always)]
    fn mode(&self, direction: Direction) -> u8 {
        (self.held().0 >> (8 * direction as u32)) as u8
    }

    /// Returns true in lockdown, where only failsafe rows hold.
    #[inline(always)]
    fn isolated(&self) -> bool {
        self.held().0 >> Held::SUSPENSION_SHIFT == u64::from(suspension::LOCKDOWN)
    }

    /// Returns true if a second look may change the decision.
    #[inline(always)]
    fn reconsiders(&self, decision: Decision) -> bool {
        if self.isolated() {
            return true;
        }
        let lines = self.image().lines();
        decision.may_be_overridden() && lines.control(word::PORT_BLOOM) | lines.control(word::GRACE) != 0
    }

    /// Returns true if the image is up to date about the holders of addresses that several hosts may hold.
    #[inline(always)]
    fn knows_holders(&self) -> bool {
        Timed(self.image().lines().control(word::HOLDERS)).holds(self.flows().now()) != 0
    }

    /// Returns true if a flow of this host continues although no outbound row allows it. This is so where
    /// outbound tracks, and where outbound audits while inbound would drop the answers. Where inbound audits
    /// too, the answers pass without a flow, and are counted as would-be drops.
    #[inline(always)]
    fn keeps_unlisted(&self) -> bool {
        match self.mode(Direction::Outbound) {
            mode::TRACK => true,
            mode::ENFORCE => false,
            _ => self.mode(Direction::Inbound) == mode::ENFORCE,
        }
    }

    /// Returns the epoch of a fragmented datagram that begins now. If the first fragment was audited, the
    /// entry holds only while the generation that audited it is in force.
    #[inline(always)]
    fn fragment_epoch(&self, audited: bool) -> u32 {
        if self.isolated() {
            Self::ISOLATED_FRAGMENT
        } else if audited {
            self.image().generation() << 1 | 1 << 31
        } else {
            0
        }
    }
}

/// The modes in force in the low half, one byte each; the kind of suspension in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(u64);

impl Held {
    const SUSPENSION_SHIFT: u32 = 32;
}

/// The environment of one packet.
pub struct Tables<'a, L: Lines + ?Sized, F: Store, T: Store> {
    image: &'a Image<'a, L>,
    flows: F,
    fragments: T,
    /// Read once per packet.
    held: Held,
}

impl<'a, L: Lines + ?Sized, F: Store, T: Store> Tables<'a, L, F, T> {
    /// Returns the environment of one packet.
    #[inline(always)]
    pub fn new(image: &'a Image<'a, L>, flows: F, fragments: T) -> Self {
        let lines = image.lines();
        let timed = Timed(lines.control(word::SUSPENSION));
        let suspended = if timed.0 == 0 { suspension::NONE } else { timed.holds(flows.now()) };
        let modes = image.modes();
        let modes = if suspended == suspension::BYPASS { mode::opened(modes) } else { modes };
        let held = lines.barrier(u64::from(modes) | u64::from(suspended) << Held::SUSPENSION_SHIFT);
        Self { image, flows, fragments, held: Held(held) }
    }

    /// Returns the environment of one packet while the policy is not suspended.
    #[inline(always)]
    pub fn in_peace(image: &'a Image<'a, L>, flows: F, fragments: T) -> Self {
        Self { image, flows, fragments, held: Held(u64::from(image.modes())) }
    }
}

impl<L: Lines + ?Sized, F: Store, T: Store> Env for Tables<'_, L, F, T> {
    type Lines = L;
    type Flows = F;
    type Fragments = T;

    #[inline(always)]
    fn image(&self) -> &Image<'_, L> {
        self.image
    }

    #[inline(always)]
    fn flows(&self) -> &F {
        &self.flows
    }

    #[inline(always)]
    fn fragments(&self) -> &T {
        &self.fragments
    }

    #[inline(always)]
    fn held(&self) -> Held {
        self.held
    }
}
