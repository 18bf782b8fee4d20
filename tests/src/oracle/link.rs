//! Services that a link needs, whatever the rows say.

use std::net::IpAddr;

use pomguard::policy::{Direction, Policy};
use pomguard_common::reason::Reason;

use super::{
    address::{is_group, is_link_local, is_newborn, may_send},
    own::{Whose, is_own, whose},
    read::{Body, Seen},
};

/// Returns the reason of a service of the link, or `None` if the packet does not belong to one.
pub(super) fn service(policy: &Policy, direction: Direction, seen: &Seen) -> Option<Reason> {
    let packets = &policy.packets;
    if seen.piece.is_some() {
        return None;
    }
    match (&seen.body, seen.protocol) {
        (Body::Udp { from, to }, _) => {
            let lease = match (direction, seen.destination.is_ipv4()) {
                (Direction::Inbound, true) => (*from, *to) == (67, 68),
                (Direction::Outbound, true) => (*from, *to) == (68, 67),
                (Direction::Inbound, false) => (*from, *to) == (547, 546),
                (Direction::Outbound, false) => (*from, *to) == (546, 547),
            };
            let ours = is_own(policy, seen.destination)
                || whose(policy, seen.destination) == Whose::Nobodys
                    && may_send(seen.destination)
                    && !seen.to_group_station;
            let proper = match seen.destination {
                _ if direction == Direction::Outbound => true,
                IpAddr::V4(destination) => destination.is_broadcast() || ours,
                IpAddr::V6(_) => is_link_local(seen.source) && (is_link_local(seen.destination) || ours),
            };
            (packets.dhcp && lease && proper).then_some(Reason::Dhcp)
        }
        (Body::Icmp { kind, code, .. }, 58) => control(policy, seen, *kind, *code),
        (Body::Other, 2) => {
            let proper = seen.destination.is_ipv4() && is_group(seen.destination) && seen.hops == 1;
            (packets.group_membership && proper).then_some(Reason::Multicast)
        }
        (Body::Other, 112) => {
            let group = ["224.0.0.18", "ff02::12"].contains(&seen.destination.to_string().as_str());
            (packets.vrrp && group && seen.hops == 255).then_some(Reason::Vrrp)
        }
        _ => None,
    }
}

/// Returns the reason of an ICMPv6 message of the link (RFC 4890 section 4.4.1).
fn control(policy: &Policy, seen: &Seen, kind: u8, code: u8) -> Option<Reason> {
    let (link_local, newborn) = (is_link_local(seen.source), is_newborn(seen.source));
    let neighbours = [133, 134, 135, 136, 137, 141, 142, 148, 149].contains(&kind);
    if neighbours && code > 0 {
        return Some(Reason::IcmpType);
    }
    if neighbours && newborn && kind != 133 && kind != 135 {
        return Some(Reason::SpoofedSource);
    }
    match kind {
        133..=136 | 141 | 142 if seen.hops < 255 => Some(Reason::HopLimit),
        134 if !link_local => Some(Reason::SpoofedSource),
        133..=136 | 141 | 142 => Some(Reason::Neighbour),
        137 if policy.packets.redirects && link_local && seen.hops == 255 => Some(Reason::Neighbour),
        137 => Some(Reason::IcmpType),
        130 | 131 | 132 | 143 => {
            let proper = seen.hops == 1 && (link_local || newborn);
            Some(if proper && policy.packets.group_membership { Reason::Multicast } else { Reason::IcmpType })
        }
        148 | 149 if seen.hops == 255 => Some(Reason::IcmpControl),
        151..=153 if seen.hops == 1 => Some(Reason::IcmpControl),
        _ => None,
    }
}
