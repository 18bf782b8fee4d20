//! Local ports at which a flow can exist.
//!
//! Most packets that no row allows belong to no flow either, and the flow table is too large for any cache. So a
//! look-up asks the port first: half a megabyte, four bytes for each port of TCP and of UDP. They hold the time at
//! which a flow was last entered at the port, or found there while the time was [`BEHIND`]. Age alone ends a time, so
//! that nothing sweeps the table.
//!
//! The table may say "perhaps" where there is no flow, and never "no" where there is one:
//!
//! * The port's time is written before the flow's tag ([`note`] before the store in [`super::room`], and in
//!   [`super::search`] before the flow is touched).
//! * A time counts for the sum of the ages of all states that the transport has. The sum is longer than each of them,
//!   so that a flow in any state lies within it.
//! * Both clocks of a comparison may be those of another processor: a time ahead of the reader's is a time of now.
//! * A time that nobody has renewed for a whole turn of the clock, 34 years, says "perhaps" again.
//! * A table that is new alongside a flow table that is not has [`unknown`] in every port.

use super::Half;
use crate::protocol;

/// Elements: the ports, and behind them [`COMPLETE`].
pub const COUNT: usize = 65_536 + 1;

/// The element whose first word tells that the others are complete: 0 while they are not known to be.
pub const COMPLETE: usize = 65_536;

/// Ticks by which a time lags behind before it is written again, about a minute: its cache line stays shared between
/// processors meanwhile.
const BEHIND: u32 = 4 * 60;

/// Ticks by which the clocks of two processors may differ, and by which a flow's tag may be younger than its port's
/// time alongside [`BEHIND`]: about a minute, where a few ticks are possible.
const SLACK: u32 = 4 * 60;

/// When a flow was last entered or found at a local port, in ticks, by TCP and by UDP; 0 = never.
#[derive(Debug, Default)]
#[repr(C)]
pub struct FlowPort([Half; 2]);

const _: () = assert!(size_of::<FlowPort>() == 8, "an element of an array map has eight bytes at least");
// The lowest bit of the protocol's number tells one from the other.
const _: () = assert!(protocol::TCP & 1 == 0 && protocol::UDP & 1 == 1);

impl FlowPort {
    /// The time of TCP or UDP.
    #[must_use]
    #[inline(always)]
    pub const fn time(&self, protocol: u8) -> &Half {
        // An index and no branch: the verifier would walk the rest of the way once for each.
        &self.0[(protocol & 1) as usize]
    }
}

/// Returns true if ports of a protocol are kept.
#[must_use]
#[inline(always)]
pub const fn keeps(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

/// The time for a port of which nothing is known: it may have flows as old as this host.
#[must_use]
#[inline(always)]
pub const fn unknown(now: u32) -> u32 {
    // 0 means that no flow was ever entered.
    if now == 0 { 1 } else { now }
}

/// Returns true if a flow may exist at a port whose time is `seen`. `age` is the sum of the transport's ages in ticks.
#[must_use]
#[inline(always)]
pub const fn may_have_flow(seen: u32, age: u64, now: u32) -> bool {
    seen != 0 && now.wrapping_sub(seen).wrapping_add(SLACK) as u64 <= age + (BEHIND + 2 * SLACK) as u64
}

/// Notes that a flow is entered at a port, or was found there. Stores only if the time is behind.
#[inline(always)]
pub fn note(time: &Half, now: u32) {
    let seen = time.load();
    if seen == 0 || now.wrapping_sub(seen) > BEHIND {
        time.store(unknown(now));
    }
}
