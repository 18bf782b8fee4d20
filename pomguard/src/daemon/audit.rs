//! The audit trail: one journal entry for every change, emergency verb, denied request and repair.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    journal::{self, Entry, Priority, message_id},
    overrides::emergency::Asker,
};
use crate::{
    control::{
        client::claimed_name,
        peer::{self, Client},
        protocol::{Changed, Reply, Request},
        server::OnDenied,
    },
    history::{By, Cause, Event, Record},
    kernel::clock::unix_now,
    observe::{condition::Repair, printable::printable},
};

/// The interval at which the denied requests of one user are written: a flood of requests makes one entry a
/// second.
const DENIED_EVERY: Duration = Duration::from_secs(1);

/// A request that changes something, noted before the change.
pub(super) struct Audit {
    verb: &'static str,
    /// True if the request suspends or bypasses the policy.
    emergency: bool,
    by: By,
    why: String,
    before: String,
}

impl Audit {
    /// Notes a request; `before` is the digest of the image in force.
    pub(super) fn begin(request: &Request, by: &By, why: Option<&str>, before: String) -> Self {
        let change = matches!(request, Request::Apply { .. } | Request::Confirm | Request::Rollback { .. });
        let why = why.unwrap_or_default().to_owned();
        Self { verb: request.verb(), emergency: !change, by: by.clone(), why, before }
    }

    /// Writes the result of the request; `after` is the digest of the image in force afterwards.
    pub(super) fn end(self, reply: &Reply, after: &str) {
        let Self { verb, emergency, by, why, before } = self;
        let name = match by.login {
            Some(login) => format!("uid {} (logged in as uid {login})", by.uid),
            None => format!("uid {}", by.uid),
        };
        let changed = match reply {
            Reply::Done(value) => serde_json::from_value::<Changed>(value.clone()).ok(),
            Reply::Refused(_) => None,
        };
        let number = changed.as_ref().and_then(|it| it.number);
        let (outcome, message, priority) = match reply {
            Reply::Refused(problem) => {
                ("refused", format!("{verb} by {name} was refused: {problem}"), Priority::Warning)
            }
            Reply::Done(_) if changed.as_ref().is_some_and(|it| !it.changed) => {
                ("unchanged", format!("{verb} by {name}: nothing changed"), Priority::Notice)
            }
            Reply::Done(_) => {
                let number = number.map_or_else(String::new, |number| format!(": change {number}"));
                let priority = if emergency { Priority::Warning } else { Priority::Notice };
                ("done", format!("{verb} by {name}{number}"), priority)
            }
        };
        let mut fields = vec![("POMGUARD_VERB", verb.to_owned()), ("POMGUARD_OUTCOME", outcome.to_owned())];
        fields.extend(who(&by));
        fields.extend([
            ("POMGUARD_WHY", why),
            ("POMGUARD_CHANGE", number.map_or_else(String::new, |number| number.to_string())),
            ("POMGUARD_OLD_IMAGE", before),
            ("POMGUARD_NEW_IMAGE", after.to_owned()),
        ]);
        journal::write(&Entry {
            message_id: if emergency { message_id::EMERGENCY } else { message_id::CHANGE },
            priority,
            message,
            fields,
        });
    }
}

/// Writes an entry for a change that the daemon made at its start or on SIGHUP.
pub(super) fn own_change(cause: Cause, record: Option<&Record>, before: &str, after: &str) {
    let number = record.map_or_else(String::new, |record| record.number.to_string());
    journal::write(&Entry {
        message_id: message_id::CHANGE,
        priority: Priority::Notice,
        message: format!("{cause}: change {number} is in force"),
        fields: vec![
            ("POMGUARD_VERB", cause.to_string()),
            ("POMGUARD_OUTCOME", "done".to_owned()),
            ("POMGUARD_CHANGE", number),
            ("POMGUARD_OLD_IMAGE", before.to_owned()),
            ("POMGUARD_NEW_IMAGE", after.to_owned()),
        ],
    });
}

/// Writes an entry for a reload that was refused.
pub(super) fn reload_refused(why: &anyhow::Error, image: &str) {
    journal::write(&Entry {
        message_id: message_id::CHANGE,
        priority: Priority::Warning,
        message: format!("a reload was refused: {why:#}"),
        fields: vec![
            ("POMGUARD_VERB", Cause::Reload.to_string()),
            ("POMGUARD_OUTCOME", "refused".to_owned()),
            ("POMGUARD_OLD_IMAGE", image.to_owned()),
            ("POMGUARD_NEW_IMAGE", image.to_owned()),
        ],
    });
}

/// Writes an entry for a change that was rolled back because nobody confirmed it.
pub(super) fn returned(message: &str, before: &str, after: &str) {
    journal::write(&Entry {
        message_id: message_id::CHANGE,
        priority: Priority::Warning,
        message: message.to_owned(),
        fields: vec![
            ("POMGUARD_VERB", "return".to_owned()),
            ("POMGUARD_OUTCOME", "done".to_owned()),
            ("POMGUARD_OLD_IMAGE", before.to_owned()),
            ("POMGUARD_NEW_IMAGE", after.to_owned()),
        ],
    });
}

/// Writes an entry for each repair.
pub(super) fn repairs(repairs: &[Repair]) {
    for repair in repairs {
        journal::write(&Entry {
            message_id: message_id::REPAIR,
            priority: Priority::Error,
            message: format!("{} was changed from outside: put back", repair.name()),
            fields: vec![("POMGUARD_REPAIR", repair.name().to_owned())],
        });
    }
}

/// Returns the entry for an emergency verb that this process carried out without the daemon; `failed` is the
/// error, if there is one.
pub fn without_daemon(verb: &str, asker: &Asker, failed: Option<&anyhow::Error>) -> Entry {
    let Asker { by, why } = asker;
    let why = why.clone().unwrap_or_default();
    let outcome = match failed {
        None => "done without the daemon".to_owned(),
        Some(error) => format!("FAILED without the daemon: {error:#}"),
    };
    let claimed = by.claimed.as_deref().unwrap_or("nobody");
    let reason = if why.is_empty() { "none given" } else { &why };
    let message = format!(
        "uid {} pid {} (claims to be {}): {verb}; reason: {}; {outcome}",
        by.uid,
        by.pid,
        printable(claimed),
        printable(reason)
    );
    let outcome = if failed.is_none() { "done" } else { "failed" };
    let mut fields = vec![("POMGUARD_VERB", verb.to_owned()), ("POMGUARD_OUTCOME", outcome.to_owned())];
    fields.extend(who(by));
    fields.push(("POMGUARD_WHY", why));
    Entry { message_id: message_id::EMERGENCY, priority: Priority::Error, message, fields }
}

/// Writes an entry that says which interfaces this process opened, and which ones it could not open. Returns the
/// event for the history.
pub fn detached(opened: &[&str], kept: &[String], why: Option<&str>) -> Event {
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let uid = nix::unistd::geteuid().as_raw();
    let by = By { uid, pid, login: peer::login_user(pid), claimed: claimed_name() };
    let opened = if opened.is_empty() { "no interface".to_owned() } else { opened.join(", ") };
    let (outcome, rest) = match kept {
        [] => ("done", String::new()),
        kept => ("failed", format!("; still attached: {}", kept.join("; "))),
    };
    let mut fields = vec![("POMGUARD_VERB", "detach".to_owned()), ("POMGUARD_OUTCOME", outcome.to_owned())];
    fields.extend(who(&by));
    fields.push(("POMGUARD_WHY", why.unwrap_or_default().to_owned()));
    let about = format!("{opened} open{rest}");
    journal::write(&Entry {
        message_id: message_id::EMERGENCY,
        priority: Priority::Error,
        message: format!("detach: {about}"),
        fields,
    });
    Event { at: unix_now(), verb: "detach".to_owned(), about, by: Some(by), why: why.map(str::to_owned) }
}

/// Returns the fields that name a process.
fn who(by: &By) -> [(&'static str, String); 4] {
    [
        ("POMGUARD_UID", by.uid.to_string()),
        ("POMGUARD_LOGIN_UID", by.login.map_or_else(String::new, |login| login.to_string())),
        ("POMGUARD_PID", by.pid.to_string()),
        ("POMGUARD_CLAIMED", by.claimed.clone().unwrap_or_default()),
    ]
}

/// Returns a callback that writes denied requests, at most one per second for each user.
pub(super) fn denied() -> OnDenied {
    let last: Mutex<BTreeMap<u32, Instant>> = Mutex::default();
    Arc::new(move |peer: &Client, verb| {
        let now = Instant::now();
        {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            last.retain(|_, at| now.saturating_duration_since(*at) < DENIED_EVERY);
            if last.contains_key(&peer.uid) {
                return;
            }
            last.insert(peer.uid, now);
        }
        let verb = verb.unwrap_or("connect");
        journal::write(&Entry {
            message_id: message_id::DENIED,
            priority: Priority::Warning,
            message: format!("{peer} may not {verb}"),
            fields: vec![
                ("POMGUARD_VERB", verb.to_owned()),
                ("POMGUARD_OUTCOME", "denied".to_owned()),
                ("POMGUARD_UID", peer.uid.to_string()),
                ("POMGUARD_LOGIN_UID", peer.login.map_or_else(String::new, |login| login.to_string())),
                ("POMGUARD_PID", peer.pid.to_string()),
            ],
        });
    })
}
