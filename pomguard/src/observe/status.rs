//! The policy in force and the conditions: the content of `status`. Plain data.

use serde::{Deserialize, Serialize};

use super::snapshot::AttachInfo;
use crate::{
    history::{By, Existing},
    model::SuspensionKind,
    policy::{Direction, Mode, RowId, impact::Impact},
};

/// One reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// True if a policy is in force. If not, the fields up to `failsafe` have no meaning.
    #[serde(default = "in_force")]
    pub in_force: bool,
    /// This host's name in the site file.
    pub host: String,
    /// The matrix' id.
    pub matrix: String,
    /// Generation in force, from the kernel's map.
    pub generation: u64,
    /// SHA-256 of the image in force, hexadecimal.
    pub image: String,
    /// Mode of the inbound direction, from the kernel's map.
    pub inbound: Mode,
    /// Mode of the outbound direction, from the kernel's map.
    pub outbound: Mode,
    /// Seconds since 1970 at which the last generation was installed.
    pub installed_at: u64,
    /// Seconds since 1970 at which the counters began.
    #[serde(default)]
    pub counting_since: u64,
    /// False while the policy in force waits for confirmation.
    pub confirmed: bool,
    /// Seconds since 1970 at which the programs return to the previous generation, unless somebody confirms.
    pub rollback_at: Option<u64>,
    /// The bypass or lockdown that suspends the policy; `None` if the policy holds.
    pub suspension: Option<SuspensionStatus>,
    /// The timed exceptions that hold.
    pub exceptions: Vec<ExceptionStatus>,
    /// Failsafe rows in force.
    pub failsafe: Vec<RowId>,
    /// Every interface that the settings name or that has a program.
    pub attach: Vec<AttachInfo>,
    /// The fates of the live flows; `None` in the daemon's own status, and if the flows cannot be read.
    #[serde(default)]
    pub flows: Option<Flows>,
    /// The daemon; `None` if no daemon answers.
    pub daemon: Option<DaemonStatus>,
    /// The conditions that need attention, a sentence each.
    pub attention: Vec<String>,
}

impl Status {
    /// Returns the status of a host on which no policy is in force: the reason, and the attachment of each
    /// interface.
    #[must_use]
    pub fn not_enforcing(why: String, attach: Vec<AttachInfo>) -> Self {
        Self {
            in_force: false,
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

/// The value of [`Status::in_force`] from a daemon that does not report it: such a daemon reports no other status.
const fn in_force() -> bool {
    true
}

/// The fates of the live flows under the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// True if something is in audit: the fates are those at the start of enforcement.
    pub if_enforced: bool,
    /// True while a bypass holds: the fates are those at its end.
    #[serde(default)]
    pub after_bypass: bool,
    /// The treatment of live flows by the change in force.
    pub existing: Existing,
    /// The flows.
    pub impact: Impact,
}

/// A bypass or lockdown that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspensionStatus {
    /// The kind of suspension.
    pub kind: SuspensionKind,
    /// Seconds since 1970 at which the suspension ends; `None` for one without an end.
    pub ends: Option<u64>,
    /// Seconds since 1970 at which the suspension began; `None` if unknown.
    #[serde(default)]
    pub since: Option<u64>,
    /// The person who began the suspension; `None` if unknown.
    #[serde(default)]
    pub by: Option<By>,
    /// The reason given for the suspension.
    #[serde(default)]
    pub why: Option<String>,
}

/// A timed exception that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionStatus {
    /// The row id, `exception/NAME`, under which the exception is counted.
    pub id: RowId,
    /// The direction in which connections are opened.
    pub direction: Direction,
    /// The side that opens connections.
    pub source: String,
    /// The side to which connections are opened.
    pub destination: String,
    /// Ports and protocol.
    pub ports: String,
    /// Seconds since 1970 at which the exception ends.
    pub ends: u64,
    /// Packets that the exception allowed.
    pub packets: u64,
    /// Seconds since 1970 at which the exception was granted; `None` if unknown.
    #[serde(default)]
    pub since: Option<u64>,
    /// The person who granted the exception; `None` if unknown.
    #[serde(default)]
    pub by: Option<By>,
    /// The reason given for the exception.
    #[serde(default)]
    pub why: Option<String>,
}

/// The daemon that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The version of the daemon.
    pub version: String,
    /// The process number of the daemon.
    pub pid: u32,
    /// Seconds since 1970 of the last accepted files; `None` before the first ones.
    pub last_success: Option<u64>,
    /// True if the last attempt to take the files succeeded.
    pub last_successful: bool,
    /// The layout of the maps that the start replaced; `None` if the start kept the maps.
    #[serde(default)]
    pub replaced_layout: Option<u32>,
}
