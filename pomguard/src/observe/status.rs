//! What is in force and whether it is as it should be: what `status` shows. Plain data.

use serde::{Deserialize, Serialize};

use super::snapshot::AttachInfo;
use crate::{
    history::{By, Existing},
    model::Panic,
    policy::{Direction, Mode, RowId, impact::Impact},
};

/// One reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This host's name in the site file.
    pub host: String,
    /// The matrix' id.
    pub matrix: String,
    /// Generation in force, as the kernel's map says.
    pub generation: u64,
    /// SHA-256 of the image in force, hexadecimal.
    pub image: String,
    /// Mode of the inbound direction, as the kernel's map says.
    pub inbound: Mode,
    /// Mode of the outbound direction, as the kernel's map says.
    pub outbound: Mode,
    /// Seconds since 1970 when the last generation was installed.
    pub installed_at: u64,
    /// Seconds since 1970 when the counters began.
    #[serde(default)]
    pub counting_since: u64,
    /// False while what is in force waits for its confirmation.
    pub confirmed: bool,
    /// Seconds since 1970 when the programs return to the generation before, unless confirmed.
    pub rollback_at: Option<u64>,
    /// The bypass or lockdown that suspends the policy; `None` if the policy holds.
    pub suspension: Option<PanicStatus>,
    /// What is let through for a while.
    pub exceptions: Vec<ExceptionStatus>,
    /// Failsafe rows in force.
    pub failsafe: Vec<RowId>,
    /// Per interface that the settings name or a program is on.
    pub attach: Vec<AttachInfo>,
    /// The fates of the live flows; `None` from the daemon itself, and where they cannot be read.
    #[serde(default)]
    pub flows: Option<Flows>,
    /// The daemon; none when it does not answer.
    pub daemon: Option<DaemonStatus>,
    /// What is not as it should be, a sentence each.
    pub attention: Vec<String>,
}

impl Status {
    /// That of a host on which no policy is in force: why, and how each interface is attached.
    #[must_use]
    pub fn not_enforcing(why: String, attach: Vec<AttachInfo>) -> Self {
        Self {
            host: String::new(),
            matrix: String::new(),
            generation: 0,
            image: String::new(),
            inbound: Mode::Audit,
            outbound: Mode::Audit,
            installed_at: 0,
            counting_since: 0,
            confirmed: true,
            rollback_at: None,
            suspension: None,
            exceptions: Vec::new(),
            failsafe: Vec::new(),
            attach,
            flows: None,
            daemon: None,
            attention: vec![why],
        }
    }
}

/// The fates of the live flows under the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// True if something is in audit: the fates are those of the moment when it is enforced.
    pub if_enforced: bool,
    /// What the change in force made of the flows that it found.
    pub existing: Existing,
    /// The flows.
    pub impact: Impact,
}

/// A bypass or lockdown that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanicStatus {
    /// Which way.
    pub kind: Panic,
    /// Seconds since 1970 when it ends; none for one without an end.
    pub ends: Option<u64>,
    /// Seconds since 1970 when it began; `None` if nobody knows.
    #[serde(default)]
    pub since: Option<u64>,
    /// By whom; `None` if nobody knows.
    #[serde(default)]
    pub by: Option<By>,
    /// What for.
    #[serde(default)]
    pub why: Option<String>,
}

/// A timed exception that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionStatus {
    /// Its row id, `exception/NAME`: what it is counted under.
    pub id: RowId,
    /// Who opens.
    pub direction: Direction,
    /// The side that opens.
    pub source: String,
    /// The side that is opened to.
    pub destination: String,
    /// Ports and protocol.
    pub ports: String,
    /// Seconds since 1970 when it ends.
    pub ends: u64,
    /// Packets that it let through.
    pub packets: u64,
    /// Seconds since 1970 when it was granted; `None` if nobody knows.
    #[serde(default)]
    pub since: Option<u64>,
    /// By whom; `None` if nobody knows.
    #[serde(default)]
    pub by: Option<By>,
    /// What for.
    #[serde(default)]
    pub why: Option<String>,
}

/// The daemon that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// Its process number.
    pub pid: u32,
    /// Seconds since 1970 of the last time it took the files; none before the first.
    pub last_success: Option<u64>,
    /// Whether the last attempt to take them succeeded.
    pub last_successful: bool,
    /// The layout of the maps that its start replaced; none when it went on with those it found.
    #[serde(default)]
    pub replaced_layout: Option<u32>,
}
