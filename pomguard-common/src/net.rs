//! Addresses, and the tuple of a connection.

use crate::Direction;

/// An address as four words, most significant first; an IPv4 address is in the first word alone.
pub type Address = [u32; 4];

/// IP version of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// What the image is asked: may a peer use this service from this port?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Inbound: the peer opens. Outbound: this host does.
    pub direction: Direction,
    /// Upper protocol.
    pub protocol: u8,
    /// Port of the side that is opened to; the protocol's own number where there are no ports.
    pub port: u16,
    /// Port of the side that opens; 0 where there are no ports.
    pub client_port: u16,
}
