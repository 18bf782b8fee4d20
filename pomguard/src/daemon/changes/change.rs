//! A change of policy: the files anew, or an earlier change again. The history records every change.

use std::time::Instant;

use anyhow::bail;
use log::{error, info};

use super::{
    Changes,
    existing::treat_existing,
    install::install,
    read_policy,
    transition::{ActivePolicy, ChangeRequest, DesiredState, Waiting, message, replaced_by},
};
use crate::{
    control::protocol::Changed,
    daemon::{
        audit,
        context::Context,
        message::Report,
        reconciler::{Leave, Reconciler, check_interfaces, no_longer_named},
    },
    history::{Cause, Existing, Outcome, Record, Summary},
    input::Settings,
    kernel::{clock::unix_now, interface},
    observe::condition::Condition,
    policy::{Policy, setting},
    render::quantity::{duration, timestamp},
};

impl Changes {
    /// Puts the files in force. If the files contain an error, the policy in force stays.
    pub(in crate::daemon) fn take_files(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        request: &ChangeRequest,
    ) -> anyhow::Result<Changed> {
        let (draft, policy) = read_policy(&self.config)?;
        let _entitled = context.entitled()?;
        self.change(context, reconciler, request, DesiredState::new(draft, policy))
    }

    /// Puts the desired state in force and records the change in the history.
    pub(super) fn change(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
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
        let policy = self.on_this_machine(context, reconciler, &settings, policy);
        let starting = request.cause == Cause::Start;
        let mut unguarded = Vec::new();
        if !starting {
            refuse_other_paths(context, &settings)?;
            let unnamed = if request.yes { reconciler.unnamed() } else { Vec::new() };
            // `--cut` and `--keep-existing` act on live flows, whether or not the files differ.
            if request.existing == Existing::ByPolicy
                && unnamed.is_empty()
                && let Some(unchanged) = self.unchanged(context, reconciler, &settings, &policy)
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
        check_interfaces(&context.pins, &settings, |name| starting || reconciler.watches(name))?;
        let record = self.note(request, &settings, &policy, &sources)?;
        let before = self.image();
        let deadline = request.confirm_within.map(|seconds| context.ticks.deadline(seconds)).transpose()?;
        let installed = match install(context, &policy, deadline) {
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
        reconciler.record_baseline(context);
        self.succeeded(&settings, &installed);
        let mut notes = Vec::new();
        let existing = treat_existing(context, request.existing, &policy, &request.exceptions)
            .unwrap_or_else(|error| {
                notes.push(format!("live flows are as the policy judges them, not as asked for: {error:#}"));
                None
            });
        let leave = if request.yes { Leave::Unnamed } else { Leave::None };
        let attached = if starting {
            self.attach_at_start(context, reconciler, &settings)
        } else if deadline.is_some() {
            // If the daemon is dead at the deadline, nobody can attach the guard again: all guards stay until
            // `confirm`.
            self.attach(context, reconciler, &settings, &Leave::None)
        } else {
            self.attach(context, reconciler, &settings, &leave)
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
                self.reports.push(Report::Failed);
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
            let within = request.confirm_within.map_or(0, u64::from);
            let until = within + unix_now();
            let about = format!("change {} until {}", record.number, timestamp(until));
            self.conditions.insert(Condition::Unconfirmed, about);
            info!("change {} is taken back unless confirmed within {}", record.number, duration(within));
            let replaced = replaced_by(request.cause);
            let installed = Some(installed);
            self.hurried = false;
            self.waiting = Some(Waiting { deadline, record, next, replaced, installed, leave });
        } else {
            self.record_active(next, &replaced_by(request.cause));
            self.save(context, &installed);
        }
        if !starting {
            self.end_search(deadline.is_some());
        }
        self.reports.push(Report::Line(self.line()));
        Ok(changed)
    }

    /// Attaches to every interface of the settings; see [`Reconciler::attach`].
    pub(super) fn attach(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        settings: &Settings,
        leave: &Leave,
    ) -> anyhow::Result<()> {
        let former = self.held.as_ref().map(|held| held.settings.attach.mode);
        reconciler.attach(context, settings, former, leave)
    }

    /// Attaches at a start; see [`Reconciler::attach_at_start`].
    pub(super) fn attach_at_start(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        settings: &Settings,
    ) -> anyhow::Result<()> {
        let former = self.held.as_ref().map(|held| held.settings.attach.mode);
        reconciler.attach_at_start(context, settings, former)
    }

    /// Returns the policy in force, if these settings and this policy are in force already.
    fn unchanged(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        settings: &Settings,
        policy: &Policy,
    ) -> Option<Changed> {
        let held = self.held.as_ref()?;
        let same = held.policy.is_same(policy) && setting::changes(&held.settings, settings).is_empty();
        if !same {
            return None;
        }
        let changed = message(held, Vec::new());
        let mut notes = Vec::new();
        if !reconciler.is_whole()
            && let Err(error) = self.attach(context, reconciler, settings, &Leave::None)
        {
            notes.push(format!("not on every interface: {error:#}"));
        }
        info!("the files are in force already: nothing is changed");
        for over in [Condition::FilesRefused, Condition::ResourcesExhausted, Condition::NotConfirmed] {
            self.conditions.remove(&over);
        }
        self.reports.push(Report::Accepted);
        Some(Changed { summary: Summary::default(), settings: Vec::new(), notes, ..changed })
    }

    /// Rolls back to an earlier change; without a number, to the previous one.
    pub(in crate::daemon) fn roll_back(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        to: Option<u64>,
        request: ChangeRequest,
    ) -> anyhow::Result<Changed> {
        if to.is_none() && self.waiting.is_some() {
            return self.take_back(context, reconciler, &Outcome::RolledBack);
        }
        let _entitled = context.entitled()?;
        let record = match (to, self.returned_last()) {
            (Some(number), _) => self.history.record(number)?,
            (None, Some(number)) => bail!(self.already_back(number)),
            (None, None) => self.one_before()?,
        };
        if matches!(record.outcome, Outcome::Failed(_)) {
            bail!("change {} never was in force ({})", record.number, record.outcome.text());
        }
        let (draft, policy) = self.history.policy(&record)?;
        self.change(
            context,
            reconciler,
            &ChangeRequest { cause: Cause::Rollback(record.number), ..request },
            DesiredState::new(draft, policy),
        )
    }
}

/// Refuses a change of folders, which takes a restart.
fn refuse_other_paths(context: &Context, settings: &Settings) -> anyhow::Result<()> {
    let sentences = setting::other_paths(&context.paths, &settings.paths);
    if sentences.is_empty() {
        return Ok(());
    }
    bail!("{}: {}", settings.file, sentences.join("; "))
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
