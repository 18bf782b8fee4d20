//! The answers to `status` and to a scrape of the metrics page.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;

use super::Reporter;
use crate::{
    daemon::{
        context::{Context, DETACHED},
        message::Conditions,
    },
    input::settings::Settings,
    kernel::{KernelError, attach, clock::unix_now, machine, pins::Pins},
    observe::{
        condition::Condition,
        http, in_force,
        metrics::{self, DaemonState},
        reading,
        status::{DaemonStatus, Status},
    },
    policy::{Policy, conflict::Note, machine::needs_attention},
    render::status::deadlines,
    state::runtime::Runtime,
};

impl Reporter {
    /// Returns the status. `settings` and `policy` are those in force, `lasting` are conditions that may have begun
    /// since the last check.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub(in crate::daemon) fn status(
        &self,
        context: &Context,
        settings: &Settings,
        policy: Option<&Policy>,
        lasting: &Conditions,
    ) -> anyhow::Result<Status> {
        let interfaces: Vec<String> = settings.interfaces.iter().map(|at| at.value.clone()).collect();
        let detached = context.runtime.detached();
        let mut status = match in_force::status(&context.pins, &interfaces) {
            Err(KernelError::NotInstalled { .. }) if detached => {
                let attach = interfaces.iter().map(|name| attach::describe(&context.pins, name)).collect();
                Status::not_enforcing(format!("{}: {DETACHED}", Condition::Detached.name()), attach)
            }
            status => status?,
        };
        let deadlines = deadlines(&status, unix_now());
        status.attention.extend(deadlines);
        if let Some(policy) = policy.filter(|_| !detached) {
            let notes = machine::compare(settings, policy).unwrap_or_else(|error| {
                vec![Note { kind: "machine", message: format!("{:#}", anyhow!(error)), rows: Vec::new() }]
            });
            let notes = notes.into_iter().filter(|note| needs_attention(note) || note.kind == "machine");
            status.attention.extend(notes.map(|note| format!("{}: {}", note.kind, note.message)));
        }
        let state = self.state();
        // A return because nobody confirmed has a condition of its own, and did not fail.
        if !state.last_reload_successful && !lasting.contains_key(&Condition::NotConfirmed) {
            status.attention.push("the last change of policy failed: the journal says why".to_owned());
        }
        // The status read from the kernel already has these, with the time that is left.
        let read = [Condition::Unconfirmed, Condition::Suspended, Condition::Detached];
        let mut conditions = self.conditions.clone();
        conditions.extend(lasting.clone());
        let conditions = conditions.iter().filter(|(condition, _)| !read.contains(condition));
        status
            .attention
            .extend(conditions.map(|(condition, about)| format!("{}: {about}", condition.name())));
        status.daemon = Some(DaemonStatus {
            version: state.version.clone(),
            pid: std::process::id(),
            last_success: state.last_reload_success,
            last_successful: state.last_reload_successful,
            replaced_layout: context.replaced,
        });
        Ok(status)
    }

    /// Returns the metrics page as of now.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub(in crate::daemon) fn metrics(&self, context: &Context) -> anyhow::Result<String> {
        page(&context.pins, &context.runtime, &self.state)
    }

    /// Returns the source of the metrics page.
    pub(super) fn metrics_source(&self, context: &Context) -> http::PageSource {
        let (pins, runtime, state) = (context.pins.clone(), context.runtime.clone(), Arc::clone(&self.state));
        Arc::new(move || page(&pins, &runtime, &state))
    }
}

/// Returns the metrics page as of now; after a detach, the metrics that remain.
fn page(pins: &Pins, runtime: &Runtime, state: &Mutex<DaemonState>) -> anyhow::Result<String> {
    let snapshot = reading::snapshot(pins);
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if runtime.detached() && matches!(snapshot, Err(KernelError::NotInstalled { .. })) {
        state.conditions.insert(Condition::Detached);
        let open = state.interfaces.iter().map(|name| attach::describe(pins, name)).collect();
        return Ok(metrics::page_without_maps(state, open)?);
    }
    Ok(metrics::page(snapshot?, state)?)
}
