//! The records of changes in the history.

use anyhow::Context as _;
use log::error;

use super::{
    Changes,
    transition::{ActivePolicy, ChangeRequest, DesiredState},
};
use crate::{
    daemon::context::boot_id,
    history::{Cause, HistoryError, Outcome, Pending, Record, Summary, in_force, of_start},
    input::{Settings, Sources},
    kernel::clock::unix_now,
    policy::{Policy, diff::Diff},
};

impl Changes {
    /// Writes the record before anything changes. A change by an operator needs the record: without it the
    /// policy in force would be unknown, and nobody could return to it. A start or a reload continues without
    /// the record.
    pub(super) fn note(
        &self,
        request: &ChangeRequest,
        settings: &Settings,
        policy: &Policy,
        sources: &Sources,
    ) -> anyhow::Result<Option<Record>> {
        let outcome = match request.confirm_within {
            Some(seconds) => Outcome::Pending(Pending {
                until: unix_now() + u64::from(seconds),
                boot: boot_id().context("read the boot's id")?,
            }),
            None => Outcome::Failed("the daemon ended before it was in force".to_owned()),
        };
        let files = sources.digest();
        if request.cause == Cause::Start
            && let Some(record) = of_start(&self.history.list().0, &files, &policy.host)
        {
            return Ok(Some(match record.outcome {
                Outcome::Failed(_) => Record { at: unix_now(), outcome, ..record.clone() },
                _ => record.clone(),
            }));
        }
        let diff = self
            .held
            .as_ref()
            .map(|held| Diff::counted(&held.policy, policy).with_settings(&held.settings, settings));
        let diff = diff.unwrap_or_default();
        let names = [&sources.settings, &sources.site, &sources.matrix].map(|source| source.name.clone());
        let record = Record {
            number: 0,
            at: unix_now(),
            cause: request.cause,
            by: request.by.clone(),
            why: request.why.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: policy.host.clone(),
            files,
            names,
            image: String::new(),
            generation: 0,
            took_ms: 0,
            summary: Summary::from_diff(&diff),
            settings: diff.settings,
            existing: request.existing,
            outcome,
        };
        match self.history.add(record, sources) {
            Ok(record) => Ok(Some(record)),
            Err(error) if matches!(request.cause, Cause::Start | Cause::Reload) => {
                error!("this change is NOT kept in the history: {:#}", anyhow::Error::new(error));
                Ok(None)
            }
            Err(error) => Err(error).context("keep the change in the history (nothing was changed)"),
        }
    }

    /// Records that a change failed. The change in force, which a start puts in force again, stays recorded as
    /// in force.
    pub(super) fn rewrite_failed(&self, record: Option<Record>, why: &anyhow::Error) {
        let record = record.filter(|record| record.outcome != Outcome::InForce);
        self.rewrite(record.map(|record| (record, Outcome::Failed(format!("{why:#}")))));
    }

    /// Records the outcome of a change.
    pub(super) fn rewrite(&self, of: Option<(Record, Outcome)>) {
        let Some((record, outcome)) = of else { return };
        if let Err(error) = self.history.update(&Record { outcome, ..record }) {
            error!("the history does not say what became of a change: {:#}", anyhow::Error::new(error));
        }
    }

    /// Records that `next` is in force, and that the policy before is `replaced`.
    pub(super) fn record_active(&mut self, mut next: ActivePolicy, replaced: &Outcome) {
        if let Some(record) = &mut next.record {
            record.outcome = Outcome::InForce;
            let others = self.history.list().0.into_iter();
            for other in others.filter(|it| it.outcome == Outcome::InForce && it.number != record.number) {
                self.rewrite(Some((other, replaced.clone())));
            }
            self.rewrite(Some((record.clone(), Outcome::InForce)));
        }
        self.settings = next.settings.clone();
        self.held = Some(next);
    }

    /// Returns the last change that was in force before and that is not the policy in force under another
    /// number.
    pub(super) fn one_before(&self) -> anyhow::Result<Record> {
        let (records, _) = self.history.list();
        let before = self.history.before(&records).cloned();
        before.context("there is no change before this one: `pomguard history` lists those there are")
    }

    /// Returns the refusal of a rollback that comes after the pending change `number` was taken back: whoever asks
    /// for that change would lose the policy before it, too.
    pub(super) fn already_back(&self, number: u64) -> String {
        let further = self.one_before().map_or_else(
            |_| "there is no change before that one".to_owned(),
            |record| format!("`pomguard rollback {}` returns to the change before that one", record.number),
        );
        format!("change {number} was taken back already, and the policy before it is in force; {further}")
    }

    /// Returns the policy that a change in the history puts in force.
    pub(super) fn restored(&self, record: &Record) -> Result<DesiredState, HistoryError> {
        let (draft, policy) = self.history.policy(record)?;
        Ok(DesiredState::new(draft, policy))
    }

    /// Returns the policy that the history has as the one in force.
    pub(super) fn base(&self, records: &[Record]) -> Option<ActivePolicy> {
        let record = in_force(records)?;
        let DesiredState { settings, policy, .. } = self.restored(record).ok()?;
        Some(ActivePolicy { settings, policy, record: Some(record.clone()) })
    }
}
