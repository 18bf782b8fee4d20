//! Local ports at which a flow can exist.
//!
//! Most packets that no row allows belong to no flow either, and the flow table is too large for any cache.
//! So a look-up asks this table first: half a megabyte, four bytes for each port of TCP and of UDP. They hold
//! the time at which a flow was last entered at the port, or found there while the time was behind by more
//! than `BEHIND`. A time expires by age alone, so nothing sweeps the table.
//!
//! The table may say "perhaps" if there is no flow, but must never say "no" if there is one:
//!
//! * The port's time is written before the flow's tag ([`note`] before the store in `super::room`, and in
//!   `super::search` and `super::glance` before the time of the flow is renewed).
//! * A time counts for the sum of the ages of all states of the transport. The sum is longer than each age, so
//!   that a flow in any state lies within it.
//! * A time ahead of the reader's clock counts as now, see [`crate::ticks`].
//! * A time that has not been renewed for a whole turn of the clock, 34 years, says "perhaps" again.
//! * If the table is new but the flow table is not, every port holds [`unknown`].

use super::Half;
use crate::{protocol, ticks::AHEAD};

/// Number of elements: the ports, and after them [`COMPLETE`].
pub const COUNT: usize = 65_536 + 1;

/// The element whose first word says that the others are complete: 0 while this is not known.
pub const COMPLETE: usize = 65_536;

/// Ticks by which a time may lag behind before it is renewed, about a minute. Until then the cache line stays
/// shared between processors.
const BEHIND: u32 = 4 * 60;

/// Ticks by which a time may be ahead of the reader's clock, and by which a flow's tag may be younger than the
/// port's time in addition to [`BEHIND`].
const SLACK: u32 = AHEAD;

/// The ticks at which a flow was last entered or found at a local port, for TCP and for UDP; 0 = never.
#[derive(Debug, Default)]
#[repr(C)]
pub struct FlowPort([Half; 2]);

const _: () = assert!(size_of::<FlowPort>() == 8, "an element of an array map has eight bytes at least");
// The lowest bit of the protocol number selects the word.
const _: () = assert!(protocol::TCP & 1 == 0 && protocol::UDP & 1 == 1);

impl FlowPort {
    /// Returns the time for TCP or UDP.
    #[must_use]
    #[inline(always)]
    pub const fn time(&self, protocol: u8) -> &Half {
        // An index instead of a branch: the verifier would explore the code after a branch once for each
        // side.
        &self.0[(protocol & 1) as usize]
    }
}

/// Returns true if the table has times for the ports of a protocol.
#[must_use]
#[inline(always)]
pub const fn keeps(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

/// Returns the time to store for a port with an unknown history: the port may have flows from before this
/// table.
#[must_use]
#[inline(always)]
pub const fn unknown(now: u32) -> u32 {
    // 0 means that no flow was ever entered.
    if now == 0 { 1 } else { now }
}

/// Returns true if a flow may exist at a port with the time `seen`. `age` is the sum of the transport's ages
/// in ticks.
#[must_use]
#[inline(always)]
pub const fn may_have_flow(seen: u32, age: u64, now: u32) -> bool {
    seen != 0 && now.wrapping_sub(seen).wrapping_add(SLACK) as u64 <= age + (BEHIND + 2 * SLACK) as u64
}

/// Records that a flow was entered or found at a port. Stores only if the time is behind.
#[inline(always)]
pub fn note(time: &Half, now: u32) {
    let seen = time.load();
    if seen == 0 || now.wrapping_sub(seen) > BEHIND {
        time.store(unknown(now));
    }
}
