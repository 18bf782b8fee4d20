//! When everything is looked at, and what is told of it.

use std::{sync::PoisonError, time::Duration};

use anyhow::anyhow;
use log::{error, warn};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{Daemon, audit, transition::Waiting};
use crate::{
    kernel::{
        KernelError,
        monitor::{Monitor, News},
    },
    observe::condition::Condition,
};

/// How often everything is looked at that nobody announces.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// How soon after a look the next one may be. While the kernel goes on announcing it is twice as long each
/// time, up to the regular beat: an interface that flaps, or thousands that come and go alongside the guarded
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
    fn checked(&mut self) {
        let flood = std::mem::take(&mut self.announced);
        self.pause = if flood { (2 * self.pause).min(RECONCILE_INTERVAL) } else { PAUSE };
    }
}

/// A regular beat, and one more whenever the kernel announces a change.
pub(super) struct ReconcileTimer {
    monitor: Monitor,
    regular: Interval,
    last: Instant,
    patience: Patience,
}

impl ReconcileTimer {
    pub(super) fn new() -> Result<Self, KernelError> {
        let mut regular = tokio::time::interval(RECONCILE_INTERVAL);
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
                        Err(error) => {
                            error!("{:#}", anyhow!(error));
                            tokio::time::sleep(RECONCILE_INTERVAL).await;
                        }
                    }
                    self.regular.reset_after(self.patience.announced(self.last.elapsed()));
                }
                _ = self.regular.tick() => {
                    self.last = Instant::now();
                    self.patience.checked();
                    return;
                }
            }
        }
    }
}

impl Daemon {
    /// Looks at everything once, and tells what is not as it should be.
    pub(super) fn check(&mut self) {
        self.systemd.tell_again();
        self.sweep_exceptions();
        // Whoever changes something by hand has the lock meanwhile; the next beat is soon enough.
        let _change = match self.runtime.try_change() {
            Ok(Some(change)) => change,
            Ok(None) => return,
            Err(error) => return error!("{:#}", anyhow!(error)),
        };
        self.save_again();
        self.note_unserved();
        let mut check = if self.runtime.detached() {
            self.reconciler.release(&self.lasting_conditions)
        } else {
            self.adopt_panic();
            let settings = self.waiting.as_ref().map_or(&self.settings, |waiting| &waiting.next.settings);
            let how = settings.attach;
            let mut check =
                self.reconciler.check(&mut self.loaded, &self.pins, how, &self.lasting_conditions);
            self.check_addresses(&mut check);
            self.reconciler.tell(&check);
            // After what others wrote was put back, so that nothing but this is new in what is sealed.
            self.clear_ended();
            self.sweep_flows();
            check
        };
        check.conditions.extend(self.panic_now());
        audit::repairs(&check.repairs);
        check.conditions.extend(self.record_drops());
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            for repair in check.repairs {
                *state.repairs.entry(repair).or_default() += 1;
                state.self_check_mismatches += 1;
            }
            state.rollback_at = self.waiting.as_ref().and_then(Waiting::until);
            state.conditions = check.conditions.keys().copied().collect();
        }
        // Whatever is named is known; only what could not be looked at is not.
        if !check.conditions.contains_key(&Condition::SelfCheckFailed) {
            self.systemd.ping();
        }
        self.conditions = check.conditions;
        let message: Vec<String> = self
            .conditions
            .iter()
            .map(|(condition, about)| format!("{}: {about}", condition.name()))
            .collect();
        let message = if message.is_empty() {
            self.status.clone()
        } else {
            format!("DEGRADED: {}; {}", message.join("; "), self.status)
        };
        if message != self.last_status {
            self.systemd.status(&message);
            self.last_status = message;
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
                patience.checked();
                (last, looks) = (now, looks + 1);
            }
        }
        assert!((20..=24).contains(&looks), "{looks} looks");
    }

    #[test]
    fn single_announcement_is_looked_into_at_once() {
        let mut patience = Patience::new();
        assert!(patience.announced(Duration::from_millis(400)).is_zero());
        patience.checked();
        patience.checked();
        assert!(patience.announced(PAUSE).is_zero(), "after a beat without one it is as before");
    }
}
