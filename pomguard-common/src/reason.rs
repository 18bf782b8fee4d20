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
        1 Row "row" "Allowed by a row of the matrix or of the site.";
        2 Failsafe "failsafe" "Allowed by a failsafe row, which holds in every mode and generation.";
        3 OwnFlow "own-flow" "Belongs to a flow that this host opened.";
        4 PeerFlow "peer-flow" "This host's side of a connection that an inbound row allows.";
        5 Untracked "leaves-unlisted" "Leaves to a destination that no outbound row lists; outbound mode `track` lets it.";
        6 Arp "arp" "Address resolution: without it no neighbour is reachable.";
        7 Neighbour "neighbour-discovery" "IPv6 neighbour and router discovery with hop limit 255.";
        8 Dhcp "dhcp" "Address lease: DHCP and DHCPv6 between this host and a server.";
        9 IcmpRelated "icmp-related" "ICMP error that quotes a live connection, path-MTU messages among them.";
        10 Multicast "group-membership" "IGMP or MLD: switches forward multicast only to members.";
        11 LinkControl "link-control" "LLDP, LACP, spanning tree or EAPOL: the link's own protocols.";
        12 Vrrp "vrrp" "Heartbeat of a redundant gateway or server pair.";
        13 Fragment "fragment" "Follows a first fragment that was allowed.";
        14 EchoV6 "echo-v6" "ICMPv6 echo request (RFC 4890 4.4.1 asks not to drop it).";
        15 IcmpControl "icmp-control" "ICMPv6 control message that a working link needs (RFC 4890 4.4.1).";
        16 Exception "exception" "Allowed by a timed exception, in every generation, until it is over.";
        17 Grace "grace" "In the middle of a flow that nothing is known of, while the grace period of a first start holds.";
        18 OwnMulticast "own-multicast" "This host's own multicast, which the kernel hands back to the group's members on this host (generic mode).";
    }
    Drop {
        32 NoPolicy "no-policy" "No compiled policy is in force: closed until there is one.";
        33 Truncated "truncated" "Ends before a header that it announces.";
        34 VlanLimit "vlan-limit" "Carries more VLAN tags than are looked into.";
        35 VlanUnknown "vlan-unknown" "Tagged for a VLAN that this host does not take part in.";
        36 EtherType "ethertype" "Neither IP nor any protocol that a link needs.";
        37 Malformed "malformed" "A length, version or offset contradicts itself.";
        38 IpOptions "ip-options" "IPv4 options: not used here, and a known way around filters (RFC 7126).";
        39 ExtensionHeader "extension-header" "An IPv6 extension header that is refused or out of order.";
        40 ExtensionLimit "extension-limit" "More IPv6 extension headers than are walked.";
        41 Fragmented "fragment-refused" "A fragment that no honest sender makes: too small, misaligned, overlapping, too long.";
        42 FragmentUnknown "fragment-unknown" "A fragment whose first part was not seen, or not allowed.";
        43 TcpFlags "tcp-flags" "TCP flags that no flow produces.";
        44 PortZero "port-zero" "Port 0 is reserved.";
        45 Protocol "protocol" "A protocol that no row names, from a stranger.";
        46 ProtocolKnown "protocol-known" "A protocol that no row names, from an address that the site file knows.";
        47 Port "port" "No row of this host names the port, from a stranger.";
        48 PortKnown "port-known" "No row of this host names the port, from an address that the site file knows.";
        49 Source "source" "The port is served, but not to this address: a stranger.";
        50 SourceKnown "source-known" "The port is served, but not to this address, which the site file knows: probably our mistake.";
        51 ClientPort "client-port" "The row allows this peer and port, but not from that source port.";
        52 NoFlow "no-flow" "Answers a flow that this host did not open, from a stranger.";
        53 NoFlowKnown "no-flow-known" "Answers a flow that this host did not open, from an address that the site file knows.";
        54 SpoofedSource "spoofed-source" "A source address that cannot be: this host's own, loopback, multicast, reserved.";
        55 NotLocal "not-local" "For an address that is not one of this host's.";
        56 Broadcast "broadcast" "Broadcast or multicast that no row asks for.";
        57 IcmpType "icmp-type" "An ICMP message that is not needed, or not asked for.";
        58 IcmpUnrelated "icmp-unrelated" "ICMP error about a flow that does not exist.";
        59 SourceNotOurs "source-not-ours" "Leaves with a source address that is not this host's.";
        60 Destination "destination" "No outbound row lists this destination and port.";
        61 UnsolicitedReply "unsolicited-reply" "Would leave as an answer, but no inbound row and no flow asks for it.";
        62 FlowTableFull "flow-table-full" "No room to remember another flow.";
        63 RateLimited "rate-limited" "More of these per second than any honest use needs.";
        64 HopLimit "hop-limit" "Neighbour discovery that came through a router: hop limit below 255.";
        65 Internal "internal" "A map look-up failed that cannot fail, or the program for other than plain packets is not in its place. Should stay at zero.";
        66 Isolated "isolated" "Lockdown: only failsafe rows hold.";
        67 MappedAddress "mapped-address" "An IPv4-mapped IPv6 address on the wire (RFC 6092 REC-3).";
        68 NotLocalKnown "not-local-known" "From an address that the site file knows, to an address of this machine that the site file does not give this host.";
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
