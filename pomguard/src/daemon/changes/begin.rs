//! The policy of a start: the change that still waits, the files, or the policy that was in force before.

use anyhow::{Context as _, anyhow};
use log::{error, warn};
use pomguard_common::{control::over, image::Active};

use super::{
    Changes,
    boot::{ConfirmedPolicy, StartSource},
    confirm::{announce, returned},
    identity::Unplaced,
    install::install,
    transition::{ActivePolicy, ChangeRequest, DesiredState, Waiting, replaced_by},
};
use crate::{
    daemon::{
        audit,
        context::{Context, boot_id},
        message::Report,
        reconciler::{Leave, Reconciler},
    },
    history::{Cause, Outcome, Record, in_force, pending, refused},
    kernel::{clock::unix_now, control},
    observe::{condition::Condition, reading},
    render::quantity::{duration, timestamp},
};

/// The pending change of the former daemon.
enum Earlier {
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
    /// The maps had a pending change that the history does not know, and are back at the policy before it.
    Unknown,
}

/// The reason for which a start does not take the files: they may be those of a change that nobody confirmed.
const UNKNOWN: &str = "a change waited for its confirmation, and the history does not know which one (it was moved \
                       or damaged): the policy before it is in force; `pomguard apply` takes the files all the same";

impl Changes {
    /// Puts the policy of a start in force, and attaches: the change that still waits, the files, or the policy that
    /// was in force before.
    ///
    /// # Errors
    /// If no policy can be put in force, or attaching fails.
    pub(in crate::daemon) fn begin(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        start_source: StartSource,
    ) -> anyhow::Result<()> {
        let earlier = self.continue_waiting(context)?;
        if matches!(earlier, Earlier::Waits) {
            self.expect_failsafe(context, reconciler);
            self.take_over(context, reconciler)?;
        } else {
            match start_source {
                StartSource::Files(..) if matches!(earlier, Earlier::Unknown) => {
                    self.keep(context, reconciler, ConfirmedPolicy::in_force(anyhow!(UNKNOWN)))?;
                    let settings = self.settings.clone();
                    self.attach_at_start(context, reconciler, &settings)?;
                }
                StartSource::Files(files, by_last_name) => {
                    self.start(context, reconciler, *files)?;
                    self.unplaced = by_last_name.map(|draft| Unplaced::by_last_name(*draft));
                }
                StartSource::ConfirmedPolicy(confirmed_policy) => {
                    self.keep(context, reconciler, *confirmed_policy)?;
                    let settings = self.settings.clone();
                    self.attach_at_start(context, reconciler, &settings)?;
                }
            }
        }
        if let Earlier::Returned { message, image } = earlier {
            self.note_returned(message, &image);
        }
        Ok(())
    }

    /// Looks for a change that was pending when the former daemon ended. A rollback that happened while no
    /// daemon was running is recorded now.
    fn continue_waiting(&mut self, context: &Context) -> anyhow::Result<Earlier> {
        let (records, _) = self.history.list();
        let Some(record) = pending(&records).cloned() else { return end_unknown(context) };
        let Outcome::Pending(until) = &record.outcome else { return Ok(Earlier::None) };
        let same_boot = boot_id().is_ok_and(|boot| boot == until.boot);
        let left = until.until.saturating_sub(unix_now());
        if context.replaced.is_some() && same_boot && left > 0 {
            self.wait_again(context, &records, &record, left)?;
        }
        let active = control::active(&context.pins)?;
        let now = context.ticks.now()? as u32;
        if same_boot && active.deadline() == 0 && is_in_force(context, &record) {
            // The confirmation is in the maps, and ended before its record, or the disk took no record.
            let DesiredState { settings, policy, .. } = self.restored(&record)?;
            warn!("change {} is confirmed by the maps; now the history says so, too", record.number);
            let replaced = replaced_by(record.cause);
            self.record_active(ActivePolicy { settings, policy, record: Some(record) }, &replaced);
            return Ok(Earlier::None);
        }
        if !same_boot || active.deadline() == 0 || over(active.deadline(), now) {
            // The former policy is in force: whoever reads the word must not take the change for it.
            if active.deadline() != 0 {
                control::stay(&context.pins, Active::confirmed(active.fallback()))?;
            }
            let message = returned(record.number, self.hurried);
            announce(&message);
            let image = record.image.clone();
            self.rewrite(Some((record, Outcome::NotConfirmed)));
            return Ok(Earlier::Returned { message, image });
        }
        let DesiredState { settings, policy, .. } = self.restored(&record)?;
        let left = context.ticks.seconds(active.deadline().wrapping_sub(now));
        warn!("change {} still waits for its confirmation: {} left", record.number, duration(left));
        let about = format!("change {} until {}", record.number, timestamp(until.until));
        self.conditions.insert(Condition::Unconfirmed, about);
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
    fn note_returned(&mut self, message: String, before: &str) {
        audit::returned(&message, before, &self.image());
        self.conditions.insert(Condition::NotConfirmed, message);
    }

    /// Installs a pending change, and the policy to which it would return, into new maps.
    fn wait_again(
        &self,
        context: &Context,
        records: &[Record],
        record: &Record,
        left: u64,
    ) -> anyhow::Result<()> {
        let base = self.base(records).with_context(|| {
            format!(
                "change {} waits for its confirmation, and the history does not have what it would return \
                 to: `pomguard confirm` or `pomguard rollback` with the version before, then restart",
                record.number
            )
        })?;
        install(context, &base.policy, None)?;
        let deadline = context.ticks.deadline(u32::try_from(left).unwrap_or(u32::MAX))?;
        install(context, &self.restored(record)?.policy, Some(deadline))?;
        Ok(())
    }

    /// Takes the programs over without touching the policy, which has a deadline of its own.
    fn take_over(&mut self, context: &Context, reconciler: &mut Reconciler) -> anyhow::Result<()> {
        let Some(settings) = self.waiting.as_ref().map(|waiting| waiting.next.settings.clone()) else {
            return Ok(());
        };
        self.in_force(&settings, reading::image(&context.pins)?);
        self.settings = settings.clone();
        self.reports.push(Report::Accepted);
        self.reports.push(Report::Line(self.line()));
        self.attach_at_start(context, reconciler, &settings)
    }

    /// Puts the policy of a start in force.
    pub(super) fn start(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        files: DesiredState,
    ) -> anyhow::Result<()> {
        let before = self.held.take();
        self.held = self.base(&self.history.list().0);
        let (desired, refusal) = self.desired_at_start(files);
        if let Err(error) = self.change(context, reconciler, &ChangeRequest::own(Cause::Start), desired) {
            self.held = before;
            return Err(error);
        }
        self.conditions.extend(refusal.map(|message| (Condition::FilesRefused, message)));
        Ok(())
    }

    /// Returns the policy that a start puts in force: the files or, if that change was rolled back, the
    /// policy that was in force instead, with a message about it.
    fn desired_at_start(&self, files: DesiredState) -> (DesiredState, Option<String>) {
        let (records, damaged) = self.history.list();
        for error in damaged {
            error!("the history: {error}");
        }
        let Some(bad) = refused(&records, &files.sources.digest()) else { return (files, None) };
        let Some(good) = in_force(&records) else { return (files, None) };
        match self.restored(good) {
            Ok(desired) => {
                let message = format!(
                    "the files are those of change {}, which was taken back ({}): change {} is in force \
                     instead; `pomguard apply` takes the files all the same",
                    bad.number,
                    bad.outcome.text(),
                    good.number
                );
                warn!("{message}");
                (desired, Some(message))
            }
            Err(error) => {
                error!("change {} cannot be read, so the files are taken: {error:#}", good.number);
                (files, None)
            }
        }
    }
}

/// Ends a pending change that only the maps know: nobody could confirm it.
fn end_unknown(context: &Context) -> anyhow::Result<Earlier> {
    let active = control::active(&context.pins)?;
    if active.deadline() == 0 {
        return Ok(Earlier::None);
    }
    control::stay(&context.pins, Active::confirmed(active.fallback()))?;
    announce(UNKNOWN);
    Ok(Earlier::Unknown)
}

/// Returns true if the maps have the generation of this change in force.
fn is_in_force(context: &Context, record: &Record) -> bool {
    reading::image(&context.pins)
        .is_ok_and(|it| it.image == record.image && it.generation == u64::from(record.generation))
}
