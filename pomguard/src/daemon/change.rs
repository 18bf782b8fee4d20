//! A change of policy: the files anew, or an earlier change again. The history records every change.

use std::time::Instant;

use anyhow::{Context as _, bail};
use log::{error, info, warn};

use super::{
    Daemon, audit,
    context::boot_id,
    message::Report,
    read_policy,
    reconciler::{Leave, check_interfaces, no_longer_named},
    transition::{ActivePolicy, ChangeRequest, DesiredState, Waiting, message, replaced_by},
};
use crate::{
    control::protocol::Changed,
    history::{
        Cause, Existing, HistoryError, Outcome, Pending, Record, Summary, in_force, of_start, refused,
    },
    input::{Settings, Sources},
    kernel::{
        clock::unix_now,
        install::{self, Installed},
        interface,
    },
    observe::condition::Condition,
    policy::{Policy, diff::Diff, setting},
    render::quantity::timestamp,
};

impl Daemon {
    /// Puts the files in force. If the files contain an error, the policy in force stays.
    pub(super) fn take_files(&mut self, request: &ChangeRequest) -> anyhow::Result<Changed> {
        let (draft, policy) = read_policy(&self.options.config)?;
        let _entitled = self.context.entitled()?;
        self.change(request, DesiredState::new(draft, policy))
    }

    /// Puts the desired state in force and records the change in the history.
    pub(super) fn change(
        &mut self,
        request: &ChangeRequest,
        desired: DesiredState,
    ) -> anyhow::Result<Changed> {
        let started = Instant::now();
        if let Some(waiting) = &self.waiting {
            let number = waiting.record.number;
            bail!(
                "change {number} waits for its confirmation: `pomguard confirm` or `pomguard rollback` first"
            );
        }
        let DesiredState { settings, policy, sources } = desired;
        let policy = self.on_this_machine(&settings, policy);
        let starting = request.cause == Cause::Start;
        let mut unguarded = Vec::new();
        if !starting {
            self.refuse_other_paths(&settings)?;
            let unnamed = if request.yes { self.reconciler.unnamed() } else { Vec::new() };
            // `--cut` and `--keep-existing` act on live flows, whether or not the files differ.
            if request.existing == Existing::ByPolicy
                && unnamed.is_empty()
                && let Some(unchanged) = self.unchanged(&settings, &policy)
            {
                return Ok(unchanged);
            }
            unguarded = no_longer_named(&self.settings, &settings);
            unguarded.retain(|name| interface::index(name).is_ok());
            if !request.yes {
                refuse_lost_guards(request.cause, &unguarded)?;
            }
            let is_named = |name: &String| settings.interfaces.iter().any(|at| at.value == *name);
            unguarded.extend(unnamed.into_iter().filter(|name| !is_named(name)));
        }
        check_interfaces(&self.context.pins, &settings, |name| starting || self.reconciler.watches(name))?;
        let record = self.note(request, &settings, &policy, &sources)?;
        let before = self.image();
        let deadline =
            request.confirm_within.map(|seconds| self.context.ticks.deadline(seconds)).transpose()?;
        let installed = match self.install(&policy, deadline) {
            Ok(installed) => installed,
            Err(error) => {
                self.rewrite_failed(record, &error);
                return Err(error);
            }
        };
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let record = record.map(|record| Record {
            image: installed.digest(),
            generation: installed.generation(),
            took_ms,
            ..record
        });
        self.reconciler.record_baseline(&self.context);
        self.succeeded(&settings, &installed);
        let mut notes = Vec::new();
        let existing = self.treat_existing(request.existing, &policy).unwrap_or_else(|error| {
            notes.push(format!("live flows are as the policy judges them, not as asked for: {error:#}"));
            None
        });
        let leave = if request.yes { Leave::Unnamed } else { Leave::None };
        let attached = if starting {
            self.attach_at_start(&settings)
        } else if deadline.is_some() {
            // If the daemon is dead at the deadline, nobody can attach the guard again: all guards stay until
            // `confirm`.
            self.attach(&settings, &Leave::None)
        } else {
            self.attach(&settings, &leave)
        };
        match attached {
            Err(error) if starting => {
                self.rewrite_failed(record, &error);
                return Err(error);
            }
            Err(error) => {
                // Foreseeable errors were found before the policy changed: here the driver refused.
                let message =
                    format!("attaching FAILED, the new policy is not on every interface: {error:#}");
                error!("{message}");
                notes.push(message);
                self.reporter.take(Report::Failed);
            }
            Ok(()) => {}
        }
        if record.is_none() {
            notes.push("this change is not in the history: the journal says why".to_owned());
        }
        if matches!(request.cause, Cause::Start | Cause::Reload) {
            audit::own_change(request.cause, record.as_ref(), &before, &installed.digest());
        }
        let changed = Changed {
            changed: true,
            number: record.as_ref().map(|record| record.number),
            generation: installed.generation(),
            image: installed.digest(),
            inbound: policy.inbound,
            outbound: policy.outbound,
            tuples: installed.image().tuples(),
            summary: record.as_ref().map(|record| record.summary).unwrap_or_default(),
            settings: record.as_ref().map(|record| record.settings.clone()).unwrap_or_default(),
            unguarded,
            took_ms,
            confirm_by: request.confirm_within.map(|seconds| unix_now() + u64::from(seconds)),
            existing,
            notes,
        };
        let next = ActivePolicy { settings, policy, record: record.clone() };
        if let (Some(deadline), Some(record)) = (deadline, record) {
            self.rewrite(Some((record.clone(), record.outcome.clone())));
            let until = request.confirm_within.map_or(0, u64::from) + unix_now();
            let about = format!("change {} until {}", record.number, timestamp(until));
            self.lasting_conditions.insert(Condition::Unconfirmed, about);
            info!(
                "change {} is taken back unless confirmed within {:?} s",
                record.number, request.confirm_within
            );
            let replaced = replaced_by(request.cause);
            let installed = Some(installed);
            self.hurried = false;
            self.waiting = Some(Waiting { deadline, record, next, replaced, installed, leave });
        } else {
            self.record_active(next, &replaced_by(request.cause));
            self.save(&installed);
        }
        if !starting {
            self.end_search(deadline.is_some());
        }
        self.reporter.take(Report::Line(self.line()));
        Ok(changed)
    }

    /// Attaches to every interface of the settings; see [`super::reconciler::Reconciler::attach`].
    pub(super) fn attach(&mut self, settings: &Settings, leave: &Leave) -> anyhow::Result<()> {
        let former = self.held.as_ref().map(|held| held.settings.attach.mode);
        self.reconciler.attach(&self.context, settings, former, leave)
    }

    /// Attaches at a start; see [`super::reconciler::Reconciler::attach_at_start`].
    pub(super) fn attach_at_start(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let former = self.held.as_ref().map(|held| held.settings.attach.mode);
        self.reconciler.attach_at_start(&self.context, settings, former)
    }

    /// Refuses a change of folders, which takes a restart.
    fn refuse_other_paths(&self, settings: &Settings) -> anyhow::Result<()> {
        let (old, new) = (&self.context.paths, &settings.paths);
        let differ = [
            ("pins", new.pins != self.context.pins.root()),
            ("state", new.state != old.state),
            ("runtime", new.runtime != old.runtime),
        ];
        if let Some((key, _)) = differ.into_iter().find(|(_, differs)| *differs) {
            bail!("{}: `paths.{key}` changed: that takes a restart", settings.file);
        }
        Ok(())
    }

    /// Returns the policy in force, if these settings and this policy are in force already.
    fn unchanged(&mut self, settings: &Settings, policy: &Policy) -> Option<Changed> {
        let held = self.held.as_ref()?;
        let same = held.policy.is_same(policy) && setting::changes(&held.settings, settings).is_empty();
        if !same {
            return None;
        }
        let changed = message(held, Vec::new());
        let mut notes = Vec::new();
        if !self.reconciler.is_whole()
            && let Err(error) = self.attach(settings, &Leave::None)
        {
            notes.push(format!("not on every interface: {error:#}"));
        }
        info!("the files are in force already: nothing is changed");
        for over in [Condition::FilesRefused, Condition::ResourcesExhausted, Condition::NotConfirmed] {
            self.lasting_conditions.remove(&over);
        }
        self.reporter.take(Report::Accepted);
        Some(Changed { summary: Summary::default(), settings: Vec::new(), notes, ..changed })
    }

    /// Writes the record before anything changes. A change by an operator needs the record: without it the
    /// policy in force would be unknown, and nobody could return to it. A start or a reload continues without
    /// the record.
    fn note(
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
    fn rewrite_failed(&self, record: Option<Record>, why: &anyhow::Error) {
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

    /// Rolls back to an earlier change; without a number, to the previous one.
    pub(super) fn roll_back(&mut self, to: Option<u64>, request: ChangeRequest) -> anyhow::Result<Changed> {
        if to.is_none() && self.waiting.is_some() {
            return self.take_back(&Outcome::RolledBack);
        }
        let record = match to {
            Some(number) => self.history.record(number)?,
            None => self.one_before()?,
        };
        if matches!(record.outcome, Outcome::Failed(_)) {
            bail!("change {} never was in force ({})", record.number, record.outcome.text());
        }
        let (draft, policy) = self.history.policy(&record)?;
        let _entitled = self.context.entitled()?;
        self.change(
            &ChangeRequest { cause: Cause::Rollback(record.number), ..request },
            DesiredState::new(draft, policy),
        )
    }

    /// Returns the last change that was in force before and that is not the policy in force under another
    /// number.
    fn one_before(&self) -> anyhow::Result<Record> {
        let (records, _) = self.history.list();
        let before = self.history.before(&records).cloned();
        before.context("there is no change before this one: `pomguard history` lists those there are")
    }

    /// Puts the policy of a start in force.
    pub(super) fn start(&mut self, files: DesiredState) -> anyhow::Result<()> {
        let before = self.held.take();
        self.held = self.base(&self.history.list().0);
        let (desired, refusal) = self.desired_at_start(files);
        if let Err(error) = self.change(&ChangeRequest::own(Cause::Start), desired) {
            self.held = before;
            return Err(error);
        }
        self.lasting_conditions.extend(refusal.map(|message| (Condition::FilesRefused, message)));
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

    /// Returns the policy that a change in the history puts in force.
    pub(super) fn restored(&self, record: &Record) -> Result<DesiredState, HistoryError> {
        let (draft, policy) = self.history.policy(record)?;
        Ok(DesiredState::new(draft, policy))
    }

    pub(super) fn install(&self, policy: &Policy, deadline: Option<u32>) -> anyhow::Result<Installed> {
        let put = || {
            let image =
                install::next_place(&self.context.pins, self.context.ticks.clock())?.compile(policy)?;
            anyhow::Ok(install::install(&self.context.pins, image, deadline)?)
        };
        let installed = put().context("put the policy in force")?;
        info!(
            "generation {} in force: inbound {}, outbound {}, {} tuples, image {}",
            installed.generation(),
            policy.inbound.name(),
            policy.outbound.name(),
            installed.image().tuples(),
            installed.digest()
        );
        let idle: Vec<String> = policy
            .rows
            .iter()
            .filter(|row| row.peers.is_empty())
            .map(|row| format!("{} {}", row.id, row.direction.name()))
            .collect();
        if !idle.is_empty() {
            let (count, idle) = (idle.len(), idle.join(", "));
            warn!("{count} rows grant nothing, for the site has no address of their other side: {idle}");
        }
        Ok(installed)
    }
}

/// Refuses to take the guard off an interface without consent.
fn refuse_lost_guards(cause: Cause, interfaces: &[String]) -> anyhow::Result<()> {
    if interfaces.is_empty() {
        return Ok(());
    }
    let names = interfaces.join(", ");
    match cause {
        Cause::Reload | Cause::Start => bail!(
            "{names} would lose its guard: nothing that comes in by it would be filtered, and a reload takes no \
             guard off; `pomguard apply --yes` does"
        ),
        Cause::Apply | Cause::Rollback(_) => bail!(
            "{names} would lose its guard: nothing that comes in by it would be filtered; say --yes to take the \
             guard off, or keep it in `interfaces`"
        ),
    }
}
