//! The daemon's answers on the control socket.

use anyhow::bail;
use log::{error, info};

use super::{
    Daemon,
    audit::{self, Audit},
    changes::{ChangeRequest, Changes},
    overrides::{emergency::Asker, exceptions::NewException},
    reporter::questions::Task,
};
use crate::{
    control::{
        protocol::{Reply, Request},
        server::{self, Command, Requests},
        socket,
    },
    history::{By, Cause, Existing},
    input::settings::Settings,
    observe::status::Status,
    render::quantity::duration,
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
            .then(|| Audit::begin(&message.request, &by, why.as_deref(), self.changes.image()));
        let exceptions = self.overrides.exceptions().to_vec();
        let request = |cause, confirm_within, existing, yes| ChangeRequest {
            cause,
            by: Some(asked_by),
            why,
            confirm_within,
            existing,
            exceptions: exceptions.clone(),
            yes,
        };
        let reply = match message.request {
            Request::Status => Reply::from_result(self.status()),
            Request::Explain { openings } => {
                return self.reporter.explain(Task { openings, exceptions, answer });
            }
            Request::Metrics => Reply::from_result(self.reporter.metrics(&self.context)),
            Request::Apply { confirm_within, existing, yes } => {
                let waits = self.changes.is_waiting();
                let request = request(Cause::Apply, confirm_within, existing, yes);
                let taken = check_deadline(confirm_within).and_then(|()| {
                    self.change(|changes, context, reconciler| {
                        changes.take_files(context, reconciler, &request)
                    })
                });
                // A change that has to wait for another one has not failed.
                Reply::from_result(taken.inspect_err(|_| {
                    if !waits {
                        self.reporter.failed();
                    }
                }))
            }
            Request::Confirm => Reply::from_result(self.change(Changes::confirm)),
            Request::Rollback { to, confirm_within, yes } => {
                let request = request(Cause::Apply, confirm_within, Existing::default(), yes);
                Reply::from_result(check_deadline(confirm_within).and_then(|()| {
                    self.change(|changes, context, reconciler| {
                        changes.roll_back(context, reconciler, to, request)
                    })
                }))
            }
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
            Request::Suspend { kind, seconds } => {
                Reply::from_result(self.suspend(kind, seconds, &Asker { by, why: message.why }))
            }
            Request::Resume => Reply::from_result(self.resume(&Asker { by, why: message.why })),
        };
        if let Reply::Refused(why) = &reply {
            error!("{peer}: {verb} refused: {why}");
        }
        if let Some(audit) = audit {
            // The next client must see the conditions of now.
            self.check();
            audit.end(&reply, &self.changes.image());
        }
        // The client may be gone by now.
        let _ = answer.send(reply);
    }

    fn status(&self) -> anyhow::Result<Status> {
        let mut status = self.reporter.status(
            &self.context,
            self.changes.settings_in_force(),
            self.changes.policy_in_force(),
            self.changes.conditions(),
        )?;
        self.overrides.explain(&mut status);
        Ok(status)
    }
}

/// The longest time in which a change can be confirmed, in seconds: a day. Until then every other change is
/// refused, and an unconfirmed change that returns after weeks surprises everybody.
const LONGEST_DEADLINE: u32 = 86_400;

/// Refuses a deadline that is too far away.
fn check_deadline(confirm_within: Option<u32>) -> anyhow::Result<()> {
    if confirm_within.is_some_and(|seconds| seconds > LONGEST_DEADLINE) {
        bail!("a change waits at most {} for its confirmation", duration(LONGEST_DEADLINE.into()));
    }
    Ok(())
}
