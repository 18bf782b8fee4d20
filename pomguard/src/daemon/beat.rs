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
/// How soon after a look the next one may be, however much the kernel announces.
const PAUSE: Duration = Duration::from_millis(50);

/// A regular beat, and one more whenever the kernel announces a change.
pub(super) struct Beat {
    monitor: Monitor,
    regular: Interval,
    last: Instant,
}

impl Beat {
    pub(super) fn new() -> Result<Self, KernelError> {
        let mut regular = tokio::time::interval(BEAT);
        regular.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { monitor: Monitor::new()?, regular, last: Instant::now() })
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
                    self.regular.reset_after(PAUSE.saturating_sub(self.last.elapsed()));
                }
                _ = self.regular.tick() => {
                    self.last = Instant::now();
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
