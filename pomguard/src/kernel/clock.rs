//! The clock of the programs: the kernel's tick counter, shifted to the right.

use std::{
    fs, io,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_getres, clock_gettime};
use pomguard_common::ticks;

use super::KernelError;
use crate::compile::Clock;

/// The relation of ticks to time on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// The kernel's ticks per second (`CONFIG_HZ`).
    pub hz: u32,
    /// Number of bits by which the programs shift the kernel's tick counter to the right.
    pub shift: u32,
    /// Offset in nanoseconds that the time namespace of this process adds to the kernel's monotonic clock.
    pub ahead: i64,
}

impl Ticks {
    /// Measures the tick rate: the coarse clocks advance once per kernel tick, so their resolution is the
    /// length of a tick.
    ///
    /// # Errors
    /// If the clock cannot be read, which happens on no Linux.
    pub fn probe() -> Result<Self, KernelError> {
        let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
            .map_err(io::Error::from)
            .map_err(KernelError::system("clock_getres", "of the coarse clock"))?;
        let nanoseconds = resolution.tv_sec() * 1_000_000_000 + resolution.tv_nsec();
        let hz = u32::try_from(1_000_000_000 / nanoseconds.max(1)).unwrap_or(250).clamp(24, 10_000);
        Ok(Self { ahead: namespace_offset(), ..Self::new(hz) })
    }

    /// Returns the ticks on a kernel of `hz` jiffies per second: about a quarter of a second each. For a
    /// process whose monotonic clock is the kernel's.
    #[must_use]
    pub const fn new(hz: u32) -> Self {
        let quarter = if hz < 8 { 2 } else { hz / 4 };
        Self { hz, shift: quarter.next_power_of_two().ilog2(), ahead: 0 }
    }

    /// Returns the clock in the compiler's form.
    #[must_use]
    pub const fn clock(self) -> Clock {
        Clock { ticks_per_1000s: ((self.hz as u64 * 1_000) >> self.shift) as u32, offset: 0 }
    }

    /// Returns the programs' clock now. The counter starts five minutes before 2^32 (`INITIAL_JIFFIES`,
    /// include/linux/jiffies.h) and runs with the monotonic clock.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub fn now(self) -> Result<u64, KernelError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_err(io::Error::from)
            .map_err(KernelError::system("clock_gettime", "of the monotonic clock"))?;
        let own = now.tv_sec() * 1_000_000_000 + now.tv_nsec() - self.ahead;
        let hz = u64::from(self.hz);
        let (seconds, rest) = (own.cast_unsigned() / 1_000_000_000, own.cast_unsigned() % 1_000_000_000);
        let elapsed = seconds * hz + rest * hz / 1_000_000_000;
        let start = (1_u64 << 32) - 300 * hz;
        Ok((start + elapsed) >> self.shift)
    }

    /// Returns the duration of a number of ticks in seconds, rounded up.
    #[must_use]
    pub fn seconds(self, ticks: u32) -> u64 {
        (u64::from(ticks) << self.shift).div_ceil(u64::from(self.hz))
    }

    /// Returns the duration of a number of ticks, rounded up to milliseconds.
    #[must_use]
    pub fn duration(self, ticks: u32) -> Duration {
        Duration::from_millis(((u64::from(ticks) << self.shift) * 1_000).div_ceil(u64::from(self.hz)))
    }

    /// Returns the number of ticks in a duration, rounded up.
    #[must_use]
    pub fn spanned(self, duration: Duration) -> u32 {
        let jiffies = (duration.as_nanos() * u128::from(self.hz)).div_ceil(1_000_000_000);
        u32::try_from(jiffies.div_ceil(1 << self.shift)).unwrap_or(u32::MAX)
    }

    /// Returns the tick that is `seconds` from now or slightly later, never earlier: the current, partly
    /// elapsed tick is not counted. Never returns 0, which means no deadline.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub fn deadline(self, seconds: u32) -> Result<u32, KernelError> {
        let ticks = (u64::from(seconds) * u64::from(self.hz)).div_ceil(1 << self.shift);
        Ok(((self.now()? + ticks + 1) as u32).max(1))
    }

    /// Converts a tick of the past to seconds since 1970; ticks are 32 bits wide and wrap. A tick that a program
    /// noted after the reading `now` counts as now.
    #[must_use]
    pub fn to_unix(self, tick: u64, now: u64) -> u64 {
        let ago = ticks::since(tick as u32, now as u32, u32::MAX);
        let hz = u64::from(self.hz);
        let jiffies = u64::from(ago) << self.shift;
        // Add the elapsed part of the current tick: without that, two readings of one tick could differ by a
        // second.
        let rest = self.since_tick(now).unwrap_or_default();
        let since = Duration::new(jiffies / hz, ((jiffies % hz) * 1_000_000_000 / hz) as u32) + rest;
        SystemTime::now()
            .checked_sub(since)
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |at| at.as_secs())
    }

    /// Returns the time since the tick `now` began.
    fn since_tick(self, now: u64) -> Option<Duration> {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
        let own = time.tv_sec() * 1_000_000_000 + time.tv_nsec() - self.ahead;
        let hz = u64::from(self.hz);
        let jiffies = (now << self.shift).checked_sub((1_u64 << 32) - 300 * hz)?;
        let begun = jiffies / hz * 1_000_000_000 + jiffies % hz * 1_000_000_000 / hz;
        own.cast_unsigned().checked_sub(begun).map(Duration::from_nanos)
    }
}

/// The number of attempts to read two clocks at the same moment.
const ATTEMPTS: usize = 3;

/// Returns the difference of boot time and monotonic time: the time for which this kernel was suspended, plus
/// an offset that the time namespace of this process may add.
///
/// # Errors
/// If a clock cannot be read, which happens on no Linux.
pub fn suspended() -> Result<Duration, KernelError> {
    let clock = |id| clock_gettime(id).map(Duration::from).map_err(io::Error::from);
    let difference = || {
        // In this order, a pause between the two readings makes the difference larger, never smaller.
        let monotonic = clock(ClockId::CLOCK_MONOTONIC)?;
        clock(ClockId::CLOCK_BOOTTIME).map(|boot| boot.saturating_sub(monotonic))
    };
    let read =
        || difference().map_err(KernelError::system("clock_gettime", "of boot time and monotonic time"));
    let mut least = read()?;
    for _ in 1..ATTEMPTS {
        least = least.min(read()?);
    }
    Ok(least)
}

/// Returns the offset in nanoseconds that the time namespace of this process adds to the monotonic clock, or 0
/// on a kernel without time namespaces. The tick counter has no namespaces (`time_namespaces(7)`).
fn namespace_offset() -> i64 {
    // The file describes the namespace of future children, which is nearly always the process' own.
    let [own, children] =
        ["time", "time_for_children"].map(|it| fs::read_link(format!("/proc/self/ns/{it}")).ok());
    if own != children {
        return 0;
    }
    fs::read_to_string("/proc/self/timens_offsets").map_or(0, |offsets| monotonic_offset(&offsets))
}

/// Returns the offset of the monotonic clock in nanoseconds from the text of `/proc/PID/timens_offsets`, which
/// has a line per clock with the name, seconds and nanoseconds.
fn monotonic_offset(offsets: &str) -> i64 {
    let offset = offsets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|clock| *clock == "monotonic")?;
        let mut number = || words.next()?.parse::<i64>().ok();
        number()?.checked_mul(1_000_000_000)?.checked_add(number()?)
    });
    offset.unwrap_or(0)
}

/// Returns the current time in seconds since 1970.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_a_quarter_second_at_every_usual_rate() {
        for hz in [100, 250, 300, 1_000] {
            let per_1000s = Ticks::new(hz).clock().ticks_per_1000s;
            assert!((2_000..=4_000).contains(&per_1000s), "{hz} Hz: {per_1000s}");
        }
    }

    #[test]
    fn deadline_exceeds_the_request_by_less_than_a_second() {
        for hz in [100, 250, 300, 1_000] {
            let ticks = Ticks::new(hz);
            let now = ticks.now().unwrap() as u32;
            let left = ticks.seconds(ticks.deadline(60).unwrap().wrapping_sub(now));
            assert!((60..=61).contains(&left), "{hz} Hz: {left}");
        }
    }

    #[test]
    fn time_namespace_offset_is_that_of_the_monotonic_clock() {
        let offsets = "monotonic       -3600 250000000\nboottime           60         0\n";
        assert_eq!(monotonic_offset(offsets), -3_599_750_000_000);
        for none in
            ["", "boottime 60 0\n", "monotonic 60\n", "monotonic x 0\n", "monotonic 9223372036854775807 0"]
        {
            assert_eq!(monotonic_offset(none), 0, "{none}");
        }
    }

    #[test]
    fn ticks_do_not_depend_on_the_time_namespace_offset() {
        let ticks = Ticks::probe().unwrap();
        let hour = 3_600_000_000_000;
        let shifted = Ticks { ahead: ticks.ahead - hour, ..ticks };
        let apart = shifted.now().unwrap() - ticks.now().unwrap();
        let expected = (u64::from(ticks.hz) * 3_600) >> ticks.shift;
        assert!((expected..=expected + 2).contains(&apart), "{apart}, not {expected}");
    }

    #[test]
    fn a_tick_of_the_past_becomes_its_time_even_across_the_wrap() {
        let ticks = Ticks::probe().unwrap();
        let now = ticks.now().unwrap();
        // A kept tick has 32 bits and wraps.
        let kept = u64::from((now as u32).wrapping_sub(32));
        let ago = unix_now() - ticks.to_unix(kept, now);
        assert!((7..=9).contains(&ago), "32 ticks of about 0.256 s: {ago}");
    }

    #[test]
    fn a_tick_after_the_reading_of_the_clock_is_now() {
        let ticks = Ticks::probe().unwrap();
        let now = ticks.now().unwrap();
        for ahead in [1, 4, 200] {
            let kept = u64::from((now as u32).wrapping_add(ahead));
            let apart = unix_now() - ticks.to_unix(kept, now);
            assert!(apart <= 1, "a packet counted while the counters were read: {apart} s ago");
        }
    }

    #[test]
    fn tick_of_the_past_is_the_same_time_at_every_reading() {
        let ticks = Ticks::probe().unwrap();
        let tick = ticks.now().unwrap() - 100;
        let first = ticks.to_unix(tick, ticks.now().unwrap());
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(7));
            assert_eq!(ticks.to_unix(tick, ticks.now().unwrap()), first);
        }
    }
}
