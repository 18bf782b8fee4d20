//! Prefixes of both families as left-aligned numbers, so that one implementation serves both.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// IP version, for the two passes of the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns true if the address is of this version.
    pub const fn has(self, address: IpAddr) -> bool {
        matches!((self, address), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A prefix whose first bit is the highest bit. In sorted order, a prefix stands before every prefix that it
/// covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    /// The address; all bits behind the prefix are zero.
    pub(super) bits: u128,
    /// Length in bits.
    pub(super) length: u8,
}

impl Prefix {
    pub(super) const fn new(bits: u128, length: u8) -> Self {
        Self { bits: bits & mask(length), length }
    }

    pub(super) fn of(net: IpNet) -> Self {
        Self::new(left_aligned(net.addr()), net.prefix_len())
    }

    pub(super) const fn covers(self, other: Self) -> bool {
        self.length <= other.length && other.bits & mask(self.length) == self.bits
    }
}

/// Returns the address with its first bit as the highest bit.
pub(super) fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    }
}

/// Returns a mask whose first `length` bits are one.
pub(super) const fn mask(length: u8) -> u128 {
    match length {
        0 => 0,
        1..=128 => u128::MAX << (128 - length),
        _ => u128::MAX,
    }
}
