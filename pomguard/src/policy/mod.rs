//! What this host is to enforce: names resolved to addresses, rows chosen, conflicts found.
//!
//! Pure: no kernel, no root. `resolve` makes a [`Policy`] out of the input
//! files; `compile` turns it into the bytes of the maps; `oracle` answers the same questions
//! slowly and obviously, and shares no code with the data path.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
pub use pomguard_common::Direction;
use pomguard_common::image::{Line, head, mode};
use serde::{Deserialize, Serialize};

pub mod area;
pub mod collision;
pub mod conflict;
pub mod diff;
pub mod explain;
pub mod impact;
pub mod nearest;
pub mod oracle;
mod resolve;

pub use resolve::{Effective, addresses_of, effective, resolve};

/// A row's stable name: `pom-4.0/15` for a matrix row, `site/ssh-ops` for the site's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowId(pub String);

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The file, as it was named; `pom-4.0 (built in)` for the embedded matrix.
    /// Shared: a large site has a hundred thousand places in one file.
    pub file: Arc<str>,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How a direction or a row treats what it would drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Outbound only: everything may leave, rows are counted, the rest is counted as unlisted.
    Track,
    /// A would-be drop is counted as such, and passes.
    Audit,
    /// A drop is a drop.
    Enforce,
}

impl Mode {
    /// The mode of a direction, as the head of a compiled image has it.
    #[must_use]
    pub fn in_head(head: &Line, direction: Direction) -> Self {
        match (head.word(head::MODES) >> (8 * direction as u32)) as u8 {
            mode::TRACK => Self::Track,
            mode::AUDIT => Self::Audit,
            _ => Self::Enforce,
        }
    }

    /// The word used in files, tables, JSON and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl PortRange {
    /// Every number: what a protocol without ports has.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether `port` lies in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// An IP protocol together with what may be chosen inside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination ports, both ends included; [`PortRange::ANY`] for protocols without ports.
    pub ports: PortRange,
}

/// One peer of a row: an address range and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// The prefix; a range in the site file became several.
    pub prefix: IpNet,
    /// The system, host or literal it was written as: `Agent Desktop`, `pom2`, `10.9.0.0/24`. Shared with the
    /// row's names: a large site has a hundred thousand.
    pub name: Arc<str>,
    /// Where the address was written.
    pub origin: Origin,
}

/// A row as it applies to this host in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Stable id.
    pub id: RowId,
    /// Inbound: this host runs the destination. Outbound: it runs the source.
    pub direction: Direction,
    /// Systems (or hosts, or literals) on the side that opens the connection.
    pub source: Vec<Arc<str>>,
    /// Those on the side that is opened to.
    pub destination: Vec<Arc<str>>,
    /// Destination ports as printed or written, for people.
    pub printed: String,
    /// Transport and application protocol as printed, for people: `TLS`, `HTTP/HTTPS`.
    pub protocol: String,
    /// The other side's addresses. Empty: the row grants nothing (and is reported).
    pub peers: Vec<Peer>,
    /// Ports the opening side may use, both ends included.
    pub client_ports: PortRange,
    /// What may be opened to.
    pub services: Vec<Service>,
    /// Enforce, or audit: who else opens to its services is counted as a would-be drop, and passes.
    pub mode: Mode,
    /// Holds in every mode and generation, checked before all else.
    pub failsafe: bool,
    /// What it is for, one sentence.
    pub purpose: String,
    /// Where it was written.
    pub origin: Origin,
}

/// An address that the site file names, whether or not a row uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Known {
    /// The prefix.
    pub prefix: IpNet,
    /// The host's name, or the systems of the peer, joined by a comma.
    pub name: Arc<str>,
}

/// The matrix a policy was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixName {
    /// `pom-4.0`.
    pub id: String,
    /// As the document calls itself.
    pub title: String,
}

/// Everything this host enforces. Sorted and comparable; two equal policies compile to equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// This host's name in the site file.
    pub host: String,
    /// The matrix.
    pub matrix: MatrixName,
    /// This host's own addresses, as the site file lists them.
    pub local: Vec<IpAddr>,
    /// What inbound packets that no row allows come to: [`Mode::Audit`] or [`Mode::Enforce`].
    pub inbound: Mode,
    /// What outbound packets that no row allows come to.
    pub outbound: Mode,
    /// Rows that apply here: failsafe first, then in print order, then the site's own in file order.
    /// Where several allow the same tuple, the first one is counted.
    pub rows: Vec<Row>,
    /// Every address of the site except this host's own.
    pub known: Vec<Known>,
    /// Dispositions and limits of packet classes, as `pomguard.toml` sets them.
    pub packets: PacketSettings,
}

/// What `pomguard.toml` may change about packet classes; every field has a safe default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the file")]
pub struct PacketSettings {
    /// Let VRRP heartbeats pass (default true).
    pub vrrp: bool,
    /// Let LLDP, LACP, spanning tree and EAPOL pass (default true).
    pub link_control: bool,
    /// Let IGMP and MLD pass (default true).
    pub group_membership: bool,
    /// Let DHCP and DHCPv6 leases pass (default true).
    pub dhcp: bool,
    /// Let ICMPv6 echo requests pass without a row (default true).
    pub echo_v6: bool,
    /// Let ICMP redirects pass (default false).
    pub redirects: bool,
    /// VLAN ids whose frames are judged like untagged ones. Priority tags (VID 0) always are.
    pub vlans: Vec<u16>,
    /// How often some classes may come in.
    pub rates: Rates,
}

/// Packets a second that may come in, for each processor that receives; what is more is dropped as
/// `rate-limited`. At least 4: the programs count by the quarter of a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// ARP and IPv6 neighbour discovery (default 10,000).
    pub neighbours: u32,
    /// ICMPv6 echo requests that no row names (default 1,000).
    pub echo_v6: u32,
    /// ICMP errors about flows, but for those that tell a path's MTU (default 1,000).
    pub icmp_errors: u32,
    /// ICMP errors that tell a path's MTU (default 1,000).
    pub path_mtu: u32,
}

impl Rates {
    /// The least that can be told from none.
    pub const LEAST: u32 = 4;
    /// More than a processor receives.
    pub const MOST: u32 = 100_000_000;
}

impl Default for Rates {
    fn default() -> Self {
        Self { neighbours: 10_000, echo_v6: 1_000, icmp_errors: 1_000, path_mtu: 1_000 }
    }
}

impl Default for PacketSettings {
    fn default() -> Self {
        Self {
            vrrp: true,
            link_control: true,
            group_membership: true,
            dhcp: true,
            echo_v6: true,
            redirects: false,
            vlans: Vec::new(),
            rates: Rates::default(),
        }
    }
}

impl Policy {
    /// What packets of a direction come to that no row allows.
    #[must_use]
    pub const fn mode(&self, direction: Direction) -> Mode {
        match direction {
            Direction::Inbound => self.inbound,
            Direction::Outbound => self.outbound,
        }
    }

    /// Rows of one direction, in counting order.
    pub fn rows_in(&self, direction: Direction) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.direction == direction)
    }

    /// Tuples that the rows come to, per row: prefixes times port ranges.
    pub fn tuples(&self) -> BTreeMap<(RowId, Direction), usize> {
        self.rows
            .iter()
            .map(|row| ((row.id.clone(), row.direction), row.peers.len() * row.services.len()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
