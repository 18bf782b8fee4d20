//! The times of the checks, and the report of the results.

use std::{sync::PoisonError, time::Duration};

use anyhow::anyhow;
use log::{error, warn};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{Daemon, audit, overrides::Overrides, transition::Waiting};
use crate::{
    kernel::{
        KernelError,
        monitor::{Monitor, News},
    },
    observe::condition::Condition,
};

/// The interval of the checks, for changes that the kernel does not announce.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest time between two checks. While the kernel keeps announcing changes, the time doubles after
/// each check, up to the regular interval: an interface that flaps, or thousands that come and go next to the
/// guarded ones, cause no more checks than silence does.
const PAUSE: Duration = Duration::from_millis(50);

/// The time that has to pass before the next check.
#[derive(Debug)]
struct Patience {
    pause: Duration,
    /// True if a change was announced since the last check.
    announced: bool,
}

impl Patience {
    const fn new() -> Self {
        Self { pause: PAUSE, announced: false }
    }

    /// Notes an announcement `since` after the last check. Returns the time that the next check still has to
    /// wait.
    const fn announced(&mut self, since: Duration) -> Duration {
        self.announced = true;
        self.pause.saturating_sub(since)
    }

    /// Notes that a check runs.
    fn checked(&mut self) {
        let flood = std::mem::take(&mut self.announced);
        self.pause = if flood { (2 * self.pause).min(RECONCILE_INTERVAL) } else { PAUSE };
    }
}

/// A regular timer that also fires when the kernel announces a change.
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

    /// Waits until the next check is due.
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
    /// Checks everything once, and reports the conditions.
    pub(super) fn check(&mut self) {
        self.systemd.tell_again();
        self.sweep_exceptions();
        // An operator who changes something by hand has the lock meanwhile; the next check is soon enough.
        let _change = match self.context.runtime.try_change() {
            Ok(Some(change)) => change,
            Ok(None) => return,
            Err(error) => return error!("{:#}", anyhow!(error)),
        };
        self.save_again();
        self.note_unserved();
        let mut check = if self.context.runtime.detached() {
            self.reconciler.release(&self.lasting_conditions)
        } else {
            self.adopt_override();
            self.follow_clocks_in_lock();
            let settings = self.waiting.as_ref().map_or(&self.settings, |waiting| &waiting.next.settings);
            let how = settings.attach;
            let mut check =
                self.reconciler.check(&mut self.loaded, &self.context.pins, how, &self.lasting_conditions);
            self.check_addresses(&mut check);
            self.reconciler.tell(&check);
            // After foreign changes were undone, so that the recorded baseline contains no other change than
            // this one.
            self.clear_ended();
            self.announce_end();
            self.sweep_flows();
            check
        };
        check.conditions.extend(Overrides::condition(&self.context));
        audit::repairs(&check.repairs);
        check.conditions.extend(self.record_drops());
        self.keep_counts();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            for repair in check.repairs {
                *state.repairs.entry(repair).or_default() += 1;
                state.self_check_mismatches += 1;
            }
            state.rollback_at = self.waiting.as_ref().and_then(Waiting::until);
            state.conditions = check.conditions.keys().copied().collect();
        }
        // Pings the watchdog unless the self-check itself failed. A reported condition counts as a completed
        // check.
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
        // One announcement every millisecond for ten seconds.
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
