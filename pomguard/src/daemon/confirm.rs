//! A pending change. The eBPF programs roll the change back by themselves at the deadline; the daemon, if
//! running, notices the rollback and records it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use log::{error, info, warn};
use pomguard_common::{control::over, image::Active};

use super::{
    Daemon, audit,
    context::{DETACHED, boot_id},
    message::Report,
    reconciler::Leave,
    transition::{ActivePolicy, DesiredState, Waiting, message, replaced_by},
};
use crate::{
    control::protocol::Changed,
    history::{Outcome, Pending, Record, in_force, pending},
    kernel::{clock::unix_now, control},
    observe::{condition::Condition, reading},
    render::quantity::timestamp,
    terminals,
};

/// The pending change of the former daemon.
pub(super) enum Earlier {
    /// No change was pending.
    None,
    /// The change continues to wait.
    Waits,
    /// The programs took the change back while no daemon was running.
    Returned {
        /// A sentence about it.
        message: String,
        /// Digest of the image that was taken back.
        image: String,
    },
}

/// The shortest sleep: a deadline is a whole tick, and the next tick may be near.
const SHORTEST: Duration = Duration::from_millis(50);

impl Daemon {
    /// Returns the time until the deadline of the pending change; `None` if no change is pending.
    pub(super) fn until_deadline(&self) -> Option<Duration> {
        let waiting = self.waiting.as_ref()?;
        let now = self.context.ticks.now().ok()? as u32;
        if over(waiting.deadline, now) {
            return Some(Duration::ZERO);
        }
        let ticks = waiting.deadline.wrapping_sub(now);
        Some(self.context.ticks.duration(ticks).max(SHORTEST))
    }

    /// Completes the rollback if the deadline has passed. Called when the deadline may have passed.
    pub(super) fn at_deadline(&mut self) {
        let Some(waiting) = &self.waiting else { return };
        if !self.context.ticks.now().is_ok_and(|now| over(waiting.deadline, now as u32)) {
            return;
        }
        let number = waiting.record.number;
        if self.context.runtime.detached() {
            return self.end_waiting_detached();
        }
        let message = returned(number, self.hurried);
        let before = waiting.record.image.clone();
        announce(&message);
        if let Err(error) = self.take_back(&Outcome::NotConfirmed) {
            error!("the policy before it is in force, but could not be put in order: {error:#}");
            // The programs have returned without the daemon: nothing waits any more.
            self.end_waiting();
        }
        audit::returned(&message, &before, &self.image());
        self.lasting_conditions.insert(Condition::NotConfirmed, message);
        self.reporter.take(Report::Failed);
    }

    /// Records that the pending change was not confirmed.
    fn end_waiting(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.lasting_conditions.remove(&Condition::Unconfirmed);
            self.rewrite(Some((waiting.record, Outcome::NotConfirmed)));
            self.reporter.take(Report::Line(self.line()));
        }
    }

    /// Ends the pending change of a host that `pomguard detach` opened: no policy is in force.
    fn end_waiting_detached(&mut self) {
        let number = self.waiting.as_ref().map_or(0, |waiting| waiting.record.number);
        error!("nobody confirmed change {number} in time; {DETACHED}");
        self.end_waiting();
        self.reporter.take(Report::Failed);
    }

    /// Confirms the pending change.
    pub(super) fn confirm(&mut self) -> anyhow::Result<Changed> {
        let Some(waiting) = &self.waiting else { return self.nothing_to_confirm() };
        let number = waiting.record.number;
        let deadline = waiting.deadline;
        // The wait for the lock comes before the clock is read.
        let entitled = self.context.entitled()?;
        let now = self.context.ticks.now()? as u32;
        // One tick of reserve: the programs must not return to the old policy during the confirmation.
        if over(deadline, now.wrapping_add(1)) {
            drop(entitled);
            self.at_deadline();
            bail!("too late: change {number} was taken back, the policy before it is in force");
        }
        control::record_active(&self.context.pins, now).context("confirm in the kernel")?;
        let Some(waiting) = self.waiting.take() else { bail!("nothing waits for a confirmation") };
        info!("change {number} is confirmed");
        let Waiting { next, replaced, installed, leave, .. } = waiting;
        self.lasting_conditions.remove(&Condition::Unconfirmed);
        let mut notes = Vec::new();
        // Interfaces that the change no longer names were kept until now: a rollback by the programs could
        // not attach the guard again.
        if let Err(error) = self.attach(&next.settings, &leave) {
            notes.push(format!("not on every interface: {error:#}"));
        }
        for note in &notes {
            error!("{note}");
        }
        // The next boot uses only a confirmed policy.
        let installed = installed.map_or_else(|| self.install(&next.policy, None), Ok)?;
        self.reconciler.record_baseline(&self.context);
        let changed = Changed { changed: true, ..message(&next, notes) };
        self.record_active(next, &replaced);
        self.save(&installed);
        self.reporter.take(Report::Line(self.line()));
        Ok(changed)
    }

    /// Answers a confirmation while no change is pending. Returns the policy in force if the last change
    /// altered nothing; returns an error if the confirmation is too late and the change was rolled back.
    fn nothing_to_confirm(&self) -> anyhow::Result<Changed> {
        // A change that nobody confirmed stays a condition until the files are taken.
        let after_return = [Condition::NotConfirmed, Condition::FilesRefused]
            .iter()
            .any(|condition| self.lasting_conditions.contains_key(condition));
        let records = self.history.list().0;
        if let Some(last) = records.last().filter(|it| after_return && it.outcome == Outcome::NotConfirmed) {
            bail!("too late: {}", returned(last.number, self.hurried));
        }
        let held =
            self.held.as_ref().context("nothing waits for a confirmation, and nothing is in force yet")?;
        Ok(message(held, Vec::new()))
    }

    /// Returns to the policy that was in force before the pending change.
    pub(super) fn take_back(&mut self, outcome: &Outcome) -> anyhow::Result<Changed> {
        // Without the right to change something the change continues to wait.
        let _entitled = self.context.entitled()?;
        let Some(waiting) = self.waiting.take() else { bail!("nothing waits for a confirmation") };
        self.lasting_conditions.remove(&Condition::Unconfirmed);
        self.rewrite(Some((waiting.record, outcome.clone())));
        // First the kernel: the policy before is in force even if it cannot be installed anew.
        let returned = control::active(&self.context.pins)
            .and_then(|active| control::stay(&self.context.pins, Active::confirmed(active.fallback())));
        let result = returned.map_err(anyhow::Error::from).and_then(|()| self.return_to_base());
        self.reporter.take(Report::Line(self.line()));
        result
    }

    /// Puts the last policy that needed no confirmation in force again. If that policy is unknown, the
    /// generation to which the programs returned stays.
    fn return_to_base(&mut self) -> anyhow::Result<Changed> {
        let base = match &self.held {
            Some(held) => Some(held.clone()),
            None => in_force(&self.history.list().0).and_then(|record| {
                let DesiredState { settings, policy, .. } = self
                    .restored(record)
                    .inspect_err(|error| error!("change {} cannot be read: {error}", record.number))
                    .ok()?;
                Some(ActivePolicy { settings, policy, record: Some(record.clone()) })
            }),
        };
        let Some(base) = base else {
            self.reconciler.record_baseline(&self.context);
            bail!("the policy before is in force, and nobody knows any more which files it came from");
        };
        self.restore(base)
    }

    /// Puts the policy that was in force before in force again, under the old record.
    fn restore(&mut self, mut base: ActivePolicy) -> anyhow::Result<Changed> {
        base.policy = self.on_this_machine(&base.settings, base.policy);
        let installed = self.install(&base.policy, None)?;
        self.reconciler.record_baseline(&self.context);
        if let Some(record) = &mut base.record {
            record.image = installed.digest();
            record.generation = installed.generation();
        }
        self.succeeded(&base.settings, &installed);
        let mut notes = Vec::new();
        // Interfaces to which the change that is rolled back attached a guard keep the guard.
        if let Err(error) = self.attach(&base.settings, &Leave::None) {
            error!("not on every interface: {error:#}");
            notes.push(format!("not on every interface: {error:#}"));
        }
        let changed = Changed { changed: true, ..message(&base, notes) };
        self.record_active(base, &Outcome::Replaced);
        self.save(&installed);
        Ok(changed)
    }

    /// Returns the wall time of the deadline of the pending change, if recorded in this boot.
    pub(super) fn recorded_until(&self) -> Option<u64> {
        let boot = boot_id().ok()?;
        match &pending(&self.history.list().0)?.outcome {
            Outcome::Pending(Pending { until, boot: recorded }) if *recorded == boot => Some(*until),
            _ => None,
        }
    }

    /// Notes that the time to confirm the pending change became shorter.
    pub(super) fn hurry(&mut self, deadline: u32) {
        if let Some(waiting) = &mut self.waiting {
            waiting.deadline = deadline;
        }
        self.hurried = true;
    }

    /// Looks for a change that was pending when the former daemon ended. A rollback that happened while no
    /// daemon was running is recorded now.
    pub(super) fn continue_waiting(&mut self) -> anyhow::Result<Earlier> {
        let (records, _) = self.history.list();
        let Some(record) = pending(&records).cloned() else { return Ok(Earlier::None) };
        let Outcome::Pending(until) = &record.outcome else { return Ok(Earlier::None) };
        let same_boot = boot_id().is_ok_and(|boot| boot == until.boot);
        let left = until.until.saturating_sub(unix_now());
        if self.context.replaced.is_some() && same_boot && left > 0 {
            self.wait_again(&records, &record, left)?;
        }
        let active = control::active(&self.context.pins)?;
        let now = self.context.ticks.now()? as u32;
        if !same_boot || active.deadline() == 0 || over(active.deadline(), now) {
            // The former policy is in force: whoever reads the word must not take the change for it.
            if active.deadline() != 0 {
                control::stay(&self.context.pins, Active::confirmed(active.fallback()))?;
            }
            let message = returned(record.number, self.hurried);
            announce(&message);
            let image = record.image.clone();
            self.rewrite(Some((record, Outcome::NotConfirmed)));
            return Ok(Earlier::Returned { message, image });
        }
        let DesiredState { settings, policy, .. } = self.restored(&record)?;
        let left = self.context.ticks.seconds(active.deadline().wrapping_sub(now));
        warn!("change {} still waits for its confirmation: {left} s left", record.number);
        let about = format!("change {} until {}", record.number, timestamp(until.until));
        self.lasting_conditions.insert(Condition::Unconfirmed, about);
        self.held = self.base(&records);
        // The operator who applied the change agreed to each of these.
        let leave = self.held.as_ref().map_or(Leave::None, |held| Leave::named_by(&held.settings, &settings));
        self.waiting = Some(Waiting {
            leave,
            deadline: active.deadline(),
            next: ActivePolicy { settings, policy, record: Some(record.clone()) },
            replaced: replaced_by(record.cause),
            record,
            installed: None,
        });
        Ok(Earlier::Waits)
    }

    /// Reports a rollback that happened while no daemon was running, after the start.
    pub(super) fn note_returned(&mut self, message: String, before: &str) {
        audit::returned(&message, before, &self.image());
        self.lasting_conditions.insert(Condition::NotConfirmed, message);
    }

    /// Installs a pending change, and the policy to which it would return, into new maps.
    fn wait_again(&self, records: &[Record], record: &Record, left: u64) -> anyhow::Result<()> {
        let base = self.base(records).with_context(|| {
            format!(
                "change {} waits for its confirmation, and the history does not have what it would return \
                 to: `pomguard confirm` or `pomguard rollback` with the version before, then restart",
                record.number
            )
        })?;
        self.install(&base.policy, None)?;
        let deadline = self.context.ticks.deadline(u32::try_from(left).unwrap_or(u32::MAX))?;
        self.install(&self.restored(record)?.policy, Some(deadline))?;
        Ok(())
    }

    /// Takes the programs over without touching the policy, which has a deadline of its own.
    pub(super) fn take_over(&mut self) -> anyhow::Result<()> {
        let Some(settings) = self.waiting.as_ref().map(|waiting| waiting.next.settings.clone()) else {
            return Ok(());
        };
        let in_force = reading::snapshot(&self.context.pins)?;
        self.in_force(&settings, in_force.image, in_force.generation);
        self.settings = settings.clone();
        self.reporter.take(Report::Line(self.line()));
        self.attach_at_start(&settings)
    }

    pub(super) fn base(&self, records: &[Record]) -> Option<ActivePolicy> {
        let record = in_force(records)?;
        let DesiredState { settings, policy, .. } = self.restored(record).ok()?;
        Some(ActivePolicy { settings, policy, record: Some(record.clone()) })
    }
}

/// Writes a sentence to the log and to the terminals, where an operator who has to confirm a change looks.
fn announce(sentence: &str) {
    error!("{sentence}");
    terminals::tell(sentence);
}

/// Returns the sentence about a change that nobody confirmed. `hurried` is true if its time became shorter.
fn returned(number: u64, hurried: bool) -> String {
    let early = if hurried {
        ", which came early: this machine stood still, or its clock was set forward"
    } else {
        ""
    };
    format!(
        "change {number} was taken back because nobody confirmed it in time{early}: the policy before it is in \
         force"
    )
}
