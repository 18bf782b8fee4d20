//! The parsed datagram.

use crate::net::{Address, Family};

/// The kind of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// TCP or UDP with its ports, whole or the first fragment.
    Ports = 0,
    /// ICMP or ICMPv6.
    Icmp = 1,
    /// Any other protocol.
    Other = 2,
    /// A fragment after the first, which has no ports.
    Follower = 3,
}

/// The place of a fragment in its datagram; all zero for a whole datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification (16 bits in IPv4, 32 in IPv6).
    pub id: u32,
    /// Offset in bytes.
    pub offset: u16,
    /// True if more fragments follow.
    pub more: bool,
}

impl Fragment {
    /// The value for a datagram that is not fragmented.
    pub const WHOLE: Self = Self { id: 0, offset: 0, more: false };

    /// Returns true if the datagram comes in more than one fragment.
    #[must_use]
    #[inline(always)]
    pub const fn is_part(&self) -> bool {
        self.more || self.offset != 0
    }
}

/// The fields of a packet that the decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Datagram {
    /// IP version.
    pub family: Family,
    /// The kind of the datagram.
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
    /// True if the frame was sent to a broadcast or multicast MAC address.
    pub group_mac: bool,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port; the identifier for ICMP echo.
    pub source_port: u16,
    /// Destination port; the identifier for ICMP echo.
    pub destination_port: u16,
    /// Place in a fragmented datagram.
    pub fragment: Fragment,
    /// Offset of the upper layer from the start of the frame, in bytes.
    pub upper: u32,
    /// Offset of the end of the IP packet from the start of the frame, in bytes.
    pub end: u32,
}
