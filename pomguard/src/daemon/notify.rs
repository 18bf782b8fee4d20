//! What systemd is told. Without systemd all of it does nothing.

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

fn tell(states: &[NotifyState<'_>]) {
    if let Err(fault) = sd_notify::notify(states) {
        warn!("systemd was not told: {fault}");
    }
}
