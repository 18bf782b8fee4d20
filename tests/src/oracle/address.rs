//! Properties of addresses by the standard library and the RFCs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns true if the address is a valid source (RFC 1122 section 3.2.1.3, RFC 4291, RFC 6092 REC-3).
pub(super) fn may_send(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => {
            // ::/96: unspecified, loopback, and the retired IPv4-compatible addresses.
            let low = address.segments()[..6] == [0; 6];
            !(low || address.is_multicast() || embedded(address).is_some_and(|v4| !global(v4)))
        }
    }
}

/// Returns the IPv4 address in a 6to4 or well-known NAT64 address (RFC 3056, RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let four = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    match address.segments() {
        [0x2002, ..] => Some(four(2)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(four(12)),
        _ => None,
    }
}

fn global(address: Ipv4Addr) -> bool {
    may_send(address.into()) && !address.is_private() && !address.is_link_local()
}

pub(super) fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Returns true for the IPv6 source of a host that has no address yet. IPv4's counterpart is not a valid
/// source here.
pub(super) fn is_newborn(address: IpAddr) -> bool {
    address.is_ipv6() && address.is_unspecified()
}

pub(super) fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}
