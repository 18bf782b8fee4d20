//! Deadlines while the machine stands still. The programs count a deadline in ticks, and the tick counter does
//! not run while a virtual machine is suspended, or between a snapshot and its restoration. The daemon compares
//! three clocks and ends timed states earlier, never later:
//!
//! * *boot time* against *monotonic time*: the kernel itself was suspended, for exactly the difference.
//! * the *wall clock* against the deadline's own wall time: the hypervisor stopped the machine, or restored a
//!   snapshot, and the clock was set afterwards. An ordinary correction of a wrong clock looks the same. So the
//!   wall clock ends only states that allow something; a lockdown stays.

use std::time::Duration;

use anyhow::anyhow;
use log::{error, warn};
use pomguard_common::{
    control::{Timed, over},
    image::Active,
};

use super::{Overrides, exceptions::own_lines, scene};
use crate::{
    control::protocol::SuspensionKind,
    daemon::context::Context,
    kernel::{
        KernelError,
        clock::{Ticks, suspended, unix_now},
        control,
    },
    render::quantity::duration,
    terminals,
};

/// The difference of two clocks, in seconds, that is no sign of a standstill: wall times are whole seconds,
/// and a request is recorded shortly before its deadline begins.
const SLACK: u64 = 2;
/// The shortest suspension that is counted. Shorter ones are added up until they reach this length.
const SHORTEST: Duration = Duration::from_secs(1);

/// One reading of the three clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// Monotonic time, as the programs count it.
    tick: u32,
    /// Boot time minus monotonic time. Only differences of two readings have a meaning.
    suspended: Duration,
    /// Seconds since 1970.
    wall: u64,
}

impl Reading {
    fn now(ticks: Ticks) -> Result<Self, KernelError> {
        Ok(Self { tick: ticks.now()? as u32, suspended: suspended()?, wall: unix_now() })
    }
}

/// The end of a timed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// The tick at which the programs end the state; 0 = never.
    tick: u32,
    /// The wall time of the end in seconds since 1970. `None` if unknown, or if the wall clock must not end the
    /// state.
    wall: Option<u64>,
}

impl End {
    /// Returns the tick at which the state has to end, if earlier than [`Self::tick`]. `slept` is the time for
    /// which the kernel was suspended since the last reading.
    fn shortened(self, ticks: Ticks, now: Reading, slept: Duration) -> Option<u32> {
        if self.tick == 0 || over(self.tick, now.tick) {
            return None;
        }
        let left = self.tick.wrapping_sub(now.tick);
        let by_boot_time = left.saturating_sub(ticks.spanned(slept));
        let by_wall_clock = self.wall.and_then(|end| {
            // The wall time is cut to whole seconds, so the state may have almost a second more.
            let seconds = end.checked_sub(now.wall).map_or(0, |seconds| seconds + 1);
            (seconds + SLACK < ticks.seconds(left)).then(|| ticks.spanned(Duration::from_secs(seconds)))
        });
        let shortest = by_wall_clock.unwrap_or(left).min(by_boot_time);
        // 0 means without an end.
        (shortest < left).then(|| now.tick.wrapping_add(shortest).max(1))
    }
}

/// The clocks as the daemon knows them.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The difference of boot time and monotonic time that the deadlines take into account; `None` before the
    /// first reading.
    suspended: Option<Duration>,
    /// The grace period: its deadline in ticks, and in seconds since 1970. Nothing on disk has the latter.
    grace: Option<(u32, u64)>,
}

impl Clocks {
    /// Returns the time for which the kernel was suspended and that the deadlines do not take into account yet.
    fn slept(&mut self, now: Reading) -> Duration {
        let before = *self.suspended.get_or_insert(now.suspended);
        let slept = now.suspended.saturating_sub(before);
        if slept < SHORTEST { Duration::ZERO } else { slept }
    }

    /// Records that the deadlines take the suspensions before `now` into account.
    fn counted(&mut self, now: Reading) {
        if !self.slept(now).is_zero() {
            self.suspended = Some(now.suspended);
        }
    }

    /// Returns the end of a grace period with this deadline. The first reading decides the wall time.
    fn end_of_grace(&mut self, ticks: Ticks, tick: u32, now: Reading) -> End {
        let known = self.grace.filter(|(known, _)| *known == tick);
        let (_, wall) = known.unwrap_or_else(|| {
            let left = if tick == 0 || over(tick, now.tick) { 0 } else { tick.wrapping_sub(now.tick) };
            (tick, now.wall.saturating_add(ticks.seconds(left)))
        });
        self.grace = Some((tick, wall));
        End { tick, wall: Some(wall) }
    }
}

/// The effect of ending timed states earlier.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Shortened {
    /// The new deadline of the pending change, if it comes earlier.
    pub(in crate::daemon) deadline: Option<u32>,
    /// True if the maps may have changed.
    pub(in crate::daemon) maps: bool,
}

impl Overrides {
    /// Ends timed states earlier if the machine stood still: also the time to confirm the pending change, whose
    /// deadline has the wall time `until`. Must be called with the lock on changes, after the state on disk was
    /// adopted.
    ///
    /// # Errors
    /// If the clocks cannot be read.
    pub(in crate::daemon) fn follow_clocks(
        &mut self,
        context: &Context,
        until: Option<u64>,
    ) -> Result<Shortened, KernelError> {
        let now = Reading::now(context.ticks)?;
        let slept = self.clocks.slept(now);
        let shorter = self.shorter(context, now, slept, until);
        if shorter.is_nothing() {
            self.clocks.counted(now);
            return Ok(Shortened::default());
        }
        let mut shortened = Shortened { deadline: None, maps: true };
        match self.try_shorten(context, &shorter, now, &mut shortened) {
            Ok(()) => self.clocks.counted(now),
            Err(error) => {
                error!("this machine stood still, and timed states outlive their time: {:#}", anyhow!(error));
            }
        }
        Ok(shortened)
    }

    /// Returns the states that have to end earlier. `until` is the wall time of the deadline of the pending
    /// change.
    fn shorter(&mut self, context: &Context, now: Reading, slept: Duration, until: Option<u64>) -> Shorter {
        let ticks = context.ticks;
        let shortened = |end: End| end.shortened(ticks, now, slept);
        let active = control::active(&context.pins).ok();
        let change = active.and_then(|active| {
            shortened(End { tick: active.deadline(), wall: until })
                .map(|tick| Active::until(active.installed(), active.fallback(), tick))
        });
        let suspension = self.suspension.as_ref().and_then(|it| {
            let opens = it.kind == SuspensionKind::Bypass && it.until != 0;
            shortened(End { tick: it.deadline, wall: opens.then_some(it.until) })
        });
        let grace =
            control::grace(&context.pins).ok().filter(|grace| *grace != Timed::NONE).and_then(|grace| {
                let end = self.clocks.end_of_grace(ticks, grace.deadline(), now);
                shortened(end).map(|tick| Timed::until(grace.kind(), tick))
            });
        let exceptions = self.exceptions.iter().filter_map(|held| {
            let wall = held.granted.saturating_add(held.seconds.into());
            let tick = shortened(End { tick: held.deadline, wall: Some(wall) })?;
            Some((held.name.clone(), tick))
        });
        Shorter { change, suspension, grace, exceptions: exceptions.collect() }
    }

    /// Writes the earlier ends to the maps, and to the records on disk.
    fn try_shorten(
        &mut self,
        context: &Context,
        shorter: &Shorter,
        now: Reading,
        shortened: &mut Shortened,
    ) -> Result<(), KernelError> {
        let ticks = context.ticks;
        let tell = |what: &str, before: u32, after: u32| {
            let lost = duration(ticks.seconds(before.wrapping_sub(after)));
            let end = match after.wrapping_sub(now.tick) {
                0 => "now".to_owned(),
                left => format!("in {}", duration(ticks.seconds(left))),
            };
            let message = format!(
                "this machine stood still, or its clock was set forward: {what} ends {end}, {lost} of running \
                 time earlier"
            );
            warn!("{message}");
            terminals::tell(&message);
        };
        if let Some(active) = shorter.change {
            let before = control::active(&context.pins)?.deadline();
            control::set_active(&context.pins, active)?;
            shortened.deadline = Some(active.deadline());
            tell("the time to confirm the change", before, active.deadline());
        }
        if let Some(tick) = shorter.suspension
            && let Some(suspension) = &mut self.suspension
        {
            let (kind, before) = (suspension.kind, suspension.deadline);
            suspension.deadline = tick;
            let record = suspension.clone();
            scene(context).record(Some(&record));
            control::set_suspension(&context.pins, Timed::until(kind.number(), tick))?;
            tell(&format!("the {}", kind.name()), before, tick);
        }
        if let Some(grace) = shorter.grace {
            let before = control::grace(&context.pins)?.deadline();
            control::set_grace(&context.pins, grace)?;
            self.clocks.grace = None;
            tell("the grace period", before, grace.deadline());
        }
        for (name, tick) in &shorter.exceptions {
            let Some(at) = self.exceptions.iter().position(|held| held.name == *name) else { continue };
            let exception = &mut self.exceptions[at];
            control::shorten_exceptions(&context.pins, *tick, own_lines(exception))?;
            tell(&format!("exception/{name}"), exception.deadline, *tick);
            exception.deadline = *tick;
        }
        if !shorter.exceptions.is_empty() {
            scene(context).save(&self.exceptions);
        }
        Ok(())
    }
}

/// The timed states that have to end earlier, with the new ends in ticks.
#[derive(Debug, PartialEq, Eq)]
struct Shorter {
    /// The word with the generation in force.
    change: Option<Active>,
    /// The end of the bypass or lockdown.
    suspension: Option<u32>,
    grace: Option<Timed>,
    /// Names of exceptions, with their ends.
    exceptions: Vec<(String, u32)>,
}

impl Shorter {
    const fn is_nothing(&self) -> bool {
        self.change.is_none()
            && self.suspension.is_none()
            && self.grace.is_none()
            && self.exceptions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKS: Ticks = Ticks::new(250);
    const MINUTE: u64 = 60;
    const WEEKEND: u64 = 2 * 86_400;
    /// The wall time of the grant in all tests.
    const GRANTED: u64 = 1_800_000_000;

    fn ticks(seconds: u64) -> u32 {
        TICKS.spanned(Duration::from_secs(seconds))
    }

    /// Returns the reading after the tick counter has advanced by `ran` seconds and the wall clock by `wall`
    /// seconds, from a time at which the tick counter was at `origin`.
    fn reading(origin: u32, ran: u64, wall: i64) -> Reading {
        let wall = GRANTED.checked_add_signed(wall).unwrap();
        Reading { tick: origin.wrapping_add(ticks(ran)), suspended: Duration::ZERO, wall }
    }

    /// Returns the seconds that are left of 15 minutes.
    fn left(origin: u32, opens: bool, ran: u64, slept: u64, wall: i64) -> u64 {
        let granted = 15 * MINUTE;
        let end = End {
            tick: origin.wrapping_add(ticks(granted)).max(1),
            wall: opens.then_some(GRANTED + granted),
        };
        let now = reading(origin, ran, wall);
        let tick = end.shortened(TICKS, now, Duration::from_secs(slept)).unwrap_or(end.tick);
        if over(tick, now.tick) { 0 } else { TICKS.seconds(tick.wrapping_sub(now.tick)) }
    }

    /// Every combination of the three clocks: the kernel was suspended or not; the wall clock advanced like
    /// monotonic time, like boot time, further, or less; the state allows something or not.
    #[test]
    fn no_combination_of_clocks_grants_more_than_was_left() {
        let (ran, weekend) = (5 * MINUTE, WEEKEND.cast_signed());
        let ran_wall = ran.cast_signed();
        let cases = [
            // suspended for, wall clock since the grant, left if the state allows, left of a lockdown
            ("nothing happened", 0, ran_wall, 600, 600),
            ("the kernel was suspended", WEEKEND, ran_wall + weekend, 0, 0),
            ("suspended for a short time", 60, ran_wall + 60, 540, 540),
            ("suspended, and the clock was not corrected", WEEKEND, ran_wall, 0, 0),
            ("suspended, and the clock was set back", 60, ran_wall - 3_600, 540, 540),
            ("suspended, then stopped", 60, ran_wall + 120, 480, 540),
            ("stopped or restored, and the clock was corrected", 0, ran_wall + weekend, 0, 600),
            ("stopped for a short time", 0, ran_wall + 60, 541, 600),
            ("the clock was corrected by a little", 0, ran_wall + 2, 600, 600),
            ("the clock was set back by an hour", 0, ran_wall - 3_600, 600, 600),
            ("the clock was set back by a year", 0, ran_wall - 365 * 86_400, 600, 600),
            ("the clock was set forward by a year", 0, ran_wall + 365 * 86_400, 0, 600),
        ];
        for origin in [0, 1, 1_000_000, u32::MAX - ticks(7 * MINUTE), u32::MAX - ticks(15 * MINUTE)] {
            for (what, slept, wall, opens, closes) in cases {
                let found = (left(origin, true, ran, slept, wall), left(origin, false, ran, slept, wall));
                let near = |found: u64, wanted: u64| found.abs_diff(wanted) <= 2;
                assert!(
                    near(found.0, opens) && near(found.1, closes),
                    "{what}, from tick {origin}: {found:?}, not {opens} and {closes}"
                );
                assert!(found.0.max(found.1) <= 601, "{what}: more than was left");
            }
        }
    }

    #[test]
    fn ended_and_endless_states_stay_as_they_are() {
        let now = reading(1_000, 0, WEEKEND.cast_signed());
        let slept = Duration::from_secs(WEEKEND);
        for tick in [0, 1_000, 999, 1] {
            assert_eq!(End { tick, wall: Some(GRANTED) }.shortened(TICKS, now, slept), None, "{tick}");
        }
        let running = End { tick: 1_100, wall: None };
        assert_eq!(running.shortened(TICKS, now, Duration::ZERO), None);
        assert_eq!(running.shortened(TICKS, now, slept), Some(1_000), "over at this tick");
        let wrapped = Reading { tick: 0, ..now };
        assert_eq!(running.shortened(TICKS, wrapped, slept), Some(1), "0 would mean without an end");
    }

    #[test]
    fn shortened_state_is_not_shortened_again() {
        for rate in [100, 250, 300, 1_000] {
            let rate = Ticks::new(rate);
            for jumped in 0..900 {
                let now = reading(7, 0, jumped);
                let wall = Some(GRANTED + 900);
                let tick = 7 + rate.spanned(Duration::from_secs(900));
                let Some(tick) = (End { tick, wall }).shortened(rate, now, Duration::ZERO) else {
                    assert!(jumped <= 4, "{jumped} s were not noticed");
                    continue;
                };
                assert!(jumped > 2, "{jumped} s");
                assert_eq!(End { tick, wall }.shortened(rate, now, Duration::ZERO), None, "{jumped} s");
            }
        }
    }

    #[test]
    fn suspensions_add_up_and_count_once() {
        let mut clocks = Clocks::default();
        let mut at = |milliseconds, is_written| {
            let suspended = Duration::from_millis(milliseconds);
            let now = Reading { suspended, ..reading(1, 0, 0) };
            let slept = clocks.slept(now).as_millis();
            if is_written {
                clocks.counted(now);
            }
            slept
        };
        // The first reading may contain the offset of a time namespace.
        let found = [5_000, 5_400, 5_900, 6_000, 6_000, 6_999, 16_000, 15_000, 16_500].map(|it| at(it, true));
        assert_eq!(found, [0, 0, 0, 1_000, 0, 0, 10_000, 0, 0]);
        let found =
            [(17_000, false), (18_000, false), (18_000, true), (18_000, true)].map(|(it, done)| at(it, done));
        assert_eq!(found, [1_000, 2_000, 2_000, 0], "earlier ends that were not written are written later");
    }

    #[test]
    fn grace_period_keeps_the_wall_time_of_its_first_reading() {
        let mut clocks = Clocks::default();
        let first = reading(100, 0, 0);
        let tick = first.tick + ticks(60);
        let wall = Some(GRANTED + TICKS.seconds(ticks(60)));
        assert_eq!(clocks.end_of_grace(TICKS, tick, first).wall, wall);
        let later = reading(100, 10, WEEKEND.cast_signed());
        let end = clocks.end_of_grace(TICKS, tick, later);
        assert_eq!(end.wall, wall);
        assert_eq!(end.shortened(TICKS, later, Duration::ZERO), Some(later.tick));
        let another = clocks.end_of_grace(TICKS, tick + 1, later);
        assert!(another.wall > Some(GRANTED + WEEKEND), "another grace period: {another:?}");
    }
}
