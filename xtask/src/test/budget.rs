//! The seconds that each part of a run may take, and how they are stretched on a slow machine.
//!
//! The budgets were dealt for two processors of the speed of [`REFERENCE`]. A machine that does the same
//! work more slowly, or shares its processors with others at the moment, gets more time in proportion: a
//! busy machine fails no run, a run that grew does.

use std::{
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

/// Bytes that each processor digests in a measurement.
const BYTES: usize = 48 << 20;
/// Time of a measurement on the machine that the budgets were dealt for, in seconds
/// (two processors, Linux 6.18, 2026-11-30).
const REFERENCE: f64 = 0.25;

/// How many times longer than on the reference machine a fixed piece of work takes now; 1 at least.
pub(super) fn slowness() -> f64 {
    (measure().as_secs_f64() / REFERENCE).max(1.0)
}

/// The time in which every processor does the piece of work, all at once.
fn measure() -> Duration {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                let block = vec![0xa5_u8; 1 << 20];
                let mut digest = Sha256::new();
                for _ in 0..BYTES / block.len() {
                    digest.update(&block);
                }
                // The result has to be used, or there would be no work.
                std::hint::black_box(digest.finalize());
            });
        }
    });
    began.elapsed()
}

/// A budget on a machine that is so many times slower.
pub(super) fn stretched(budget: Duration, slowness: f64) -> Duration {
    budget.mul_f64(slowness.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_gets_more_time_and_a_fast_one_no_less() {
        let budget = Duration::from_secs(100);
        assert_eq!(stretched(budget, 1.5), Duration::from_secs(150));
        assert_eq!(stretched(budget, 0.5), budget);
    }

    #[test]
    fn slowness_is_never_below_one() {
        assert!(slowness() >= 1.0);
    }
}
