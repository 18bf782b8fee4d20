//! One reading of the pinned maps: everything that `stats`, `status`, `/metrics` and `top` show.
//!
//! Plain data. [`reading`](super::reading) fills it from the maps; printers and the metrics page only read it.

use pomguard_common::{Direction, reason::Reason};
use serde::Serialize;

pub use crate::kernel::attached::AttachInfo;
use crate::model::{Mode, RowId};

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
    /// Mode of the inbound direction, as the kernel's map says.
    pub inbound: Mode,
    /// Mode of the outbound direction, as the kernel's map says.
    pub outbound: Mode,
    /// Seconds since 1970 when the counters were first set up.
    pub counting_since: u64,
    /// Seconds since 1970 when the generation in force was installed.
    pub installed_at: u64,
    /// Per interface.
    pub attach: Vec<AttachInfo>,
    /// Per (row, direction): those in force, then those that once were.
    pub rows: Vec<RowStats>,
    /// Per reason, direction and outcome; reasons that never occurred are left out.
    pub reasons: Vec<ReasonStats>,
    /// Per direction.
    pub totals: Vec<Totals>,
    /// The flow table.
    pub flows: FlowStats,
    /// The image: what it uses of what there is.
    pub capacity: Vec<Capacity>,
    /// Addresses on which the site file and the machine differ, a sentence each; empty if nobody asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

impl Snapshot {
    /// Packets of `direction` that were dropped (or, in audit, would have been) although the site
    /// file knows their peer.
    #[must_use]
    pub fn known_system_drops(&self, direction: Direction, outcome: Outcome) -> u64 {
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
    /// Systems that are opened to.
    pub destination: String,
    /// Ports and protocol as enforced.
    pub ports: String,
    /// In force now (a row that left the policy keeps its counters).
    pub live: bool,
    /// A failsafe row.
    pub failsafe: bool,
    /// Mode of the row.
    pub mode: Mode,
    /// Packets allowed by it.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Flows opened.
    pub connections: u64,
    /// Seconds since 1970 of the first hit; none before it.
    pub first_hit: Option<u64>,
    /// Seconds since 1970 of the last hit; none before the first.
    pub last_hit: Option<u64>,
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Passed under a pass reason.
    Pass,
    /// Dropped.
    Drop,
    /// Would have been dropped; passed, because the direction is in audit.
    Audit,
}

impl Outcome {
    /// The word used in tables, JSON and metric labels.
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
    /// What became of the packets.
    pub verdict: Outcome,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl ReasonStats {
    /// The reason of that name; none if only a newer kernel side knows it.
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
    /// Packets that reached the hook, counted on their own, before judgement.
    pub seen: u64,
    /// Bytes of those.
    pub seen_bytes: u64,
    /// Passed, audited ones included.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
    /// Of the passed: would have been dropped in enforce.
    pub audited: u64,
}

impl Totals {
    /// Seen minus passed minus dropped: zero, but for packets that were in flight while the
    /// counters of the CPUs were read one after the other.
    #[must_use]
    pub fn accounting_mismatch(&self) -> i128 {
        i128::from(self.seen) - i128::from(self.passed) - i128::from(self.dropped)
    }
}

/// The flow table's fill.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FlowStats {
    /// Live entries.
    pub entries: u64,
    /// The same by what they are.
    pub kinds: FlowKinds,
    /// Room.
    pub capacity: u64,
    /// Entered since the counters were set up.
    pub opened: u64,
    /// Pushed out before their age was up: first those that have ended.
    pub evicted: u64,
}

/// Live entries of the flow table, by class and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowKinds {
    /// TCP that nobody has answered yet.
    pub tcp_opening: u64,
    /// TCP, established or half-closed.
    pub tcp_established: u64,
    /// TCP whose last segment was a RST of the peer's.
    pub tcp_suspect: u64,
    /// TCP that has ended.
    pub tcp_closed: u64,
    /// UDP that nobody has answered yet.
    pub udp_unanswered: u64,
    /// UDP that was answered.
    pub udp_answered: u64,
    /// ICMP echo.
    pub icmp: u64,
}

impl FlowKinds {
    /// Each number under its class and its state.
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

    /// All of them.
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
