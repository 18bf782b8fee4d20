//! The basic types that the files, the policy and all later modules share: ids, places in files, modes, port
//! ranges, and the settings of packet classes.

use std::{fmt, sync::Arc};

pub use pomguard_common::Direction;
use pomguard_common::{
    control::suspension,
    flow::State,
    image::{Line, head, mode},
};
use serde::{Deserialize, Serialize};

/// The stable name of a row: `pom-4.0/15` for a matrix row, `site/ssh-ops` for a row of the site file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowId(pub String);

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The place in a file where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the file, as the caller gave the name; `pom-4.0 (built in)` for the embedded matrix. Shared: a
    /// large site has a hundred thousand places in one file.
    pub file: Arc<str>,
    /// Number of the line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The mode of a direction or a row: the treatment of packets that no row allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Outbound only: every packet may leave, rows are counted, all other packets are counted as unlisted.
    Track,
    /// A packet that would be dropped passes and is counted as such.
    Audit,
    /// A packet that no row allows is dropped.
    Enforce,
}

impl Mode {
    /// Returns the mode of a direction from the head of a compiled image.
    #[must_use]
    pub fn in_head(head: &Line, direction: Direction) -> Self {
        match (head.word(head::MODES) >> (8 * direction as u32)) as u8 {
            mode::TRACK => Self::Track,
            mode::AUDIT => Self::Audit,
            _ => Self::Enforce,
        }
    }

    /// Returns the word used in files, tables, JSON and metric labels.
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
    /// Every port number; the range of a protocol without ports.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// Returns the range of one port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Returns true if `port` lies in the range.
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

/// The settings of packet classes in `pomguard.toml`; every field has a safe default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the file")]
pub struct PacketSettings {
    /// True if VRRP heartbeats pass (default true).
    pub vrrp: bool,
    /// True if LLDP, LACP, spanning tree and EAPOL pass (default true).
    pub link_control: bool,
    /// True if IGMP and MLD pass (default true).
    pub group_membership: bool,
    /// True if DHCP and DHCPv6 leases pass (default true).
    pub dhcp: bool,
    /// True if ICMPv6 echo requests pass without a row (default true).
    pub echo_v6: bool,
    /// True if ICMP redirects pass (default false).
    pub redirects: bool,
    /// VLAN ids whose frames are judged like untagged frames. Frames with a priority tag (VID 0) always are.
    pub vlans: Vec<u16>,
    /// Rate limits of some classes.
    pub rates: Rates,
}

/// Maximum number of inbound packets per second, for each receiving processor; packets beyond the limit are
/// dropped as `rate-limited`. At least 4: the programs count in quarters of a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// ARP and IPv6 neighbour discovery (default 10,000).
    pub neighbours: u32,
    /// ICMPv6 echo requests that no row names (default 1,000).
    pub echo_v6: u32,
    /// ICMP errors about flows, except those that report the MTU of a path (default 1,000).
    pub icmp_errors: u32,
    /// ICMP errors that report the MTU of a path (default 1,000).
    pub path_mtu: u32,
}

impl Rates {
    /// The smallest rate that differs from zero in a quarter of a second.
    pub const LEAST: u32 = 4;
    /// The largest rate: more than a processor receives.
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

/// The ages of flows in `[flows]`, in seconds: a flow that was silent for longer is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowAges {
    /// TCP: this host has sent a SYN, and nothing came back.
    pub opening: u32,
    /// TCP: established or half-closed.
    pub established: u32,
    /// TCP: closed.
    pub closed: u32,
    /// UDP: the other side has answered.
    pub udp: u32,
    /// UDP: nothing came back yet.
    pub udp_unanswered: u32,
    /// ICMP echo.
    pub icmp: u32,
}

impl FlowAges {
    /// Returns the age of a state of the flow table. A fragment has no setting: reassembly has none either (RFC
    /// 8200 section 4.5).
    #[must_use]
    pub const fn age(&self, state: State) -> u32 {
        match state {
            State::Opening => self.opening,
            State::Established => self.established,
            State::Closed => self.closed,
            State::Udp => self.udp,
            State::Unanswered => self.udp_unanswered,
            State::Icmp => self.icmp,
            State::Fragment | State::Free => state.age_seconds(),
        }
    }
}

impl Default for FlowAges {
    fn default() -> Self {
        Self {
            opening: State::Opening.age_seconds(),
            established: State::Established.age_seconds(),
            closed: State::Closed.age_seconds(),
            udp: State::Udp.age_seconds(),
            udp_unanswered: State::Unanswered.age_seconds(),
            icmp: State::Icmp.age_seconds(),
        }
    }
}

/// The setting `own_addresses`: which addresses of guarded interfaces are this host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnAddresses {
    /// Only addresses that the site file gives to this host.
    #[default]
    Listed,
    /// Also addresses that the site file gives to no machine.
    Machine,
}

impl OwnAddresses {
    /// Returns the word of the setting.
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
pub enum SuspensionKind {
    /// Only failsafe rows hold. Versions with layout 4 wrote `isolate`.
    #[serde(rename = "lockdown", alias = "isolate")]
    Lockdown,
    /// Nothing is dropped, all is counted. Versions with layout 4 wrote `open`.
    #[serde(rename = "bypass", alias = "open")]
    Bypass,
}

impl SuspensionKind {
    /// Returns the kind's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lockdown => "lockdown",
            Self::Bypass => "bypass",
        }
    }

    /// Returns the kind's number in the control map.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Lockdown => suspension::LOCKDOWN,
            Self::Bypass => suspension::BYPASS,
        }
    }

    /// Returns the kind with this number; `None` if the number means no suspension.
    #[must_use]
    pub const fn of_number(number: u8) -> Option<Self> {
        match number {
            suspension::LOCKDOWN => Some(Self::Lockdown),
            suspension::BYPASS => Some(Self::Bypass),
            _ => None,
        }
    }
}
