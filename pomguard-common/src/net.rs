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

/// The question to the image: may a peer use this service from this client port?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Inbound: the peer opens the connection. Outbound: this host opens it.
    pub direction: Direction,
    /// Upper protocol.
    pub protocol: u8,
    /// Port of the side that accepts the connection; the protocol's own number for a protocol without ports.
    pub port: u16,
    /// Port of the side that opens the connection; 0 for a protocol without ports.
    pub client_port: u16,
}
