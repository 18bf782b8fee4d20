//! The time since a stored time, in ticks.
//!
//! A processor reads the clock first and the stored time later. Meanwhile the clock may move on, and another
//! processor may store a later time. So a time that is ahead of the clock by a little counts as now. Without
//! that, the difference would wrap, and a flow that was renewed at this instant would seem to have ended.

use crate::flow::less;

/// Ticks by which a stored time may be ahead of the reader's clock: about a minute. A processor may stand
/// still that long between the two readings, and the daemon reads a whole table after one reading of the
/// clock.
pub const AHEAD: u32 = 4 * 60;

/// Returns the ticks from `time` to `now`, or 0 for a time that is ahead by at most [`AHEAD`]. Times have the
/// bits of `mask` and wrap. Without a branch: the verifier would explore the code after it twice.
#[must_use]
#[inline(always)]
pub fn since(time: u32, now: u32, mask: u32) -> u32 {
    let ticks = now.wrapping_sub(time).wrapping_add(AHEAD) & mask;
    let ahead = less(ticks.into(), AHEAD.into()) as u32;
    ticks.wrapping_sub(AHEAD) & !ahead
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ahead_of_the_clock_is_now_and_an_old_one_is_old() {
        for mask in [u32::MAX, u32::MAX >> 1] {
            for time in [0, 1, 7, mask - 1, mask] {
                let at = |ticks: u32| since(time, time.wrapping_add(ticks), mask);
                let before = |ticks: u32| since(time, time.wrapping_sub(ticks), mask);
                for ticks in [0, 1, 240, 1 << 30, mask - AHEAD] {
                    assert_eq!(at(ticks), ticks, "{ticks} after {time}");
                }
                for ticks in [1, 2, AHEAD] {
                    assert_eq!(before(ticks), 0, "{ticks} before {time}");
                }
                assert_eq!(before(AHEAD + 1), mask - AHEAD, "long after {time}");
            }
        }
    }
}
