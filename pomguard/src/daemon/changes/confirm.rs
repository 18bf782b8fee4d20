//! A pending change. The eBPF programs roll the change back by themselves at the deadline; the daemon, if
//! running, notices the rollback and records it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use log::{error, info};
use pomguard_common::{control::over, image::Active};

use super::{
    Changes,
    install::install,
    transition::{ActivePolicy, DesiredState, Waiting, message},
};
use crate::{
    control::protocol::Changed,
    daemon::{
        audit,
        context::{Context, DETACHED, boot_id},
        message::Report,
        reconciler::{Leave, Reconciler},
    },
    history::{Outcome, Pending, in_force, pending},
    kernel::control,
    observe::condition::Condition,
    terminals,
};

/// The shortest sleep: a deadline is a whole tick, and the next tick may be near.
const SHORTEST: Duration = Duration::from_millis(50);

impl Changes {
    /// Returns the time until the deadline of the pending change; `None` if no change is pending.
    pub(in crate::daemon) fn until_deadline(&self, context: &Context) -> Option<Duration> {
        let waiting = self.waiting.as_ref()?;
        let now = context.ticks.now().ok()? as u32;
        if over(waiting.deadline, now) {
            return Some(Duration::ZERO);
        }
        let ticks = waiting.deadline.wrapping_sub(now);
        Some(context.ticks.duration(ticks).max(SHORTEST))
    }

    /// Completes the rollback if the deadline has passed. Called when the deadline may have passed.
    pub(in crate::daemon) fn at_deadline(&mut self, context: &Context, reconciler: &mut Reconciler) {
        let Some(waiting) = &self.waiting else { return };
        if !context.ticks.now().is_ok_and(|now| over(waiting.deadline, now as u32)) {
            return;
        }
        let number = waiting.record.number;
        if context.runtime.detached() {
            return self.end_waiting_detached();
        }
        let message = returned(number, self.hurried);
        let before = waiting.record.image.clone();
        announce(&message);
        if let Err(error) = self.take_back(context, reconciler, &Outcome::NotConfirmed) {
            error!("the policy before it is in force, but could not be put in order: {error:#}");
            // The programs have returned without the daemon: nothing waits any more.
            self.end_waiting();
        }
        audit::returned(&message, &before, &self.image());
        self.conditions.insert(Condition::NotConfirmed, message);
        self.reports.push(Report::Failed);
    }

    /// Records that the pending change was not confirmed.
    fn end_waiting(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.conditions.remove(&Condition::Unconfirmed);
            self.rewrite(Some((waiting.record, Outcome::NotConfirmed)));
            self.reports.push(Report::Line(self.line()));
        }
    }

    /// Ends the pending change of a host that `pomguard detach` opened: no policy is in force.
    fn end_waiting_detached(&mut self) {
        let number = self.waiting.as_ref().map_or(0, |waiting| waiting.record.number);
        error!("nobody confirmed change {number} in time; {DETACHED}");
        self.end_waiting();
        self.reports.push(Report::Failed);
    }

    /// Confirms the pending change.
    pub(in crate::daemon) fn confirm(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
    ) -> anyhow::Result<Changed> {
        let Some(waiting) = &self.waiting else { return self.nothing_to_confirm(context) };
        let number = waiting.record.number;
        let deadline = waiting.deadline;
        // The wait for the lock comes before the clock is read.
        let entitled = context.entitled()?;
        let now = context.ticks.now()? as u32;
        // One tick of reserve: the programs must not return to the old policy during the confirmation.
        if over(deadline, now.wrapping_add(1)) {
            drop(entitled);
            self.at_deadline(context, reconciler);
            bail!("too late: change {number} was taken back, the policy before it is in force");
        }
        control::record_active(&context.pins, now).context("confirm in the kernel")?;
        let Some(waiting) = self.waiting.take() else { bail!("nothing waits for a confirmation") };
        info!("change {number} is confirmed");
        let Waiting { mut next, replaced, installed, leave, .. } = waiting;
        self.conditions.remove(&Condition::Unconfirmed);
        let mut notes = Vec::new();
        // Interfaces that the change no longer names were kept until now: a rollback by the programs could
        // not attach the guard again.
        if let Err(error) = self.attach(context, reconciler, &next.settings, &leave) {
            notes.push(format!("not on every interface: {error:#}"));
        }
        // Another daemon installed the image: only a new one can be saved for the next boot.
        let installed = match installed.map_or_else(|| install(context, &next.policy, None), Ok) {
            Ok(installed) => Some(installed),
            Err(error) => {
                notes.push(format!("confirmed, but not saved for the next boot: {error:#}"));
                None
            }
        };
        for note in &notes {
            error!("{note}");
        }
        reconciler.record_baseline(context);
        if let Some(installed) = &installed {
            if let Some(record) = &mut next.record {
                record.image = installed.digest();
                record.generation = installed.generation();
            }
            self.succeeded(&next.settings, installed);
        }
        let changed = Changed { changed: true, ..message(&next, notes) };
        self.record_active(next, &replaced);
        if let Some(installed) = installed {
            // The next boot uses only a confirmed policy.
            self.save(context, &installed);
        }
        self.reports.push(Report::Line(self.line()));
        Ok(changed)
    }

    /// Answers a confirmation while no change is pending. Returns the policy in force if the last change
    /// altered nothing; returns an error if the confirmation is too late and the change was rolled back.
    fn nothing_to_confirm(&self, context: &Context) -> anyhow::Result<Changed> {
        let _entitled = context.entitled()?;
        if let Some(number) = self.returned_last() {
            bail!("too late: {}", returned(number, self.hurried));
        }
        let held =
            self.held.as_ref().context("nothing waits for a confirmation, and nothing is in force yet")?;
        Ok(message(held, Vec::new()))
    }

    /// Returns the number of the last change, if it was taken back because nobody confirmed it. A change that
    /// nobody confirmed stays a condition until the files are taken.
    pub(super) fn returned_last(&self) -> Option<u64> {
        let after_return = [Condition::NotConfirmed, Condition::FilesRefused]
            .iter()
            .any(|condition| self.conditions.contains_key(condition));
        let records = self.history.list().0;
        let last = records.last().filter(|it| after_return && it.outcome == Outcome::NotConfirmed)?;
        Some(last.number)
    }

    /// Returns to the policy that was in force before the pending change.
    pub(super) fn take_back(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        outcome: &Outcome,
    ) -> anyhow::Result<Changed> {
        // Without the right to change something the change continues to wait.
        let _entitled = context.entitled()?;
        let Some(waiting) = self.waiting.take() else { bail!("nothing waits for a confirmation") };
        self.conditions.remove(&Condition::Unconfirmed);
        self.rewrite(Some((waiting.record, outcome.clone())));
        // First the kernel: the policy before is in force even if it cannot be installed anew.
        let returned = control::active(&context.pins)
            .and_then(|active| control::stay(&context.pins, Active::confirmed(active.fallback())));
        let result =
            returned.map_err(anyhow::Error::from).and_then(|()| self.return_to_base(context, reconciler));
        if result.is_err() {
            self.in_force_by_maps(context);
        }
        self.reports.push(Report::Line(self.line()));
        result
    }

    /// Puts the last policy that needed no confirmation in force again. If that policy is unknown, the
    /// generation to which the programs returned stays.
    fn return_to_base(&mut self, context: &Context, reconciler: &mut Reconciler) -> anyhow::Result<Changed> {
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
            reconciler.record_baseline(context);
            bail!("the policy before is in force, and nobody knows any more which files it came from");
        };
        self.restore(context, reconciler, base)
    }

    /// Puts the policy that was in force before in force again, under the old record.
    fn restore(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        mut base: ActivePolicy,
    ) -> anyhow::Result<Changed> {
        base.policy = self.on_this_machine(context, reconciler, &base.settings, base.policy);
        let installed = install(context, &base.policy, None)?;
        reconciler.record_baseline(context);
        if let Some(record) = &mut base.record {
            record.image = installed.digest();
            record.generation = installed.generation();
        }
        self.succeeded(&base.settings, &installed);
        let mut notes = Vec::new();
        // Interfaces to which the change that is rolled back attached a guard keep the guard.
        if let Err(error) = self.attach(context, reconciler, &base.settings, &Leave::None) {
            error!("not on every interface: {error:#}");
            notes.push(format!("not on every interface: {error:#}"));
        }
        let changed = Changed { changed: true, ..message(&base, notes) };
        self.record_active(base, &Outcome::Replaced);
        self.save(context, &installed);
        Ok(changed)
    }

    /// Returns the wall time of the deadline of the pending change, if recorded in this boot.
    pub(in crate::daemon) fn recorded_until(&self) -> Option<u64> {
        let boot = boot_id().ok()?;
        match &pending(&self.history.list().0)?.outcome {
            Outcome::Pending(Pending { until, boot: recorded }) if *recorded == boot => Some(*until),
            _ => None,
        }
    }

    /// Notes that the time to confirm the pending change became shorter.
    pub(in crate::daemon) fn hurry(&mut self, deadline: u32) {
        if let Some(waiting) = &mut self.waiting {
            waiting.deadline = deadline;
        }
        self.hurried = true;
    }
}

/// Writes a sentence to the log and to the terminals, where an operator who has to confirm a change looks.
pub(super) fn announce(sentence: &str) {
    error!("{sentence}");
    terminals::tell(sentence);
}

/// Returns the sentence about a change that nobody confirmed. `hurried` is true if its time became shorter.
pub(super) fn returned(number: u64, hurried: bool) -> String {
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
