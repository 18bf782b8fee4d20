//! When everything is looked at, and what is told of it.

use std::{sync::PoisonError, time::Duration};

use anyhow::anyhow;
use log::{error, warn};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{Daemon, confirm::Waiting};
use crate::{
    kernel::{
        KernelError,
        monitor::{Monitor, News},
    },
    observe::condition::Condition,
};

/// How often everything is looked at that nobody announces.
const BEAT: Duration = Duration::from_millis(500);
/// How soon after a look the next one may be. While the kernel goes on announcing it is twice as long each
/// time, up to the regular beat: an interface that flaps, or thousands that come and go beside the guarded
/// ones, make no more looks than silence does.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the pause is.
#[derive(Debug)]
struct Patience {
    pause: Duration,
    /// Something was announced since the last look.
    announced: bool,
}

impl Patience {
    const fn new() -> Self {
        Self { pause: PAUSE, announced: false }
    }

    /// Something is announced so long after the last look: how long the next one is to wait yet.
    const fn announced(&mut self, since: Duration) -> Duration {
        self.announced = true;
        self.pause.saturating_sub(since)
    }

    /// A look is taken.
    fn looked(&mut self) {
        let flood = std::mem::take(&mut self.announced);
        self.pause = if flood { (2 * self.pause).min(BEAT) } else { PAUSE };
    }
}

/// A regular beat, and one more whenever the kernel announces a change.
pub(super) struct Beat {
    monitor: Monitor,
    regular: Interval,
    last: Instant,
    patience: Patience,
}

impl Beat {
    pub(super) fn new() -> Result<Self, KernelError> {
        let mut regular = tokio::time::interval(BEAT);
        regular.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { monitor: Monitor::new()?, regular, last: Instant::now(), patience: Patience::new() })
    }

    /// Waits until the next look is due.
    pub(super) async fn due(&mut self) {
        loop {
            tokio::select! {
                news = self.monitor.news() => {
                    match news {
                        Ok(News::Changed) => {}
                        Ok(News::Missed) => warn!("the kernel announced more than could be read"),
                        Err(fault) => {
                            error!("{:#}", anyhow!(fault));
                            tokio::time::sleep(BEAT).await;
                        }
                    }
                    self.regular.reset_after(self.patience.announced(self.last.elapsed()));
                }
                _ = self.regular.tick() => {
                    self.last = Instant::now();
                    self.patience.looked();
                    return;
                }
            }
        }
    }
}

impl Daemon {
    /// Looks at everything once, and tells what is not as it should be.
    pub(super) fn look(&mut self) {
        self.systemd.tell_again();
        self.sweep_exceptions();
        // Whoever changes something by hand has the lock meanwhile; the next beat is soon enough.
        let _change = match self.runtime.try_change() {
            Ok(Some(change)) => change,
            Ok(None) => return,
            Err(fault) => return error!("{:#}", anyhow!(fault)),
        };
        self.save_again();
        self.note_unserved();
        let mut look = if self.runtime.detached() {
            self.guard.release(&self.standing)
        } else {
            let look = self.guard.look(&mut self.loaded, &self.pins, self.settings.attach, &self.standing);
            // After what others wrote was put back, so that nothing but this is new in what is sealed.
            self.clear_ended();
            self.sweep_flows();
            look
        };
        look.conditions.extend(self.panic_now());
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            for repair in look.repairs {
                *state.repairs.entry(repair).or_default() += 1;
                state.self_check_mismatches += 1;
            }
            state.rollback_at = self.waiting.as_ref().and_then(Waiting::until);
            state.conditions = look.conditions.keys().copied().collect();
        }
        // Whatever is named is known; only what could not be looked at is not.
        if !look.conditions.contains_key(&Condition::SelfCheckFailed) {
            self.systemd.ping();
        }
        self.conditions = look.conditions;
        let told: Vec<String> = self
            .conditions
            .iter()
            .map(|(condition, about)| format!("{}: {about}", condition.name()))
            .collect();
        let told = if told.is_empty() {
            self.status.clone()
        } else {
            format!("DEGRADED: {}; {}", told.join("; "), self.status)
        };
        if told != self.told {
            self.systemd.status(&told);
            self.told = told;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_announcements_makes_as_many_looks_as_silence() {
        let mut patience = Patience::new();
        let (mut now, mut looks) = (Duration::ZERO, 0);
        // Announced every millisecond for ten seconds.
        let mut last = now;
        while now < Duration::from_secs(10) {
            now += Duration::from_millis(1);
            if patience.announced(now.saturating_sub(last)).is_zero() {
                patience.looked();
                (last, looks) = (now, looks + 1);
            }
        }
        assert!((20..=24).contains(&looks), "{looks} looks");
    }

    #[test]
    fn single_announcement_is_looked_into_at_once() {
        let mut patience = Patience::new();
        assert!(patience.announced(Duration::from_millis(400)).is_zero());
        patience.looked();
        patience.looked();
        assert!(patience.announced(PAUSE).is_zero(), "after a beat without one it is as before");
    }
}
