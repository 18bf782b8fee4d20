//! Runs the emergency verbs: through the daemon if one answers, and directly otherwise.

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;

use super::{journal, output::Output};
use crate::{
    control::{
        client::{self, NoAnswer, NoDaemon, claimed_name},
        peer::login_user,
        protocol::Request,
    },
    daemon::{
        audit,
        overrides::emergency::{Asker, Scene},
    },
    history::By,
    input::settings::Settings,
    render::quantity::duration,
    state::runtime::{Runtime, RuntimeError},
};

/// Longest wait for an answer of the daemon, or for a lock, before a verb goes ahead without the daemon.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait of a verb that cannot go ahead without the daemon: waiting for a busy daemon costs nothing.
const LONG_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// A verb that an operator needs when nothing else works.
pub(super) struct Verb {
    /// The request to the daemon.
    pub(super) request: Request,
    /// The reason.
    pub(super) why: Option<String>,
    /// True if the verb goes ahead although a daemon that does not answer has the locks. Such a verb writes one
    /// word in the maps, and a daemon that recovers adopts the newer state on disk.
    pub(super) at_any_rate: bool,
}

/// The state of the locks for changes without a daemon.
enum Locks {
    /// No daemon runs, and no other process changes anything.
    Ours { _daemon: File, _change: File },
    /// A daemon runs but does not answer, or another process holds the lock on changes.
    Others,
}

impl Verb {
    /// Sends the request to the daemon. If no daemon runs, `alone` does the work under the daemon's locks; with
    /// `at_any_rate` also if the daemon does not answer. Prints a message if the work was done without the
    /// daemon.
    ///
    /// # Errors
    /// The refusal of the daemon, or the error of `alone`.
    pub(super) fn run<T: DeserializeOwned>(
        self,
        settings: &Settings,
        out: &mut Output,
        alone: impl FnOnce(&Scene, &Asker) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let patience = if self.at_any_rate { PATIENCE } else { LONG_PATIENCE };
        let begun = Instant::now();
        let runtime = Runtime::new(&settings.paths.runtime);
        let locks = loop {
            let left = patience.saturating_sub(begun.elapsed());
            let why = self.why.as_deref();
            let ask = || client::ask_within(&settings.paths.runtime, self.request.clone(), why, left);
            match out.busy("waiting some seconds for the daemon, then going on without", ask) {
                Err(error) if error.is::<NoAnswer>() => break Locks::Others,
                Err(error) if error.is::<NoDaemon>() => {}
                answered => return answered,
            }
            // A daemon that starts takes its lock before it listens.
            if let Some(locks) = locks(&runtime)? {
                break locks;
            }
            if begun.elapsed() >= patience {
                break Locks::Others;
            }
            thread::sleep(PAUSE);
        };
        let verb = self.request.verb();
        if matches!(locks, Locks::Others) && !self.at_any_rate {
            bail!(
                "another pomguard holds the lock and does not answer within {}: `systemctl restart pomguard`, then \
                 `pomguard {verb}` again (`pomguard bypass` and `pomguard lockdown` do not need it)",
                duration(patience.as_secs())
            );
        }
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let by = By { uid: geteuid().as_raw(), pid, login: login_user(pid), claimed: claimed_name() };
        let asker = Asker { by, why: self.why };
        let done = alone(&Scene::open(&settings.paths)?, &asker);
        journal::tell(&audit::without_daemon(verb, &asker, done.as_ref().err()));
        if done.is_ok() {
            out.complain(match locks {
                Locks::Ours { .. } => "pomguard: no daemon runs: done without it".to_owned(),
                Locks::Others => format!(
                    "pomguard: the daemon does not answer within {}: done without it; `systemctl restart pomguard` \
                     once there is time",
                    duration(patience.as_secs())
                ),
            });
        }
        done
    }
}

/// Takes both locks, if they are free.
fn locks(runtime: &Runtime) -> Result<Option<Locks>, RuntimeError> {
    let daemon = match runtime.only_daemon() {
        Err(RuntimeError::Running { .. }) => return Ok(None),
        lock => lock?,
    };
    Ok(runtime.try_change()?.map(|change| Locks::Ours { _daemon: daemon, _change: change }))
}
