//! Judges if the guard of an interface sees the packets that the card takes. After a reset, a driver may
//! continue without the program and still report that the program is attached.
//!
//! The two counters are never equal: the kernel may merge packets before the program runs, drivers count
//! frames that a filter of the card drops, and some drivers update their counters only now and then.
//! Therefore a guard is blind only if the guard's counter stands still while the card works.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::kernel::sight::Sight;

/// The shortest time between two checks.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(450);
/// The number of packets that a card must take between two checks before the guard counts as blind.
const ENOUGH: u64 = 16;
/// The time within which exchanging the program must restore sight.
const HELPS_WITHIN: Duration = Duration::from_secs(1);
/// The number of attempts within [`ATTEMPTS_IN`].
const ATTEMPTS: usize = 2;
const ATTEMPTS_IN: Duration = Duration::from_secs(600);
/// The time for which a guard must see only a part before that is reported.
const MINUTE: Duration = Duration::from_secs(60);

/// An action against a blind guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Put the same program behind the link again: no packet goes unjudged.
    Renew,
    /// Change to generic mode, which does not depend on the driver.
    Generic,
}

/// The state of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// True if the guard is blind.
    pub(super) unseen: bool,
    /// True if the guard sees less than nine tenths of the packets.
    pub(super) partly: bool,
    /// The action to take now.
    pub(super) act: Option<Act>,
}

/// The counters of one interface over time.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: Option<(Instant, Vec<Sight>)>,
    /// The start of the present minute, and the counters then.
    minute: Option<(Instant, Vec<Sight>)>,
    /// The cards from which the guard receives nothing: for a bond in native mode each member is a card.
    blind: BTreeSet<u32>,
    partly: bool,
    /// The time at which the program was renewed, and the counters then.
    renewed: Option<(Instant, Vec<Sight>)>,
    attempts: VecDeque<Instant>,
}

/// The number of packets of one card in a period.
struct Grown {
    card: u32,
    took: u64,
    saw: u64,
}

impl Grown {
    const fn is_blind(&self) -> bool {
        self.took >= ENOUGH && self.saw == 0
    }
}

/// Returns the packets that each card took and the guard saw since `before`; new cards are left out.
fn since<'a>(before: &'a [Sight], now: &'a [Sight]) -> impl Iterator<Item = Grown> + 'a {
    let before: BTreeMap<u32, &Sight> = before.iter().map(|sight| (sight.card, sight)).collect();
    now.iter().filter_map(move |sight| {
        let then = before.get(&sight.card)?;
        // A card that was reset starts from zero.
        let (took, saw) = (sight.took.checked_sub(then.took)?, sight.saw.checked_sub(then.saw)?);
        Some(Grown { card: sight.card, took, saw })
    })
}

fn is_blind(before: &[Sight], now: &[Sight]) -> bool {
    since(before, now).any(|card| card.is_blind())
}

impl Watch {
    /// Returns true if the next check is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= CHECK_INTERVAL)
    }

    /// Returns the result of the last check.
    pub(super) fn view(&self) -> View {
        View { unseen: !self.blind.is_empty(), partly: self.partly, act: None }
    }

    /// Compares the counters with those of the last check, and returns the result.
    pub(super) fn check(&mut self, now: Instant, cards: Vec<Sight>, native: bool) -> View {
        if let Some((_, before)) = &self.last {
            // Each card by itself: a member of a bond that works says nothing about another member.
            for grown in since(before, &cards) {
                if grown.is_blind() {
                    self.blind.insert(grown.card);
                } else if grown.saw > 0 {
                    self.blind.remove(&grown.card);
                }
            }
            self.blind.retain(|blind| cards.iter().any(|sight| sight.card == *blind));
            if self.blind.is_empty() {
                self.renewed = None;
            }
        }
        self.judge_minute(now, &cards, native);
        let act = if self.blind.is_empty() { None } else { self.act(now, &cards, native) };
        self.last = Some((now, cards));
        View { act, ..self.view() }
    }

    /// Judges the last minute. The result is only a warning, and only in native mode: in generic mode the
    /// kernel merges packets before the program runs.
    fn judge_minute(&mut self, now: Instant, cards: &[Sight], native: bool) {
        let Some((begun, before)) = self.minute.as_ref().filter(|_| native) else {
            (self.minute, self.partly) = (Some((now, cards.to_vec())), false);
            return;
        };
        if now.saturating_duration_since(*begun) < MINUTE {
            return;
        }
        self.partly =
            since(before, cards).any(|card| card.took >= ENOUGH && card.saw < card.took - card.took / 10);
        self.minute = Some((now, cards.to_vec()));
    }

    fn act(&mut self, now: Instant, cards: &[Sight], native: bool) -> Option<Act> {
        if let Some((renewed, before)) = &self.renewed {
            if now.saturating_duration_since(*renewed) < HELPS_WITHIN || !is_blind(before, cards) {
                return None;
            }
            if native {
                self.renewed = None;
                return Some(Act::Generic);
            }
        }
        while self.attempts.front().is_some_and(|at| now.saturating_duration_since(*at) >= ATTEMPTS_IN) {
            self.attempts.pop_front();
        }
        if self.attempts.len() >= ATTEMPTS {
            return None;
        }
        self.attempts.push_back(now);
        self.renewed = Some((now, cards.to_vec()));
        Some(Act::Renew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks one card and one guard every half second; the counters of both grow by the given numbers of
    /// packets each time.
    struct Series {
        watch: Watch,
        now: Instant,
        sight: Sight,
        native: bool,
    }

    impl Series {
        fn new(native: bool) -> Self {
            let sight = Sight { card: 2, took: 1_000, saw: 900 };
            let mut series = Self { watch: Watch::default(), now: Instant::now(), sight, native };
            assert_eq!(series.next(0, 0), View::default());
            series
        }

        fn next(&mut self, took: u64, saw: u64) -> View {
            self.now += Duration::from_millis(500);
            (self.sight.took, self.sight.saw) = (self.sight.took + took, self.sight.saw + saw);
            assert!(self.watch.is_due(self.now));
            self.watch.check(self.now, vec![self.sight], self.native)
        }
    }

    #[test]
    fn guard_that_stands_still_while_its_card_works_is_blind() {
        let mut series = Series::new(true);
        assert!(!series.next(15, 0).unseen, "15 packets may be frames that a filter drops");
        assert!(!series.next(1_000, 1).unseen, "it sees");
        let view = series.next(16, 0);
        assert_eq!((view.unseen, view.act), (true, Some(Act::Renew)));
        assert_eq!(series.next(500, 0).act, None, "an exchange has a second to help");
        let view = series.next(500, 0);
        assert_eq!((view.unseen, view.act), (true, Some(Act::Generic)));
        assert_eq!(series.next(500, 400), View::default(), "it sees again");
    }

    #[test]
    fn exchange_that_helps_is_all_that_is_done() {
        let mut series = Series::new(true);
        assert_eq!(series.next(20, 0).act, Some(Act::Renew));
        assert_eq!(series.next(20, 19), View::default());
        for _ in 0..10 {
            assert_eq!(series.next(20, 20), View::default());
        }
    }

    #[test]
    fn two_attempts_in_ten_minutes_and_the_state_stays() {
        let mut series = Series::new(false);
        let mut renewed = 0;
        for _ in 0..1_000 {
            let view = series.next(100, 0);
            assert!(view.unseen);
            renewed += usize::from(view.act.is_some());
            assert_ne!(view.act, Some(Act::Generic), "it is generic already");
        }
        assert_eq!(renewed, ATTEMPTS);
        series.now += ATTEMPTS_IN;
        assert_eq!(series.next(100, 0).act, Some(Act::Renew), "ten minutes later it is tried again");
    }

    #[test]
    fn idle_card_changes_nothing_about_what_was_found() {
        let mut series = Series::new(true);
        series.next(20, 0);
        assert!(series.next(0, 0).unseen, "nothing shows that it sees again");
        assert!(!Series::new(true).next(0, 0).unseen);
    }

    #[test]
    fn less_than_nine_tenths_over_a_minute_is_a_warning() {
        for (saw, partly) in [(89, true), (90, false), (100, false)] {
            let mut series = Series::new(true);
            let views: Vec<View> = (0..121).map(|_| series.next(100, saw)).collect();
            assert!(views.iter().all(|view| !view.unseen && view.act.is_none()));
            assert_eq!(views.last().unwrap().partly, partly, "{saw} of 100");
        }
        let mut generic = Series::new(false);
        assert!((0..121).all(|_| !generic.next(100, 10).partly), "generic mode sees merged packets");
    }

    #[test]
    fn one_blind_member_of_a_bond_is_enough() {
        let mut watch = Watch::default();
        let now = Instant::now();
        let bond = |one: u64, other: (u64, u64)| {
            vec![Sight { card: 3, took: one, saw: one }, Sight { card: 4, took: other.0, saw: other.1 }]
        };
        watch.check(now, bond(10, (10, 10)), true);
        let view = watch.check(now + CHECK_INTERVAL, bond(500, (60, 10)), true);
        assert_eq!((view.unseen, view.act), (true, Some(Act::Renew)));
    }

    /// The blind member takes packets now and then, and the other member works all the time.
    #[test]
    fn blind_member_of_a_bond_stays_blind_while_another_works() {
        let mut watch = Watch::default();
        let start = Instant::now();
        let mut members = [Sight { card: 3, took: 0, saw: 0 }, Sight { card: 4, took: 0, saw: 0 }];
        let mut acts = Vec::new();
        for round in 0..40_u32 {
            members[0] = Sight { card: 3, took: members[0].took + 100, saw: members[0].saw + 100 };
            members[1].took += if round.is_multiple_of(4) { 16 } else { 8 };
            let view = watch.check(start + CHECK_INTERVAL * round, members.to_vec(), true);
            assert_eq!(view.unseen, round >= 4, "{round}: nothing shows that it sees again");
            acts.extend(view.act);
        }
        assert_eq!(acts[..2], [Act::Renew, Act::Generic], "{acts:?}");
        members[1].saw += 1;
        assert_eq!(watch.check(start + CHECK_INTERVAL * 41, members.to_vec(), true), View::default());
        let alone = [Sight { took: members[0].took + 20, ..members[0] }];
        assert!(watch.check(start + CHECK_INTERVAL * 42, alone.to_vec(), true).unseen);
        let other = watch.check(start + CHECK_INTERVAL * 43, members[1..].to_vec(), true);
        assert_eq!(other, View::default(), "a member that left the bond says nothing about the others");
    }

    #[test]
    fn card_that_counts_anew_is_not_judged_by_what_it_counted() {
        let mut series = Series::new(true);
        series.sight.took = 0;
        assert_eq!(series.next(5, 0), View::default());
    }
}
