//! What systemd is told. Without systemd all of it does nothing.

use std::time::{Duration, Instant};

use log::warn;
use nix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;

/// In force: sent only when the policy is installed and the programs are attached.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What is so now.
pub(super) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Taking the files anew. systemd 253 and later wants to know since when.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000);
    tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(i128::from(now))]);
}

/// About to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The unit's watchdog. It is fed after a look that found links, programs and policy as they were made,
/// or put right: never by a clock alone.
pub(super) struct Watchdog {
    /// How often it is fed; none where systemd does not wait for it.
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|waits| waits / 4), last: None }
    }

    pub(super) fn ping(&mut self) {
        let Some(every) = self.every else { return };
        if self.last.is_none_or(|last| last.elapsed() >= every) {
            tell(&[NotifyState::Watchdog]);
            self.last = Some(Instant::now());
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(fault) = sd_notify::notify(states) {
        warn!("systemd was not told: {fault}");
    }
}
