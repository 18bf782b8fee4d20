//! Panic: the policy suspended for a while, one way or the other. The programs end it by themselves.

use anyhow::{Context as _, anyhow, bail};
use log::{error, warn};
use pomguard_common::control::{Timed, over};

use super::{Daemon, change::boot_id};
use crate::{
    control::protocol::Panic,
    kernel::control,
    render::quantity::duration,
    state::panic::{self, Suspension},
};

/// Longest panic: a day. What is to last longer is a policy.
const LONGEST: u32 = 86_400;

impl Daemon {
    /// Suspends the policy. Returns a sentence about it.
    pub(super) fn panic(&mut self, kind: Panic, seconds: u32) -> anyhow::Result<String> {
        if seconds == 0 || seconds > LONGEST {
            bail!(
                "a {} lasts from one second to {}: what is to last longer is a policy",
                kind.name(),
                duration(LONGEST.into())
            );
        }
        let deadline = self.ticks.deadline(seconds)?;
        let _entitled = self.entitled()?;
        control::set_panic(&self.pins, Timed::until(kind.number(), deadline))
            .with_context(|| format!("begin the {}", kind.name()))?;
        self.reconciler.record_baseline(&self.pins);
        self.record_panic();
        let message = format!("{} for {}", kind.name(), duration(seconds.into()));
        error!("{message}: the policy is suspended");
        Ok(message)
    }

    /// Ends a panic before its time. Returns a sentence about it.
    pub(super) fn end_panic(&mut self) -> anyhow::Result<String> {
        let now = self.ticks.now()? as u32;
        let held = control::panic(&self.pins)?.holds(now);
        let _entitled = self.entitled()?;
        control::set_panic(&self.pins, Timed::NONE).context("end bypass and lockdown")?;
        self.reconciler.record_baseline(&self.pins);
        self.record_panic();
        let Some(kind) = Panic::of_number(held) else {
            bail!("neither a bypass nor a lockdown is to be ended")
        };
        let message = format!("{} is over: the policy holds again", kind.name());
        warn!("{message}");
        Ok(message)
    }

    /// Has the record alongside the maps say what they say.
    pub(super) fn record_panic(&self) {
        let recorded = control::panic(&self.pins).map_err(anyhow::Error::from).and_then(|held| {
            let suspension = match Panic::of_number(held.kind()) {
                Some(kind) => Some(Suspension { kind, boot: boot_id()?, deadline: held.deadline() }),
                None => None,
            };
            Ok(panic::save(&self.settings.paths.runtime, suspension.as_ref())?)
        });
        if let Err(error) = recorded {
            error!("the bypass or lockdown is not recorded for a version with other maps: {error:#}");
        }
    }

    /// Has maps that are new hold the panic that the ones before them held.
    pub(super) fn continue_panic(&self) -> anyhow::Result<()> {
        let Some(Suspension { kind, boot, deadline }) =
            panic::load(&self.settings.paths.runtime).map_err(|error| {
                anyhow!(error).context("read the record of the bypass or lockdown that holds")
            })?
        else {
            return Ok(());
        };
        if boot == boot_id()? && !over(deadline, self.ticks.now()? as u32) {
            control::set_panic(&self.pins, Timed::until(kind.number(), deadline))?;
            error!("{} goes on", kind.name());
        }
        Ok(())
    }

    /// Clears the words of panic and grace when their time is up; to be called with the lock on changes.
    pub(super) fn clear_ended(&mut self) {
        let Ok(now) = self.ticks.now().map(|now| now as u32) else { return };
        // That the maps cannot be read or written is told by the look at what they hold.
        if control::clear_ended(&self.pins, now).is_ok_and(|any| any) {
            self.reconciler.record_baseline(&self.pins);
        }
    }
}
