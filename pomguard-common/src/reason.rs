//! The reasons why packets pass or are dropped.
//!
//! The list is append-only: a number is a drop reason, a counter index, a metric label, an event field and a
//! part of the documentation, permanently. A retired number stays reserved.

/// Upper bound of the numbers (exclusive); the counters have this size.
pub const REASONS: usize = 128;

/// The lowest number of a drop reason.
pub const FIRST_DROP: u8 = 32;

/// The effect of a reason on the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The packet passes.
    Pass,
    /// The packet is dropped (in audit mode it is counted as a would-be drop, and passes).
    Drop,
}

impl Verdict {
    /// Returns the verdict of a reason number: pass reasons are below 32, drop reasons are 32 and above.
    #[must_use]
    #[inline(always)]
    pub const fn of_number(reason: u8) -> Self {
        if reason < FIRST_DROP { Self::Pass } else { Self::Drop }
    }

    /// Returns true if the packet passes.
    #[must_use]
    #[inline(always)]
    pub const fn is_pass(self) -> bool {
        matches!(self, Self::Pass)
    }

    /// Returns the word used in tables, JSON and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($($verdict:ident { $($number:literal $variant:ident $name:literal $help:literal;)+ })+) => {
        /// One named reason. `as u8` gives its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $help] $variant = $number,)+)+
        }

        impl Reason {
            /// Every reason, in numerical order.
            pub const ALL: &[Self] = &[$($(Self::$variant,)+)+];

            /// Returns the name used in tables, JSON, metric labels and documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$variant => $name,)+)+ }
            }

            /// Returns a description of one sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $($(Self::$variant => $help,)+)+ }
            }

            /// Returns the reason with this number, or `None` if there is none.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($($number => Some(Self::$variant),)+)+ _ => None }
            }

            /// Returns the verdict of the reason.
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $($(Self::$variant => Verdict::$verdict,)+)+ }
            }
        }
    };
}

reasons! {
    Pass {
        1 Row "row" "A row of the matrix or of the site file allows the packet.";
        2 Failsafe "failsafe" "A failsafe row of the generation in force allows the packet. The row holds in every mode.";
        3 OwnFlow "own-flow" "The packet belongs to a flow that this host opened.";
        4 PeerFlow "peer-flow" "This host's side of a connection that an inbound row allows.";
        5 Untracked "leaves-unlisted" "No outbound row lists the destination. The outbound mode `track` lets the packet leave.";
        6 Arp "arp" "Address resolution: without it no neighbour is reachable.";
        7 Neighbour "neighbour-discovery" "IPv6 neighbour and router discovery with hop limit 255.";
        8 Dhcp "dhcp" "Address lease: DHCP and DHCPv6 between this host and a server.";
        9 IcmpRelated "icmp-related" "An ICMP error that quotes a live connection, such as a path MTU message.";
        10 Multicast "group-membership" "IGMP or MLD: switches forward multicast only to members.";
        11 LinkControl "link-control" "LLDP, LACP, spanning tree or EAPOL: protocols of the link itself.";
        12 Vrrp "vrrp" "Heartbeat of a redundant gateway or server pair.";
        13 Fragment "fragment" "The fragment follows a first fragment that passed.";
        14 EchoV6 "echo-v6" "ICMPv6 echo request (RFC 4890 4.4.1 asks not to drop it).";
        15 IcmpControl "icmp-control" "ICMPv6 control message that a working link needs (RFC 4890 4.4.1).";
        16 Exception "exception" "A timed exception allows the packet, in every generation, until the exception ends.";
        17 Grace "grace" "A TCP packet of an unknown flow during the grace period after the first start.";
        18 OwnMulticast "own-multicast" "A multicast packet of this host that the kernel returns to group members on this host (generic mode).";
    }
    Drop {
        32 NoPolicy "no-policy" "No policy is in force: everything but failsafe rows is dropped until a policy is.";
        33 Truncated "truncated" "The packet ends before a header that the packet announces.";
        34 VlanLimit "vlan-limit" "The frame carries more VLAN tags than pomguard reads.";
        35 VlanUnknown "vlan-unknown" "The frame is tagged for a VLAN that `vlans` does not list.";
        36 EtherType "ethertype" "The frame carries neither IP nor a protocol that a link needs.";
        37 Malformed "malformed" "A length, version or offset contradicts itself.";
        38 IpOptions "ip-options" "The packet has IPv4 options, which pomguard refuses because they can bypass filters (RFC 7126).";
        39 ExtensionHeader "extension-header" "An IPv6 extension header that is refused or out of order.";
        40 ExtensionLimit "extension-limit" "The packet has more IPv6 extension headers than pomguard reads.";
        41 Fragmented "fragment-refused" "The fragment is too small, misaligned, overlapping or too long: no correct sender makes such fragments.";
        42 FragmentUnknown "fragment-unknown" "The first fragment of the datagram was not seen, or did not pass.";
        43 TcpFlags "tcp-flags" "No real flow has this combination of TCP flags.";
        44 PortZero "port-zero" "Port 0 is reserved.";
        45 Protocol "protocol" "No row names the protocol. The peer is a stranger.";
        46 ProtocolKnown "protocol-known" "No row names the protocol. The site file knows the peer.";
        47 Port "port" "No row of this host names the port. The peer is a stranger.";
        48 PortKnown "port-known" "No row of this host names the port. The site file knows the peer: probably a mistake in the files.";
        49 Source "source" "Rows name the port, but not for this peer. The peer is a stranger.";
        50 SourceKnown "source-known" "Rows name the port, but not for this peer. The site file knows the peer: probably a mistake in the files.";
        51 ClientPort "client-port" "A row allows this peer and this port, but not from this source port.";
        52 NoFlow "no-flow" "The packet belongs to no flow that this host opened. The peer is a stranger.";
        53 NoFlowKnown "no-flow-known" "The packet belongs to no flow that this host opened. The site file knows the peer.";
        54 SpoofedSource "spoofed-source" "No genuine packet has this source address: an address of this host, loopback, multicast or reserved.";
        55 NotLocal "not-local" "The destination is not an address of this host.";
        56 Broadcast "broadcast" "A broadcast or multicast packet that no row allows.";
        57 IcmpType "icmp-type" "An ICMP message that this host neither needs nor asked for.";
        58 IcmpUnrelated "icmp-unrelated" "An ICMP error about a flow that does not exist.";
        59 SourceNotOurs "source-not-ours" "The packet leaves with a source address that this host does not have.";
        60 Destination "destination" "No outbound row lists this destination and port.";
        61 UnsolicitedReply "unsolicited-reply" "The packet looks like a reply, but no inbound row and no flow belongs to it.";
        62 FlowTableFull "flow-table-full" "The flow table has no room for another flow.";
        63 RateLimited "rate-limited" "More packets of this class arrive than the rate limit in `[packets.rates]` allows.";
        64 HopLimit "hop-limit" "A neighbour discovery packet that crossed a router: the hop limit is below 255.";
        65 Internal "internal" "A look-up failed that cannot fail, or a program is missing. This counter must stay at zero.";
        66 Isolated "isolated" "A lockdown is in force: only failsafe rows hold.";
        67 MappedAddress "mapped-address" "An IPv4-mapped IPv6 address on the wire (RFC 6092 REC-3).";
        68 NotLocalKnown "not-local-known" "The site file knows the peer, and the destination is an address of this machine that the site file does not list.";
    }
}

impl Reason {
    /// Returns the index into the counters.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns true for a drop of a packet whose peer the site file knows: probably a mistake in the policy,
    /// which can cost telephone calls.
    #[must_use]
    pub const fn concerns_known_system(self) -> bool {
        matches!(
            self,
            Self::ProtocolKnown
                | Self::PortKnown
                | Self::SourceKnown
                | Self::NoFlowKnown
                | Self::ClientPort
                | Self::NotLocalKnown
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_name_below_the_bound() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!(a.index() < REASONS, "{a:?} is counted");
            assert_eq!(Reason::from_number(*a as u8), Some(*a));
            assert_eq!(Verdict::of_number(*a as u8), a.verdict(), "{a:?} is numbered as what it is");
            for b in &Reason::ALL[i + 1..] {
                assert!((*a as u8) < (*b as u8), "{a:?} before {b:?}: the list is in number order");
                assert_ne!(a.name(), b.name());
            }
        }
    }

    #[test]
    fn numbers_and_names_that_were_published_never_change() {
        let published: &[(u8, &str)] = &[
            (1, "row"),
            (2, "failsafe"),
            (3, "own-flow"),
            (4, "peer-flow"),
            (5, "leaves-unlisted"),
            (6, "arp"),
            (7, "neighbour-discovery"),
            (8, "dhcp"),
            (9, "icmp-related"),
            (10, "group-membership"),
            (11, "link-control"),
            (12, "vrrp"),
            (13, "fragment"),
            (14, "echo-v6"),
            (15, "icmp-control"),
            (16, "exception"),
            (17, "grace"),
            (18, "own-multicast"),
            (32, "no-policy"),
            (33, "truncated"),
            (34, "vlan-limit"),
            (35, "vlan-unknown"),
            (36, "ethertype"),
            (37, "malformed"),
            (38, "ip-options"),
            (39, "extension-header"),
            (40, "extension-limit"),
            (41, "fragment-refused"),
            (42, "fragment-unknown"),
            (43, "tcp-flags"),
            (44, "port-zero"),
            (45, "protocol"),
            (46, "protocol-known"),
            (47, "port"),
            (48, "port-known"),
            (49, "source"),
            (50, "source-known"),
            (51, "client-port"),
            (52, "no-flow"),
            (53, "no-flow-known"),
            (54, "spoofed-source"),
            (55, "not-local"),
            (56, "broadcast"),
            (57, "icmp-type"),
            (58, "icmp-unrelated"),
            (59, "source-not-ours"),
            (60, "destination"),
            (61, "unsolicited-reply"),
            (62, "flow-table-full"),
            (63, "rate-limited"),
            (64, "hop-limit"),
            (65, "internal"),
            (66, "isolated"),
            (67, "mapped-address"),
            (68, "not-local-known"),
        ];
        for (number, name) in published {
            assert_eq!(Reason::from_number(*number).map(Reason::name), Some(*name));
        }
        assert_eq!(published.len(), Reason::ALL.len(), "a new reason is published here too");
    }
}
