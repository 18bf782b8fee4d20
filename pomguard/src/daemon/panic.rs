//! Bypass and lockdown: timed suspensions of the policy. The programs end a suspension by themselves.

use anyhow::Context as _;
use log::{error, warn};
use pomguard_common::control::{Timed, over};

use super::{Daemon, emergency::Asker, transition::boot_id};
use crate::{
    control::protocol::Panic,
    history::Existing,
    kernel::{clock::unix_now, control},
    observe::fates,
    render::{flows, quantity::duration},
    state::panic::Suspension,
    terminals,
};

/// The time before the end of a bypass at which the flows that the policy will cut are named, in seconds. A
/// bypass shorter than twice this time has the notice at half of its time.
const NOTICE: u64 = 300;

impl Daemon {
    /// Suspends the policy. Returns a sentence about it.
    pub(super) fn panic(&mut self, kind: Panic, seconds: u32, asker: &Asker) -> anyhow::Result<String> {
        let _entitled = self.entitled()?;
        let message = self.scene().suspend(kind, seconds, asker)?;
        self.in_step();
        error!("{message}: the policy is suspended");
        Ok(message)
    }

    /// Ends a bypass or lockdown before the deadline. Returns a sentence about the end.
    pub(super) fn end_panic(&mut self, asker: &Asker) -> anyhow::Result<String> {
        let _entitled = self.entitled()?;
        let ended = self.scene().resume(asker);
        self.in_step();
        let message = ended?;
        warn!("{message}");
        Ok(message)
    }

    /// Records the present contents of the maps and of the record on disk as the desired ones.
    fn in_step(&mut self) {
        self.reconciler.record_baseline(&self.pins);
        self.suspension = self.scene().recorded().unwrap_or_default();
    }

    /// Writes the recorded bypass or lockdown into the maps: the maps may be new, or the process that wrote
    /// the record may have ended before it wrote the maps. If there is no record, the maps decide, and the
    /// daemon writes the record.
    pub(super) fn continue_panic(&mut self) -> anyhow::Result<()> {
        let scene = self.scene();
        let recorded = match scene.recorded() {
            // New maps know of no suspension, and the daemon neither ends nor begins one on a guess.
            Err(error) if self.replaced.is_some() => return Err(error),
            Err(error) => {
                error!("{error:#}: the maps have the word");
                None
            }
            Ok(recorded) => recorded,
        };
        let held = control::panic(&self.pins)?;
        if let Some(suspension) = &recorded {
            let desired = Timed::until(suspension.kind.number(), suspension.deadline);
            if desired != held {
                control::set_panic(&self.pins, desired)?;
                error!("{} goes on", suspension.kind.name());
            }
            self.suspension = recorded;
            return Ok(());
        }
        let now = self.ticks.now()? as u32;
        let of_maps = Panic::of_number(held.holds(now)).map(|kind| {
            let left = self.ticks.seconds(held.deadline().wrapping_sub(now));
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
    /// called with the lock on changes, before foreign changes of the maps are undone.
    pub(super) fn adopt_panic(&mut self) {
        let Ok(recorded) = self.scene().recorded() else { return };
        let Ok(now) = self.ticks.now().map(|now| now as u32) else { return };
        let known = self.suspension.as_ref().filter(|it| !over(it.deadline, now));
        if recorded.as_ref() == known {
            return;
        }
        let desired = recorded.as_ref().map_or(Timed::NONE, |it| Timed::until(it.kind.number(), it.deadline));
        if let Err(error) = control::set_panic(&self.pins, desired) {
            return error!(
                "the bypass or lockdown on disk is not in the maps: {:#}",
                anyhow::Error::new(error)
            );
        }
        match &recorded {
            Some(it) => error!("{} began while this daemon did not answer", it.kind.name()),
            None => {
                warn!("bypass or lockdown ended while this daemon did not answer: the policy holds again");
            }
        }
        self.suspension = recorded;
        self.reconciler.record_baseline(&self.pins);
    }

    /// Names the live flows that the policy cuts when the bypass ends, some minutes before the end. The programs
    /// end the bypass in any case.
    pub(super) fn announce_end(&mut self) {
        let Some(it) = self.suspension.as_ref().filter(|it| it.kind == Panic::Open && it.deadline != 0)
        else {
            return;
        };
        let Ok(now) = self.ticks.now().map(|now| now as u32) else { return };
        if self.announced_end == Some(it.deadline) || over(it.deadline, now) {
            return;
        }
        let left = self.ticks.seconds(it.deadline.wrapping_sub(now));
        let notice = if it.since == 0 { NOTICE } else { NOTICE.min(it.until.saturating_sub(it.since) / 2) };
        if left > notice {
            return;
        }
        self.announced_end = Some(it.deadline);
        let flows = self.machine_addresses(None).ok().and_then(|here| {
            let policy = self.policy_in_force()?.clone().on(&here);
            let existing = Existing::ByPolicy;
            fates::flows(&policy, &here, &self.pins, &self.exceptions, existing, Some(Panic::Open))
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
    /// the lock on changes.
    pub(super) fn clear_ended(&mut self) {
        let Ok(now) = self.ticks.now().map(|now| now as u32) else { return };
        // The check of the maps reports maps that cannot be read or written.
        if control::clear_ended(&self.pins, now).is_ok_and(|any| any) {
            self.reconciler.record_baseline(&self.pins);
        }
        if self.suspension.as_ref().is_some_and(|it| over(it.deadline, now)) {
            self.suspension = None;
            self.scene().record(None);
        }
    }
}
