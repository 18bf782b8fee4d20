//! Checks of addresses: impossible sources, groups, and addresses that no host of the site claims.

use crate::image::{Address, Class, Family};

/// Returns true if the address is unicast, a possible source, and given to no host or peer by the site file.
#[inline(always)]
pub(super) fn is_unclaimed(class: Class, family: Family, address: &Address) -> bool {
    class.is_unclaimed() && !group(family, address) && !impossible_source(family, address)
}

/// Returns true if the address cannot be a source (RFC 1122 section 3.2.1.3, RFC 4291 section 2): this
/// network, loopback, multicast, reserved, broadcast; in IPv6 also an address that embeds such an IPv4
/// address.
#[inline(always)]
pub(super) const fn impossible_source(family: Family, address: &Address) -> bool {
    match family {
        Family::V4 => matches!(address[0] >> 24, 0 | 127 | 224..=255),
        // ::/96 holds the unspecified and the loopback address, and the retired IPv4-compatible ones.
        Family::V6 => {
            address[0] >> 24 == 0xff || address[0] | address[1] | address[2] == 0 || embeds_private(address)
        }
    }
}

/// Returns true for a 6to4 address (RFC 3056 section 2) or a well-known NAT64 address (RFC 6052 section 3.1)
/// of an IPv4 address that is not global.
#[inline(always)]
const fn embeds_private(address: &Address) -> bool {
    let v4 = if address[0] >> 16 == 0x2002 {
        address[0] << 16 | address[1] >> 16
    } else if address[0] == 0x0064_ff9b && address[1] | address[2] == 0 {
        address[3]
    } else {
        return false;
    };
    matches!(v4 >> 24, 0 | 10 | 127 | 224..=255)
        || v4 >> 20 == 0xac1
        || v4 >> 16 == 0xc0a8
        || v4 >> 16 == 0xa9fe
}

/// Returns true if the address is in ::ffff:0:0/96, which must not appear on the wire (RFC 6092 REC-3).
#[inline(always)]
pub(super) const fn mapped(address: &Address) -> bool {
    address[0] | address[1] == 0 && address[2] == 0xffff
}

#[inline(always)]
pub(super) const fn unspecified(address: &Address) -> bool {
    address[0] | address[1] | address[2] | address[3] == 0
}

/// Returns true if the address is in fe80::/10.
#[inline(always)]
pub(super) const fn link_local(address: &Address) -> bool {
    address[0] >> 22 == 0x3fa
}

/// Returns true if the destination address is broadcast or multicast.
#[inline(always)]
pub(super) const fn group(family: Family, address: &Address) -> bool {
    match family {
        Family::V4 => address[0] >> 28 == 0xe || address[0] == u32::MAX,
        Family::V6 => address[0] >> 24 == 0xff,
    }
}
