//! The addresses of a segment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The port that the policy allows to the known host: row 15 of the matrix.
pub const ALLOWED: u16 = 9970;
/// A port that no row names.
pub const DENIED: u16 = 9000;

/// An emulated network card and the segment that the card leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// The driver's name in Linux. The interface gets the same name.
    pub driver: &'static str,
    /// QEMU's name of the device.
    pub device: &'static str,
    /// The segment.
    pub segment: Segment,
}

/// The cards of an emulated machine.
pub const CARDS: [Card; 2] = [
    Card { driver: "vmxnet3", device: "vmxnet3", segment: Segment::new(1) },
    Card { driver: "virtio_net", device: "virtio-net-pci", segment: Segment::new(2) },
];

/// One network: the server at one end, a known host and a stranger at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment(u8);

impl Segment {
    /// Returns the segment of this number: 10.77.`number`.0/24 and fd00:77:`number`::/64.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Returns the length of the prefix of an address.
    #[must_use]
    pub const fn prefix_length(address: IpAddr) -> u8 {
        if address.is_ipv6() { 64 } else { 24 }
    }

    /// Returns the link-layer address of the server's interface.
    #[must_use]
    pub const fn server_mac(self) -> [u8; 6] {
        [0x52, 0x54, 0, 0x77, self.0, 1]
    }

    /// Returns the link-layer address of the far end.
    #[must_use]
    pub const fn far_mac(self) -> [u8; 6] {
        [0x52, 0x54, 0, 0x77, self.0, 2]
    }

    /// Returns the server's addresses, IPv4 and IPv6.
    #[must_use]
    pub const fn server(self) -> [IpAddr; 2] {
        self.host(1)
    }

    /// Returns the addresses of the host that the site file knows.
    #[must_use]
    pub const fn known(self) -> [IpAddr; 2] {
        self.host(2)
    }

    /// Returns the addresses of the host that the site file does not know.
    #[must_use]
    pub const fn stranger(self) -> [IpAddr; 2] {
        self.host(3)
    }

    /// Returns true if the far end answers for this address.
    #[must_use]
    pub fn is_far(self, address: IpAddr) -> bool {
        self.known().contains(&address) || self.stranger().contains(&address)
    }

    const fn host(self, number: u8) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0xfd00, 0x77, self.0 as u16, 0, 0, 0, 0, number as u16);
        [IpAddr::V4(Ipv4Addr::new(10, 77, self.0, number)), IpAddr::V6(v6)]
    }
}
