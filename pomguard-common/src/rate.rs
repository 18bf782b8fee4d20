//! Rate limits of the link's protocols and of ICMP errors about flows.
//!
//! Each processor counts separately, so that no cache line is shared, in ticks of the flow table (about a
//! quarter of a second). In each tick, a class may use its budget, and further packets are dropped. A flood
//! costs a load, a comparison and nothing in the stack; packets at an honest rate never reach the limit.

/// Packet classes with separate budgets, so that no class can starve another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Rated {
    /// ARP and neighbour discovery.
    Neighbours = 0,
    /// ICMPv6 echo requests that no row names.
    EchoV6 = 1,
    /// ICMP errors about flows, except [`Self::PathMtu`].
    Errors = 2,
    /// ICMP errors that report a path MTU (RFC 1191, RFC 8201): the loss of one can stop a flow.
    PathMtu = 3,
}

impl Rated {
    /// Number of classes.
    pub const COUNT: usize = 4;
}

/// Counts one packet in a word that holds the tick in its high half and the packets of that tick in its low
/// half. Returns the word to store, or `None` if the budget of the tick is spent.
#[must_use]
#[inline(always)]
pub const fn spend(word: u64, tick: u32, budget: u32) -> Option<u64> {
    let spent = if (word >> 32) as u32 == tick { word as u32 } else { 0 };
    if spent >= budget { None } else { Some((tick as u64) << 32 | (spent + 1) as u64) }
}

const _: () = assert!(Rated::COUNT.is_power_of_two(), "the programs find a class's word by a mask");

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many of `offered` packets pass within one tick.
    fn passed(word: &mut u64, tick: u32, budget: u32, offered: u32) -> u32 {
        (0..offered)
            .filter(|_| match spend(*word, tick, budget) {
                Some(next) => {
                    *word = next;
                    true
                }
                None => false,
            })
            .count() as u32
    }

    #[test]
    fn each_tick_has_its_budget_whatever_was_before() {
        let mut word = 0;
        assert_eq!(passed(&mut word, 7, 3, 10), 3);
        assert_eq!(passed(&mut word, 7, 3, 10), 0, "it is spent");
        assert_eq!(passed(&mut word, 8, 3, 2), 2, "the next tick");
        assert_eq!(passed(&mut word, 9, 3, 10), 3, "what was left over is not kept");
        assert_eq!(passed(&mut word, 8, 3, 10), 3, "a clock that was set back");
        assert_eq!(passed(&mut word, u32::MAX, 3, 10), 3, "the last tick");
        assert_eq!(passed(&mut word, 0, 3, 10), 3, "and the one after it");
    }

    #[test]
    fn the_greatest_budget_has_no_end_and_none_lets_nothing_through() {
        assert_eq!(spend(u64::MAX, u32::MAX, u32::MAX), None, "it ends before the count would wrap");
        assert_eq!(spend(u64::MAX - 1, u32::MAX, u32::MAX), Some(u64::MAX));
        assert_eq!(spend(0, 0, 0), None);
        assert_eq!(spend(0, 0, 1), Some(1), "the first packet of all, in tick 0");
    }
}
