//! The times of the checks.

use std::time::Duration;

use anyhow::anyhow;
use log::{error, warn};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::kernel::{
    KernelError,
    monitor::{Monitor, News},
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
pub(in crate::daemon) struct ReconcileTimer {
    monitor: Monitor,
    regular: Interval,
    last: Instant,
    patience: Patience,
}

impl ReconcileTimer {
    pub(in crate::daemon) fn new() -> Result<Self, KernelError> {
        let mut regular = tokio::time::interval(RECONCILE_INTERVAL);
        regular.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { monitor: Monitor::new()?, regular, last: Instant::now(), patience: Patience::new() })
    }

    /// Waits until the next check is due.
    pub(in crate::daemon) async fn due(&mut self) {
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
