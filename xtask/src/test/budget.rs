//! The time budget of each part of a run, and how it is stretched on a slow machine.
//!
//! The budgets were measured on two processors of the speed of [`REFERENCE`]. A machine that does the same
//! work more slowly, or that shares its processors with others at the moment, gets more time in proportion.
//! So a busy machine does not fail a run, but a run that has grown does.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Steps of each processor in a measurement.
const STEPS: u64 = 60_000_000;
/// Words of memory that the steps read and write: 4 MiB, more than a processor's own cache.
const WORDS: usize = 1 << 19;
/// Seconds of a measurement on the reference machine of the budgets (two quiet processors, Linux 6.18,
/// 2026-11-30).
const REFERENCE: f64 = 0.46;

/// Machines are shared: a part fails the run if it takes more than this multiple of its budget.
const TOLERANCE: f64 = 1.5;

/// Returns how many times longer than on the reference machine a fixed piece of work takes now; at least 1.
pub(super) fn slowness() -> f64 {
    (measure().as_secs_f64() / REFERENCE).max(1.0)
}

/// Measures the time in which all processors at once do a fixed piece of work: arithmetic and memory, no
/// instructions that only some processors have.
fn measure() -> Duration {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    thread::scope(|scope| {
        for seed in 1..=processors as u64 {
            scope.spawn(move || {
                let mut memory = vec![seed; WORDS];
                let mut state = seed;
                for _ in 0..STEPS {
                    // Xorshift (Marsaglia 2003).
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let word = &mut memory[state as usize % WORDS];
                    *word = word.wrapping_add(state);
                }
                // The result has to be used, or the optimizer would remove the work.
                std::hint::black_box(memory);
            });
        }
    });
    began.elapsed()
}

/// Stretches a budget for a machine that is `slowness` times slower.
pub(super) fn stretched(budget: Duration, slowness: f64) -> Duration {
    budget.mul_f64(slowness.max(1.0))
}

/// The result of comparing a time with a stretched budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spending {
    /// Within the budget.
    Within,
    /// Over the budget, by no more than a busy machine explains: a warning.
    Over,
    /// Over the budget by so much that the run fails.
    TooMuch,
}

/// Compares a time with a stretched budget.
pub(super) fn spending(took: Duration, budget: Duration) -> Spending {
    if took <= budget {
        Spending::Within
    } else if took <= budget.mul_f64(TOLERANCE) {
        Spending::Over
    } else {
        Spending::TooMuch
    }
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
    fn a_part_warns_over_its_budget_and_fails_far_over_it() {
        let budget = Duration::from_secs(100);
        let at = |seconds| spending(Duration::from_secs(seconds), budget);
        assert_eq!(
            [at(100), at(101), at(150), at(151)],
            [Spending::Within, Spending::Over, Spending::Over, Spending::TooMuch]
        );
    }

    #[test]
    fn slowness_is_never_below_one() {
        assert!(slowness() >= 1.0);
    }
}
