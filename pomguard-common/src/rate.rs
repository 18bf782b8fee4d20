//! Rates: of what the link and the errors about flows need, only so much comes in.
//!
//! Each processor counts for itself, so that no line is shared, and by the tick of the flow table (about a
//! quarter of a second): a class may have its budget in each tick, and what is more is dropped. A flood
//! costs a load, a comparison and nothing in the stack; what comes at an honest rate never meets the end.

/// Packet classes with a budget of their own, so that none can starve another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Rated {
    /// ARP and neighbour discovery.
    Neighbours = 0,
    /// ICMPv6 echo requests that no row names.
    EchoV6 = 1,
    /// ICMP errors about flows, but for the next.
    Errors = 2,
    /// Those that tell a path's MTU (RFC 1191, RFC 8201): losing one can stop a flow.
    PathMtu = 3,
}

impl Rated {
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// Counts one packet in a word that holds the tick in its high half and the packets of that tick in its low
/// one: the word to store, or none when the tick's budget is spent.
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

    /// How many of `offered` packets pass within one tick.
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
