//! Builds the first packet of a flow, for a query that asks for the verdict.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pomguard_common::protocol;

use crate::policy::oracle::Opening;

/// Returns an Ethernet frame that opens the flow: a SYN, a UDP datagram, an echo request, or an empty packet of
/// another protocol. Returns `None` if the addresses are of different families.
#[must_use]
pub fn opening(opening: &Opening) -> Option<Vec<u8>> {
    let upper = match opening.protocol {
        protocol::TCP => tcp_syn(opening.source_port, opening.destination_port),
        protocol::UDP => udp(opening.source_port, opening.destination_port),
        protocol::ICMP => vec![8, 0, 0, 0, 0, 1, 0, 1],
        protocol::ICMPV6 => vec![128, 0, 0, 0, 0, 1, 0, 1],
        _ => vec![0; 8],
    };
    let mut frame = station(opening.destination).to_vec();
    // A locally administered address.
    frame.extend([2, 0, 0, 0, 0, 2]);
    match (opening.source, opening.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00]);
            frame.extend(ipv4(source, destination, opening.protocol, upper.len()));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd]);
            frame.extend(ipv6(source, destination, opening.protocol, upper.len()));
        }
        _ => return None,
    }
    frame.extend(upper);
    Some(frame)
}

/// Returns the hardware address that a packet to this address has: of the group, or locally administered.
const fn station(destination: IpAddr) -> [u8; 6] {
    match destination {
        IpAddr::V4(address) => match address.octets() {
            [255, 255, 255, 255] => [0xff; 6],
            [224..=239, b, c, d] => [1, 0, 0x5e, b & 0x7f, c, d],
            _ => [2, 0, 0, 0, 0, 1],
        },
        IpAddr::V6(address) => match address.octets() {
            [0xff, .., a, b, c, d] => [0x33, 0x33, a, b, c, d],
            _ => [2, 0, 0, 0, 0, 1],
        },
    }
}

/// Returns the hop limit with which a correct sender sends this protocol: neither membership reports nor
/// heartbeats cross a router.
const fn hop_limit(protocol: u8) -> u8 {
    match protocol {
        protocol::IGMP => 1,
        protocol::VRRP => 255,
        _ => 64,
    }
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: usize) -> Vec<u8> {
    let total = (20 + payload) as u16;
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    // Identification 0, don't fragment; the programs do not check the checksum.
    header.extend([0, 0, 0x40, 0, hop_limit(protocol), protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, payload: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload as u16).to_be_bytes());
    header.extend([protocol, hop_limit(protocol)]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn tcp_syn(source: u16, destination: u16) -> Vec<u8> {
    let mut header = Vec::with_capacity(20);
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut header = Vec::with_capacity(8);
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend([0, 8, 0, 0]);
    header
}
