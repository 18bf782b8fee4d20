//! The parsed datagram.

use crate::net::{Address, Family};

/// What kind of datagram it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// TCP or UDP with its ports, whole or the first fragment.
    Ports = 0,
    /// ICMP or ICMPv6.
    Icmp = 1,
    /// Any other protocol.
    Other = 2,
    /// A fragment after the first: carries no ports.
    Follower = 3,
}

/// A fragment's place in its datagram; all zero for a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification (16 bits in IPv4, 32 in IPv6).
    pub id: u32,
    /// Offset in bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
}

impl Fragment {
    /// Not a fragment.
    pub const WHOLE: Self = Self { id: 0, offset: 0, more: false };

    /// Whether the datagram comes in more than one piece.
    #[must_use]
    #[inline(always)]
    pub const fn is_part(&self) -> bool {
        self.more || self.offset != 0
    }
}

/// What the decision looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Datagram {
    /// IP version.
    pub family: Family,
    /// What it is.
    pub kind: Kind,
    /// The upper protocol.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TCP flags; 0 for others.
    pub tcp_flags: u8,
    /// ICMP type; 0 for others.
    pub icmp_type: u8,
    /// ICMP code; 0 for others.
    pub icmp_code: u8,
    /// The frame went to a broadcast or multicast MAC address.
    pub group_mac: bool,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port; for ICMP echo the identifier.
    pub source_port: u16,
    /// Destination port; for ICMP echo the identifier.
    pub destination_port: u16,
    /// Place in a fragmented datagram.
    pub fragment: Fragment,
    /// Where the upper layer begins, from the start of the frame.
    pub upper: u32,
    /// Where the IP packet ends, from the start of the frame.
    pub end: u32,
}
