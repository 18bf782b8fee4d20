//! The daemon's answers on the control socket.

use std::sync::PoisonError;

use anyhow::anyhow;
use log::{error, info};

use super::{
    Daemon,
    audit::{self, Audit},
    context::DETACHED,
    metrics_page,
    overrides::{emergency::Asker, exceptions::NewException},
    questions::Task,
    transition::ChangeRequest,
};
use crate::{
    control::{
        protocol::{Reply, Request},
        server::{self, Command, Requests},
        socket,
    },
    history::{By, Cause, Existing},
    input::settings::Settings,
    kernel::{KernelError, attach, machine},
    observe::{
        condition::Condition,
        in_force,
        status::{DaemonStatus, Status},
    },
    policy::{conflict::Note, machine::needs_attention},
};

/// Opens the control socket. If that fails, the daemon still enforces: the policy in force matters more.
pub(super) fn listen(settings: &Settings) -> Requests {
    let (queues, requests) = server::queues();
    let path = socket(&settings.paths.runtime);
    match server::listen(&path) {
        Ok(listener) => {
            tokio::spawn(server::serve(listener, settings.control_group.clone(), queues, audit::denied()));
            info!("control socket at {}", path.display());
        }
        Err(error) => error!("no control socket, so no `apply`, `allow`, `bypass` or `lockdown`: {error}"),
    }
    requests
}

impl Daemon {
    /// Executes a command and sends the result.
    pub(super) fn command(&mut self, command: Command) {
        let Command { message, peer, answer } = command;
        let verb = message.request.verb();
        if message.is_late() {
            let message =
                format!("{verb}: asked too long ago, and whoever asked has gone on without an answer");
            error!("{peer}: {message}");
            let _ = answer.send(Reply::Refused(message));
            return;
        }
        let by = By { uid: peer.uid, pid: peer.pid, login: peer.login, claimed: message.claimed };
        let (asked_by, why) = (by.clone(), message.why.clone());
        let audit = message
            .request
            .changes()
            .then(|| Audit::begin(&message.request, &by, why.as_deref(), self.image()));
        let request = |cause, confirm_within, existing, yes| ChangeRequest {
            cause,
            by: Some(asked_by),
            why,
            confirm_within,
            existing,
            yes,
        };
        let reply = match message.request {
            Request::Status => Reply::from_result(self.status()),
            Request::Explain { openings } => {
                let exceptions = self.overrides.exceptions().to_vec();
                return self.questions.put(Task { openings, exceptions, answer });
            }
            Request::Metrics => {
                Reply::from_result(metrics_page(&self.context.pins, &self.context.runtime, &self.state))
            }
            Request::Apply { confirm_within, existing, yes } => {
                let waits = self.waiting.is_some();
                let taken = self.take_files(&request(Cause::Apply, confirm_within, existing, yes));
                // A change that has to wait for another one has not failed.
                Reply::from_result(taken.inspect_err(|_| {
                    if !waits {
                        self.failed();
                    }
                }))
            }
            Request::Confirm => Reply::from_result(self.confirm()),
            Request::Rollback { to, confirm_within, yes } => Reply::from_result(
                self.roll_back(to, request(Cause::Apply, confirm_within, Existing::default(), yes)),
            ),
            Request::Allow { name, direction, peers, services, seconds } => {
                let (by, why) = (by, message.why);
                let asker = Asker { by, why };
                Reply::from_result(self.allow(NewException {
                    name,
                    direction,
                    peers,
                    services,
                    seconds,
                    asker,
                }))
            }
            Request::Revoke { name } => {
                Reply::from_result(self.revoke(&name, &Asker { by, why: message.why }))
            }
            Request::Panic { kind, seconds } => {
                Reply::from_result(self.suspend(kind, seconds, &Asker { by, why: message.why }))
            }
            Request::PanicOff => Reply::from_result(self.resume(&Asker { by, why: message.why })),
        };
        if let Reply::Refused(why) = &reply {
            error!("{peer}: {verb} refused: {why}");
        }
        if let Some(audit) = audit {
            // The next client must see the conditions of now.
            self.check();
            audit.end(&reply, &self.image());
        }
        // The client may be gone by now.
        let _ = answer.send(reply);
    }

    fn status(&self) -> anyhow::Result<Status> {
        let settings = self.waiting.as_ref().map_or(&self.settings, |waiting| &waiting.next.settings);
        let interfaces: Vec<String> = settings.interfaces.iter().map(|at| at.value.clone()).collect();
        let detached = self.context.runtime.detached();
        let mut status = match in_force::status(&self.context.pins, &interfaces) {
            Err(KernelError::NotInstalled { .. }) if detached => {
                let attach =
                    interfaces.iter().map(|name| attach::describe(&self.context.pins, name)).collect();
                Status::not_enforcing(format!("{}: {DETACHED}", Condition::Detached.name()), attach)
            }
            status => status?,
        };
        self.overrides.explain(&mut status);
        let policy = self.waiting.as_ref().map(|waiting| &waiting.next).or(self.held.as_ref());
        if let Some(held) = policy.filter(|_| !detached) {
            let notes = machine::compare(settings, &held.policy).unwrap_or_else(|error| {
                vec![Note { kind: "machine", message: format!("{:#}", anyhow!(error)), rows: Vec::new() }]
            });
            let notes = notes.into_iter().filter(|note| needs_attention(note) || note.kind == "machine");
            status.attention.extend(notes.map(|note| format!("{}: {}", note.kind, note.message)));
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.last_reload_successful {
            status.attention.push("the last change of policy failed: the journal says why".to_owned());
        }
        // The status read from the kernel already has these, with the seconds that are left.
        let read = [Condition::Unconfirmed, Condition::Panic, Condition::Detached];
        // Conditions that began since the last check are included.
        let mut conditions = self.conditions.clone();
        conditions.extend(self.lasting_conditions.clone());
        let conditions = conditions.iter().filter(|(condition, _)| !read.contains(condition));
        status
            .attention
            .extend(conditions.map(|(condition, about)| format!("{}: {about}", condition.name())));
        status.daemon = Some(DaemonStatus {
            version: state.version.clone(),
            pid: std::process::id(),
            last_success: state.last_reload_success,
            last_successful: state.last_reload_successful,
            replaced_layout: self.context.replaced,
        });
        Ok(status)
    }
}
