//! Protocols that a link needs in order to work. They pass whatever the rows say.

use super::address::{group, link_local, unspecified};
use crate::{
    Direction,
    image::{Family, Image, Lines, switch},
    parse::{Datagram, Kind},
    protocol,
    reason::Reason,
};

/// Returns the reason for a protocol that the link needs, which is decided without rows; returns `None` for
/// any other datagram. `ours` is true if a DHCP lease may come in to this destination.
#[inline(always)]
pub(super) fn link_service<L: Lines + ?Sized>(
    hook: Direction,
    datagram: &Datagram,
    image: &Image<'_, L>,
    ours: bool,
) -> Option<Reason> {
    if datagram.fragment.is_part() {
        return None;
    }
    match (datagram.protocol, datagram.kind) {
        (protocol::UDP, Kind::Ports) => {
            let (server, client) = match datagram.family {
                Family::V4 => (67, 68),
                Family::V6 => (547, 546),
            };
            let (from, to) = match hook {
                Direction::Inbound => (server, client),
                Direction::Outbound => (client, server),
            };
            let lease = datagram.source_port == from && datagram.destination_port == to;
            (lease && proper_lease(hook, datagram, ours) && image.switch(switch::DHCP))
                .then_some(Reason::Dhcp)
        }
        (protocol::ICMPV6, Kind::Icmp) => control_v6(datagram, image),
        (protocol::IGMP, Kind::Other) if matches!(datagram.family, Family::V4) => {
            // RFC 3376 section 4: IGMP is sent with TTL 1, to a group.
            let proper = datagram.hop_limit == 1 && group(Family::V4, &datagram.destination);
            (proper && image.switch(switch::GROUP_MEMBERSHIP)).then_some(Reason::Multicast)
        }
        (protocol::VRRP, Kind::Other) => {
            // RFC 9568 sections 5.1.1 and 5.1.2: to the VRRP group, with TTL 255.
            let to_group = match datagram.family {
                Family::V4 => datagram.destination[0] == 0xe000_0012,
                Family::V6 => datagram.destination == [0xff02_0000, 0, 0, 0x12],
            };
            (to_group && datagram.hop_limit == 255 && image.switch(switch::VRRP)).then_some(Reason::Vrrp)
        }
        _ => None,
    }
}

/// Returns true if a DHCP message comes from where a server is and goes to this host. The caller has already
/// checked that outbound messages come from this host. DHCPv6 servers and relays answer from link-local
/// addresses (RFC 8415 sections 18.3.10 and 19.2).
#[inline(always)]
fn proper_lease(hook: Direction, datagram: &Datagram, ours: bool) -> bool {
    let Datagram { family, source, destination, .. } = datagram;
    match (hook, family) {
        (Direction::Outbound, _) => true,
        (Direction::Inbound, Family::V4) => destination[0] == u32::MAX || ours,
        (Direction::Inbound, Family::V6) => link_local(source) && (link_local(destination) || ours),
    }
}

/// Judges ICMPv6 messages of the link itself (RFC 4890 section 4.4.1).
#[inline(always)]
fn control_v6<L: Lines + ?Sized>(datagram: &Datagram, image: &Image<'_, L>) -> Option<Reason> {
    let near = datagram.hop_limit == 255;
    let from_router = link_local(&datagram.source);
    // RFC 4861 section 7.1 and RFC 3122 section 5: the code is 0; only solicitations come from the
    // unspecified address.
    let discovery = matches!(datagram.icmp_type, 133..=137 | 141 | 142 | 148 | 149);
    let solicits = matches!(datagram.icmp_type, 133 | 135);
    if discovery && datagram.icmp_code != 0 {
        return Some(Reason::IcmpType);
    }
    if discovery && !solicits && unspecified(&datagram.source) {
        return Some(Reason::SpoofedSource);
    }
    match datagram.icmp_type {
        // Router solicitation, neighbour solicitation and advertisement, inverse neighbour discovery.
        133 | 135 | 136 | 141 | 142 => Some(if near { Reason::Neighbour } else { Reason::HopLimit }),
        // Router advertisement: from a link-local address only (RFC 4861 section 6.1.2).
        134 => Some(match (near, from_router) {
            (false, _) => Reason::HopLimit,
            (true, false) => Reason::SpoofedSource,
            (true, true) => Reason::Neighbour,
        }),
        137 => Some(match (near && from_router, image.switch(switch::REDIRECTS)) {
            (true, true) => Reason::Neighbour,
            _ => Reason::IcmpType,
        }),
        // MLD (RFC 2710, RFC 3810): hop limit 1, from a link-local address or, while duplicate address
        // detection checks that address, from the unspecified one.
        130 | 131 | 132 | 143 => {
            let proper = datagram.hop_limit == 1 && (from_router || unspecified(&datagram.source));
            Some(if proper && image.switch(switch::GROUP_MEMBERSHIP) {
                Reason::Multicast
            } else {
                Reason::IcmpType
            })
        }
        // Secure neighbour discovery (RFC 3971) and multicast router discovery (RFC 4286).
        148 | 149 if near => Some(Reason::IcmpControl),
        151..=153 if datagram.hop_limit == 1 => Some(Reason::IcmpControl),
        _ => None,
    }
}
