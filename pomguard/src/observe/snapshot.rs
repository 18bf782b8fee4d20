//! One reading of the pinned maps: the data behind `stats`, `status`, `/metrics` and `top`.
//!
//! Plain data. [`reading`](super::reading) fills the data from the maps; printers and the metrics page only
//! read.

use pomguard_common::{Direction, reason::Reason};
use serde::{Deserialize, Serialize};

pub use crate::kernel::attached::AttachInfo;
use crate::{
    kernel::install::Installed,
    model::{Mode, RowId},
};

/// The image in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInForce {
    /// SHA-256 of the image, hexadecimal.
    pub image: String,
    /// The generation.
    pub generation: u64,
}

impl From<&Installed> for ImageInForce {
    fn from(installed: &Installed) -> Self {
        Self { image: installed.digest(), generation: installed.generation().into() }
    }
}

/// One reading of the maps.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// This host's name in the site file.
    pub host: String,
    /// The matrix' id.
    pub matrix: String,
    /// Generation in force, counted from 1 at the first install.
    pub generation: u64,
    /// SHA-256 of the image in force, hexadecimal.
    pub image: String,
    /// Mode of the inbound direction, from the kernel's map.
    pub inbound: Mode,
    /// Mode of the outbound direction, from the kernel's map.
    pub outbound: Mode,
    /// Seconds since 1970 at which the counters were first set up.
    pub counting_since: u64,
    /// Seconds since 1970 at which the generation in force was installed.
    pub installed_at: u64,
    /// The attachment of each interface.
    pub attach: Vec<AttachInfo>,
    /// The counters of each (row, direction): rows in force, then former rows.
    pub rows: Vec<RowStats>,
    /// The counters of each reason, direction and outcome; reasons that never occurred are left out.
    pub reasons: Vec<ReasonStats>,
    /// The totals of each direction.
    pub totals: Vec<Totals>,
    /// The flow table.
    pub flows: FlowStats,
    /// The limited resources of the image, used and available.
    pub capacity: Vec<Capacity>,
    /// Addresses on which the site file and the machine differ, a sentence each; empty if nobody asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// The beginning of the counts, if not all that was ever counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<CountedSince>,
    /// The reasons that were counted since the last change of policy; `None` if nobody asked.
    #[serde(skip)]
    pub since_change: Option<Vec<ReasonStats>>,
}

/// The beginning of counts that are a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CountedSince {
    /// Seconds since 1970.
    pub at: u64,
    /// True if the counters began anew at that time, after the time that was asked for: packets before are
    /// missing.
    pub anew: bool,
}

impl Snapshot {
    /// Returns the packets of `direction` that were dropped (or, in audit, would have been) although the site
    /// file knows the peer.
    #[must_use]
    pub fn known_system_drops(&self, direction: Direction, outcome: Disposition) -> u64 {
        self.reasons
            .iter()
            .filter(|stats| stats.direction == direction && stats.verdict == outcome)
            .filter(|stats| stats.reason().is_some_and(Reason::concerns_known_system))
            .map(|stats| stats.packets)
            .sum()
    }
}

/// One row's counters, summed over the CPUs.
#[derive(Clone, Debug, Serialize)]
pub struct RowStats {
    /// Stable id.
    pub id: RowId,
    /// Direction.
    pub direction: Direction,
    /// Systems that open the connection.
    pub source: String,
    /// Systems to which the connection is opened.
    pub destination: String,
    /// Ports and protocol as enforced.
    pub ports: String,
    /// True if the row is in force now (a row that left the policy keeps the counters).
    pub live: bool,
    /// True for a failsafe row.
    pub failsafe: bool,
    /// Mode of the row.
    pub mode: Mode,
    /// Packets that the row allowed.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// Flows opened.
    pub connections: u64,
    /// Seconds since 1970 of the first hit; `None` before the first one.
    pub first_hit: Option<u64>,
    /// Seconds since 1970 of the last hit; `None` before the first one.
    pub last_hit: Option<u64>,
}

/// The fate of packets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// Passed under a pass reason.
    Pass,
    /// Dropped.
    Drop,
    /// Would have been dropped; passed, because the direction is in audit.
    Audit,
}

impl Disposition {
    /// Returns the word used in tables, JSON and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Audit => "audit",
        }
    }
}

/// One reason's counters, summed over the CPUs.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonStats {
    /// The reason's name.
    pub name: String,
    /// Direction.
    pub direction: Direction,
    /// The fate of the packets.
    pub verdict: Disposition,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Seconds since 1970 of the last packet, as far as a daemon noticed; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

impl ReasonStats {
    /// Returns the reason of that name; `None` if only a newer kernel side has the reason.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.name() == self.name)
    }
}

/// One direction's totals.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// Direction.
    pub direction: Direction,
    /// Packets that reached the hook, counted separately before the judgement.
    pub seen: u64,
    /// Bytes of these packets.
    pub seen_bytes: u64,
    /// Passed, audited ones included.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
    /// Packets among the passed ones that enforce would have dropped.
    pub audited: u64,
}

impl Totals {
    /// Returns seen minus passed minus dropped: zero, except for packets that were in flight while the
    /// counters of the CPUs were read one after the other.
    #[must_use]
    pub fn accounting_mismatch(&self) -> i128 {
        i128::from(self.seen) - i128::from(self.passed) - i128::from(self.dropped)
    }
}

/// The usage of the flow table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FlowStats {
    /// Live entries.
    pub entries: u64,
    /// The live entries by class and state.
    pub kinds: FlowKinds,
    /// The number of entries that fit.
    pub capacity: u64,
    /// Entries made since the counters were set up.
    pub opened: u64,
    /// Entries replaced before their age was up: flows that have ended first.
    pub evicted: u64,
}

/// Live entries of the flow table, by class and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowKinds {
    /// TCP without an answer yet.
    pub tcp_opening: u64,
    /// TCP, established or half-closed.
    pub tcp_established: u64,
    /// TCP whose last segment was a RST from the peer.
    pub tcp_suspect: u64,
    /// TCP that has ended.
    pub tcp_closed: u64,
    /// UDP without an answer yet.
    pub udp_unanswered: u64,
    /// UDP with an answer.
    pub udp_answered: u64,
    /// ICMP echo.
    pub icmp: u64,
}

impl FlowKinds {
    /// Returns each number with class and state.
    #[must_use]
    pub const fn each(&self) -> [(&'static str, &'static str, u64); 7] {
        [
            ("tcp", "opening", self.tcp_opening),
            ("tcp", "established", self.tcp_established),
            ("tcp", "suspect", self.tcp_suspect),
            ("tcp", "closed", self.tcp_closed),
            ("udp", "unanswered", self.udp_unanswered),
            ("udp", "answered", self.udp_answered),
            ("icmp", "echo", self.icmp),
        ]
    }

    /// Returns the sum of all numbers.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.each().iter().map(|(.., number)| number).sum()
    }
}

/// One limited resource of the image in force.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    /// `tuples`, `rows`, `lines`.
    pub name: String,
    /// In use.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}
