//! The requests and replies of the control socket: one JSON object per line, one reply per request, in order.

use std::{fs, os::unix::fs::MetadataExt as _, time::Duration};

use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use pomguard_common::Direction;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use crate::model::SuspensionKind;
use crate::{
    history::{Existing, Summary},
    policy::{Mode, Service, oracle::Opening, setting::SettingChange},
};

/// The version of the protocol. Another version is refused with both numbers.
pub const VERSION: u32 = 1;
/// The longest accepted reason, in characters.
pub const LONGEST_WHY: usize = 500;

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// [`VERSION`].
    pub version: u32,
    /// The reason in the operator's words; kept with the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The login name that the client's environment claims. Anybody can set such a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<String>,
    /// Milliseconds since the boot after which the client no longer waits for an answer, and the request is
    /// void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// The request.
    pub request: Request,
}

impl Message {
    /// Returns true if the sender has stopped waiting.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.until.as_ref().is_some_and(Until::has_passed)
    }
}

/// A moment by the clock since the boot, suspended time included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// Milliseconds since the boot.
    pub at: u64,
    /// Inode number of the time namespace that the clock belongs to; 0 on a kernel without time namespaces.
    pub clock: u64,
}

impl Until {
    /// Returns the moment after this time.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        let at = since_boot().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Self { at, clock: time_namespace() }
    }

    /// Returns true if the moment has passed. The clock of another time namespace tells nothing.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.clock == time_namespace() && since_boot() > self.at
    }
}

fn time_namespace() -> u64 {
    fs::metadata("/proc/self/ns/time").map_or(0, |file| file.ino())
}

fn since_boot() -> u64 {
    // The clock exists on every supported kernel.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Return the status.
    Status,
    /// Return the metrics page.
    Metrics,
    /// Run packets through a copy of the programs.
    Explain {
        /// The packets, each the first of a flow.
        openings: Vec<Opening>,
    },
    /// Put the files in force.
    Apply {
        /// Roll back unless confirmed within this number of seconds.
        confirm_within: Option<u32>,
        /// The treatment of live flows that no row of the files allows.
        #[serde(default)]
        existing: Existing,
        /// Take the guard off interfaces that the settings no longer name.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        yes: bool,
    },
    /// Confirm the pending change.
    Confirm,
    /// Roll back to an earlier change.
    Rollback {
        /// The number of the change in the history; `None` for the previous one.
        to: Option<u64>,
        /// As with apply.
        confirm_within: Option<u32>,
        /// As with apply.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        yes: bool,
    },
    /// Allow a connection for a limited time.
    Allow {
        /// The name of the exception; `None` for the first free number.
        name: Option<String>,
        /// The direction in which connections are opened.
        direction: Direction,
        /// The addresses of the peers.
        peers: Vec<IpNet>,
        /// The services that are opened.
        services: Vec<Service>,
        /// The duration in seconds.
        seconds: u32,
    },
    /// Revoke an exception.
    Revoke {
        /// The name of the exception.
        name: String,
    },
    /// Suspend the policy for a limited time.
    #[serde(rename = "panic")]
    Suspend {
        /// Bypass or lockdown.
        kind: SuspensionKind,
        /// The duration in seconds.
        seconds: u32,
    },
    /// End a bypass or lockdown.
    #[serde(rename = "panic-off")]
    Resume,
}

impl Request {
    /// Returns true if the request changes anything, which takes more than the right to read.
    #[must_use]
    pub const fn changes(&self) -> bool {
        !matches!(self, Self::Status | Self::Metrics | Self::Explain { .. })
    }

    /// Returns the verb of the request on the command line.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Explain { .. } => "explain",
            Self::Apply { .. } => "apply",
            Self::Confirm => "confirm",
            Self::Rollback { .. } => "rollback",
            Self::Allow { .. } => "allow",
            Self::Revoke { .. } => "revoke",
            Self::Suspend { kind, .. } => kind.name(),
            Self::Resume => "end of bypass and lockdown",
        }
    }
}

/// The result of a change of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// False if the requested policy is in force already: then nothing was done.
    #[serde(default = "yes")]
    pub changed: bool,
    /// The number of the change in the history; `None` if the history could not be written.
    pub number: Option<u64>,
    /// The generation in force.
    pub generation: u32,
    /// SHA-256 of the image in force, hexadecimal.
    pub image: String,
    /// Mode of the inbound direction.
    pub inbound: Mode,
    /// Mode of the outbound direction.
    pub outbound: Mode,
    /// The number of tuples of the policy.
    pub tuples: usize,
    /// The change in numbers: rows, modes and settings.
    pub summary: Summary,
    /// The changed settings.
    #[serde(default)]
    pub settings: Vec<SettingChange>,
    /// Interfaces that lose the guard by this change: now, or on confirmation.
    #[serde(default)]
    pub unguarded: Vec<String>,
    /// Milliseconds from the reading of the files to the change of the generation.
    pub took_ms: u64,
    /// Seconds since 1970 at which the change is rolled back unless confirmed.
    pub confirm_by: Option<u64>,
    /// Flows that `--cut` ended, or that `--keep-existing` keeps; `None` without either.
    #[serde(default)]
    pub existing: Option<usize>,
    /// Problems that did not prevent the change.
    pub notes: Vec<String>,
}

/// Returns the value of [`Changed::changed`] for a daemon that does not send the field.
const fn yes() -> bool {
    true
}

/// An exception that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// The name of the exception.
    pub name: String,
    /// Seconds since 1970 at which the exception ends.
    pub ends: u64,
}

/// A reply to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The request was executed; the result.
    Done(serde_json::Value),
    /// The request was refused, and nothing was changed; the reason and a remedy.
    Refused(String),
}

impl Reply {
    /// Returns the reply for a result.
    pub fn from_result<T: Serialize>(result: anyhow::Result<T>) -> Self {
        match result.and_then(|value| Ok(serde_json::to_value(value)?)) {
            Ok(value) => Self::Done(value),
            Err(error) => Self::Refused(format!("{error:#}")),
        }
    }

    /// Returns the result that the client expects.
    ///
    /// # Errors
    /// The daemon's message if the daemon refused; an error if the result has another form.
    pub fn into_result<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        match self {
            Self::Done(value) => Ok(serde_json::from_value(value)?),
            Self::Refused(why) => Err(anyhow::Error::msg(why)),
        }
    }

    /// Returns the reply as one line. A value without a JSON form (a map with keys that are not text) becomes
    /// a refusal.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| b"{\"refused\":\"no answer\"}".to_vec());
        line.push(b'\n');
        line
    }
}

/// Reads a request.
///
/// # Errors
/// A sentence for the sender.
pub fn read(line: &[u8]) -> Result<Message, String> {
    /// The part that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let malformed = |error| format!("not a request of pomguard's control protocol: {error}");
    let Versioned { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        return Err(format!(
            "the request is of protocol version {version}, this daemon speaks {VERSION}: \
             use the `pomguard` that came with it"
        ));
    }
    let message: Message = serde_json::from_slice(line).map_err(malformed)?;
    let long =
        [&message.why, &message.claimed].into_iter().flatten().any(|text| text.chars().count() > LONGEST_WHY);
    if long {
        Err(format!("the reason is longer than {LONGEST_WHY} characters: shorten it"))
    } else {
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{control::frame::REQUEST, observe::verdict::AT_ONCE};

    fn message(request: Request) -> Message {
        Message {
            version: VERSION,
            why: Some("a \"test\"\n".to_owned()),
            claimed: None,
            until: None,
            request,
        }
    }

    /// Returns the packet that takes the most characters.
    fn longest() -> Opening {
        Opening {
            direction: Direction::Outbound,
            source: "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            source_port: u16::MAX,
            destination: "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffe".parse().unwrap(),
            destination_port: u16::MAX,
            protocol: u8::MAX,
        }
    }

    #[test]
    fn every_request_reads_as_it_was_written() {
        let requests = [
            Request::Status,
            Request::Metrics,
            Request::Explain { openings: vec![longest(); AT_ONCE] },
            Request::Apply { confirm_within: Some(60), existing: Existing::Cut, yes: false },
            Request::Apply { confirm_within: None, existing: Existing::ByPolicy, yes: true },
            Request::Confirm,
            Request::Rollback { to: Some(3), confirm_within: None, yes: true },
            Request::Allow {
                name: None,
                direction: Direction::Outbound,
                peers: vec!["fd00::/64".parse().unwrap()],
                services: vec![Service { protocol: 6, ports: crate::policy::PortRange::one(22) }],
                seconds: 7_200,
            },
            Request::Revoke { name: "1".to_owned() },
            Request::Suspend { kind: SuspensionKind::Lockdown, seconds: 600 },
            Request::Resume,
        ];
        for request in requests {
            let line = serde_json::to_vec(&message(request.clone())).unwrap();
            assert!(!line.contains(&b'\n'), "one line: {}", String::from_utf8_lossy(&line));
            assert!(line.len() < REQUEST, "{} bytes", line.len());
            assert_eq!(read(&line), Ok(message(request)));
        }
    }

    #[test]
    fn suspension_keeps_its_words_on_the_socket() {
        let suspend = Request::Suspend { kind: SuspensionKind::Lockdown, seconds: 600 };
        let words = serde_json::to_string(&suspend).unwrap();
        assert_eq!(words, r#"{"verb":"panic","kind":"lockdown","seconds":600}"#);
        assert_eq!(serde_json::to_string(&Request::Resume).unwrap(), r#"{"verb":"panic-off"}"#);
    }

    #[test]
    fn what_is_no_request_is_told_so_in_words() {
        for (line, words) in [
            ("", "not a request"),
            ("{}", "version"),
            ("[1]", "not a request"),
            (r#"{"version":2,"request":{"verb":"status"}}"#, "version 2, this daemon speaks 1"),
            (r#"{"version":1,"request":{"verb":"reboot"}}"#, "reboot"),
            (r#"{"version":1,"request":{"verb":"apply","confirm_within":-1}}"#, "-1"),
            (r#"{"version":1,"request":{"verb":"apply","confirm_within":1,"now":1}}"#, "now"),
            (r#"{"version":1,"request":{"verb":"status"},"extra":1}"#, "extra"),
        ] {
            let message = read(line.as_bytes()).expect_err(line);
            assert!(message.contains(words), "{line}: {message}");
        }
        let mut long = message(Request::Confirm);
        long.why = Some("x".repeat(LONGEST_WHY + 1));
        assert!(read(&serde_json::to_vec(&long).unwrap()).unwrap_err().contains("500"));
    }

    #[test]
    fn only_questions_can_be_put_by_who_may_only_ask() {
        assert!(!Request::Status.changes() && !Request::Metrics.changes());
        assert!(!Request::Explain { openings: Vec::new() }.changes());
        assert!(Request::Confirm.changes() && Request::Resume.changes());
    }

    #[test]
    fn request_is_void_when_nobody_waits_for_its_answer_any_more() {
        let message = |until| Message { until, ..message(Request::Resume) };
        assert!(!message(None).is_late(), "one without a limit");
        let passed = Until { at: since_boot().saturating_sub(1), clock: time_namespace() };
        assert!(!message(Some(Until::after(Duration::from_secs(60)))).is_late());
        assert!(message(Some(passed.clone())).is_late());
        assert!(!message(Some(Until { clock: 1, ..passed })).is_late(), "the clock of another namespace");
    }

    proptest! {
        /// CP-02: malformed frames.
        #[test]
        fn no_bytes_make_the_reader_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&line);
        }

        #[test]
        fn request_with_bytes_changed_is_read_or_refused(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut line = serde_json::to_vec(&message(Request::Suspend { kind: SuspensionKind::Bypass, seconds: 60 })).unwrap();
            let length = line.len();
            line[at.index(length)] = byte;
            let _ = read(&line);
            let cut = cut.index(length);
            prop_assert!(read(&line[..cut]).is_err(), "a request that was cut short is none");
        }
    }
}
