//! Bypass and lockdown: timed suspensions of the policy. The programs end a suspension by themselves.

use anyhow::Context as _;
use log::{error, warn};
use pomguard_common::control::{Timed, over};

use super::{Overrides, emergency::Asker, scene};
use crate::{
    control::protocol::SuspensionKind,
    daemon::context::{Context, boot_id},
    history::Existing,
    kernel::{clock::unix_now, control},
    observe::fates,
    policy::{Policy, own::Addresses},
    render::{flows, quantity::duration},
    state::suspension::Suspension,
    terminals,
};

/// The time before the end of a bypass at which the flows that the policy will cut are named, in seconds. A
/// bypass shorter than twice this time has the notice at half of its time.
const NOTICE: u64 = 300;

impl Overrides {
    /// Suspends the policy, and returns a sentence about it. If that succeeds, the maps have changed.
    pub(in crate::daemon) fn suspend(
        &mut self,
        context: &Context,
        kind: SuspensionKind,
        seconds: u32,
        asker: &Asker,
    ) -> anyhow::Result<String> {
        let message = scene(context).suspend(kind, seconds, asker)?;
        self.take_recorded(context);
        error!("{message}: the policy is suspended");
        Ok(message)
    }

    /// Ends a bypass or lockdown before the deadline, and returns a sentence about the end. The maps may have
    /// changed in any case.
    pub(in crate::daemon) fn resume(&mut self, context: &Context, asker: &Asker) -> anyhow::Result<String> {
        let ended = scene(context).resume(asker);
        self.take_recorded(context);
        let message = ended?;
        warn!("{message}");
        Ok(message)
    }

    /// Takes the bypass or lockdown on disk for the one that holds.
    fn take_recorded(&mut self, context: &Context) {
        self.suspension = scene(context).recorded().unwrap_or_default();
    }

    /// Writes the recorded bypass or lockdown into the maps: the maps may be new, or the process that wrote
    /// the record may have ended before it wrote the maps. If there is no record, the maps decide, and the
    /// daemon writes the record.
    pub(in crate::daemon) fn continue_suspension(&mut self, context: &Context) -> anyhow::Result<()> {
        let scene = scene(context);
        let recorded = match scene.recorded() {
            // New maps know of no suspension, and the daemon neither ends nor begins one on a guess.
            Err(error) if context.replaced.is_some() => return Err(error),
            Err(error) => {
                error!("{error:#}: the maps have the word");
                None
            }
            Ok(recorded) => recorded,
        };
        let held = control::suspension(&context.pins)?;
        if let Some(suspension) = &recorded {
            let desired = Timed::until(suspension.kind.number(), suspension.deadline);
            if desired != held {
                control::set_suspension(&context.pins, desired)?;
                error!("{} goes on", suspension.kind.name());
            }
            self.suspension = recorded;
            return Ok(());
        }
        let now = context.ticks.now()? as u32;
        let of_maps = SuspensionKind::of_number(held.holds(now)).map(|kind| {
            let left = context.ticks.seconds(held.deadline().wrapping_sub(now));
            let until = if held.deadline() == 0 { 0 } else { unix_now() + left };
            let boot = boot_id().context("read the boot's id")?;
            anyhow::Ok(Suspension {
                kind,
                boot,
                deadline: held.deadline(),
                since: 0,
                until,
                by: None,
                why: None,
            })
        });
        let of_maps = of_maps.transpose()?;
        scene.record(of_maps.as_ref());
        self.suspension = of_maps;
        Ok(())
    }

    /// Adopts a bypass or lockdown that began or ended on disk while this daemon did not answer. Must be
    /// called with the lock on changes, before foreign changes of the maps are undone. Returns true if the maps
    /// changed.
    pub(in crate::daemon) fn adopt(&mut self, context: &Context) -> bool {
        let Ok(recorded) = scene(context).recorded() else { return false };
        let Some(now) = context.now() else { return false };
        let known = self.suspension.as_ref().filter(|it| !over(it.deadline, now));
        if recorded.as_ref() == known {
            return false;
        }
        let desired = recorded.as_ref().map_or(Timed::NONE, |it| Timed::until(it.kind.number(), it.deadline));
        if let Err(error) = control::set_suspension(&context.pins, desired) {
            error!("the bypass or lockdown on disk is not in the maps: {:#}", anyhow::Error::new(error));
            return false;
        }
        match &recorded {
            Some(it) => error!("{} began while this daemon did not answer", it.kind.name()),
            None => {
                warn!("bypass or lockdown ended while this daemon did not answer: the policy holds again");
            }
        }
        self.suspension = recorded;
        true
    }

    /// Returns the seconds to the end of the bypass if the end has to be announced now: once, some minutes before.
    pub(in crate::daemon) fn announcement_due(&mut self, context: &Context) -> Option<u64> {
        let it =
            self.suspension.as_ref().filter(|it| it.kind == SuspensionKind::Bypass && it.deadline != 0)?;
        let now = context.now()?;
        if self.announced_end == Some(it.deadline) || over(it.deadline, now) {
            return None;
        }
        let left = context.ticks.seconds(it.deadline.wrapping_sub(now));
        let notice = if it.since == 0 { NOTICE } else { NOTICE.min(it.until.saturating_sub(it.since) / 2) };
        if left > notice {
            return None;
        }
        self.announced_end = Some(it.deadline);
        Some(left)
    }

    /// Names the live flows that the policy cuts when the bypass ends in `left` seconds. The programs end the bypass
    /// in any case. `here` is the policy with the addresses that this machine has now.
    pub(in crate::daemon) fn announce_end(
        &self,
        context: &Context,
        left: u64,
        here: Option<(Policy, Addresses)>,
    ) {
        let flows = here.and_then(|(policy, here)| {
            let existing = Existing::ByPolicy;
            fates::flows(
                &policy,
                &here,
                &context.pins,
                &self.exceptions,
                existing,
                Some(SuspensionKind::Bypass),
            )
        });
        let effect = match flows.map(|flows| flows::cut(&flows.impact)) {
            None => "the live flows that the policy then cuts are not known".to_owned(),
            Some(cut) if cut.is_empty() => "the policy then cuts no live flow".to_owned(),
            Some(cut) => format!(
                "the policy then cuts {}. `pomguard allow` lets a connection go on, `pomguard bypass` begins anew",
                cut.join("; ")
            ),
        };
        let sentence = format!("the bypass ends in {}: {effect}", duration(left));
        warn!("{sentence}");
        terminals::tell(&sentence);
    }

    /// Clears the words of the suspension and of the grace period when their time is up. Must be called with
    /// the lock on changes. Returns true if the maps changed.
    pub(in crate::daemon) fn clear_ended(&mut self, context: &Context) -> bool {
        let Some(now) = context.now() else { return false };
        // The check of the maps reports maps that cannot be read or written.
        let changed = control::clear_ended(&context.pins, now).is_ok_and(|any| any);
        if self.suspension.as_ref().is_some_and(|it| over(it.deadline, now)) {
            self.suspension = None;
            scene(context).record(None);
        }
        changed
    }
}
