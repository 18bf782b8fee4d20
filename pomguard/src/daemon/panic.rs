//! Panic: the policy suspended for a while, one way or the other. The programs end it by themselves.

use anyhow::{Context as _, bail};
use log::{error, warn};
use pomguard_common::control::Timed;

use super::Daemon;
use crate::{control::protocol::Panic, kernel::control, render::quantity::span};

/// Longest panic: a day. What is to last longer is a policy.
const LONGEST: u32 = 86_400;

impl Daemon {
    /// Suspends the policy. Returns a sentence about it.
    pub(super) fn panic(&mut self, kind: Panic, seconds: u32) -> anyhow::Result<String> {
        if seconds == 0 || seconds > LONGEST {
            bail!(
                "a panic lasts from one second to {}: what is to last longer is a policy",
                span(LONGEST.into())
            );
        }
        let deadline = self.ticks.deadline(seconds)?;
        let _entitled = self.entitled()?;
        control::set_panic(&self.pins, Timed::until(kind.number(), deadline)).context("begin the panic")?;
        self.guard.seal(&self.pins);
        let told = format!("panic {} for {}", kind.name(), span(seconds.into()));
        error!("{told}: the policy is suspended");
        Ok(told)
    }

    /// Ends a panic before its time. Returns a sentence about it.
    pub(super) fn end_panic(&mut self) -> anyhow::Result<String> {
        let now = self.ticks.now()? as u32;
        let held = control::panic(&self.pins)?.holds(now);
        let _entitled = self.entitled()?;
        control::set_panic(&self.pins, Timed::NONE).context("end the panic")?;
        self.guard.seal(&self.pins);
        let Some(kind) = Panic::of_number(held) else { bail!("there is no panic to end") };
        let told = format!("panic {} is over: the policy holds again", kind.name());
        warn!("{told}");
        Ok(told)
    }

    /// Clears the words of panic and grace when their time is up; to be called with the lock on changes.
    pub(super) fn clear_ended(&mut self) {
        let Ok(now) = self.ticks.now().map(|now| now as u32) else { return };
        // That the maps cannot be read or written is told by the look at what they hold.
        if control::clear_ended(&self.pins, now).is_ok_and(|any| any) {
            self.guard.seal(&self.pins);
        }
    }
}
