//! The nouns that the files, the policy and everything after them share: ids, places in files, modes, port
//! ranges, and the settings of packet classes.

use std::{fmt, sync::Arc};

pub use pomguard_common::Direction;
use pomguard_common::{
    control::panic,
    image::{Line, head, mode},
};
use serde::{Deserialize, Serialize};

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

/// The setting `own_addresses`: which addresses of guarded interfaces are this host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnAddresses {
    /// Those that the site file gives to this host.
    #[default]
    Listed,
    /// Also those that the site file gives to nobody.
    Machine,
}

impl OwnAddresses {
    /// The word of the setting.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Machine => "machine",
        }
    }
}

/// The two ways to suspend the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Panic {
    /// Only failsafe rows hold. Versions with layout 4 wrote `isolate`.
    #[serde(rename = "lockdown", alias = "isolate")]
    Isolate,
    /// Nothing is dropped, all is counted. Versions with layout 4 wrote `open`.
    #[serde(rename = "bypass", alias = "open")]
    Open,
}

impl Panic {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isolate => "lockdown",
            Self::Open => "bypass",
        }
    }

    /// Its number in the control map.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Isolate => panic::ISOLATE,
            Self::Open => panic::OPEN,
        }
    }

    /// The kind with this number; none for no panic.
    #[must_use]
    pub const fn of_number(number: u8) -> Option<Self> {
        match number {
            panic::ISOLATE => Some(Self::Isolate),
            panic::OPEN => Some(Self::Open),
            _ => None,
        }
    }
}
