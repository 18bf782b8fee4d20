//! Random packets of each kind that a policy distinguishes.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use pomguard_common::{bench, parse::tcp_flag, protocol};

use super::{
    policy::{OUTBOUND_PORT, Policy},
    random::Random,
};

/// The IP header and all that follows, up to the end of the frame.
pub(super) type Header = [u8; bench::HEADER];

/// Flags of TCP segments.
pub(super) mod segment {
    use super::tcp_flag;

    pub(crate) const SYN: u8 = tcp_flag::SYN;
    pub(crate) const SYN_ACK: u8 = tcp_flag::SYN | tcp_flag::ACK;
    pub(crate) const ACK: u8 = tcp_flag::ACK;
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoints {
    /// The side that opens the connection.
    pub(super) client: SocketAddr,
    /// The side that accepts the connection.
    pub(super) server: SocketAddr,
}

impl Endpoints {
    /// Makes a segment from the client to the server.
    pub(super) fn asks(&self, flags: u8) -> Header {
        tcp(self.client, self.server, flags)
    }

    /// Makes a UDP datagram from the client to the server.
    pub(super) fn asks_udp(&self) -> Header {
        udp(self.client, self.server)
    }

    /// Makes a segment from the server to the client.
    pub(super) fn answers(&self, flags: u8) -> Header {
        tcp(self.server, self.client, flags)
    }
}

fn client_port(random: &mut Random) -> u16 {
    1_024 + random.below(64_512) as u16
}

/// Returns a random address that the prefix covers.
fn inside(prefix: IpNet, random: &mut Random) -> IpAddr {
    let bits = u128::from(random.bits()) << 64 | u128::from(random.bits());
    match (prefix.network(), prefix.hostmask()) {
        (IpAddr::V4(network), IpAddr::V4(mask)) => {
            IpAddr::V4((u32::from(network) | bits as u32 & u32::from(mask)).into())
        }
        (IpAddr::V6(network), IpAddr::V6(mask)) => {
            IpAddr::V6((u128::from(network) | bits & u128::from(mask)).into())
        }
        // The two are always of one family.
        (network, _) => network,
    }
}

fn stranger(policy: &Policy, random: &mut Random) -> IpAddr {
    loop {
        let address = policy.family.address(random);
        if policy.is_stranger(address) {
            return address;
        }
    }
}

/// Makes connections that peers open and a row allows.
pub(super) fn allowed(policy: &Policy, random: &mut Random, count: usize) -> Result<Vec<Endpoints>> {
    let make = |_| {
        let tuple = random.of(&policy.tuples).context("the policy has no tuple")?;
        let (peer, port) = (tuple.peer, tuple.port);
        let client = SocketAddr::new(inside(peer, random), client_port(random));
        Ok(Endpoints { client, server: SocketAddr::new(policy.host, port) })
    };
    (0..count).map(make).collect()
}

/// Makes connections from strangers to ports that no row lists.
pub(super) fn port_scan(policy: &Policy, random: &mut Random, count: usize) -> Vec<Endpoints> {
    let make = |_| {
        let client = SocketAddr::new(stranger(policy, random), client_port(random));
        let mut port = client_port(random);
        while policy.lists(port) {
            port = client_port(random);
        }
        Endpoints { client, server: SocketAddr::new(policy.host, port) }
    };
    (0..count).map(make).collect()
}

/// Makes connections from strangers to the ports of this host's own flows.
pub(super) fn at_open_ports(
    policy: &Policy,
    random: &mut Random,
    opened: &[Endpoints],
    count: usize,
) -> Vec<Endpoints> {
    let make = |_| {
        let own = opened[random.below(opened.len())].client.port();
        let client = SocketAddr::new(stranger(policy, random), client_port(random));
        Endpoints { client, server: SocketAddr::new(policy.host, own) }
    };
    (0..count).map(make).collect()
}

/// Makes connections from strangers to ports that rows list for other peers.
pub(super) fn strangers(policy: &Policy, random: &mut Random, count: usize) -> Result<Vec<Endpoints>> {
    let make = |_| {
        let port = random.of(&policy.tuples).context("the policy has no tuple")?.port;
        let client = SocketAddr::new(stranger(policy, random), client_port(random));
        Ok(Endpoints { client, server: SocketAddr::new(policy.host, port) })
    };
    (0..count).map(make).collect()
}

/// Makes different connections that the host opens.
pub(super) fn opened(policy: &Policy, random: &mut Random, count: usize) -> Vec<Endpoints> {
    let make = |index| {
        // Addresses and ports may repeat by chance, but not both at once in the same order.
        let client = SocketAddr::new(policy.host, 32_768 + (index % 28_000) as u16);
        Endpoints { client, server: SocketAddr::new(policy.family.address(random), OUTBOUND_PORT) }
    };
    (0..count).map(make).collect()
}

/// Makes the headers of a TCP segment without data, with correct checksums.
fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Header {
    let mut segment = [0; 20];
    segment[12] = 5 << 4;
    segment[13] = flags;
    segment[14..16].copy_from_slice(&8_192_u16.to_be_bytes());
    headers(source, destination, protocol::TCP, &mut segment, 16)
}

/// Headers of a UDP datagram with twelve bytes of data, with right checksums: as long as a TCP segment.
fn udp(source: SocketAddr, destination: SocketAddr) -> Header {
    let mut datagram = [0; 20];
    datagram[4..6].copy_from_slice(&20_u16.to_be_bytes());
    headers(source, destination, protocol::UDP, &mut datagram, 6)
}

/// IP header and twenty bytes of the upper layer, which has its ports first and its checksum at `place`.
fn headers(
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    upper: &mut [u8; 20],
    place: usize,
) -> Header {
    upper[..2].copy_from_slice(&source.port().to_be_bytes());
    upper[2..4].copy_from_slice(&destination.port().to_be_bytes());
    let mut header = [0; bench::HEADER];
    let (length, addresses) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // Version and header length, then: 40 bytes, not to be fragmented, TTL 64.
            header[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol]);
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = checksum(0, &header[..20]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (20, 12..20)
        }
        (from, to) => {
            let octets = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            // Version 6, then: 20 bytes of the upper layer, hop limit 64.
            header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, protocol, 64]);
            header[8..24].copy_from_slice(&octets(from));
            header[24..40].copy_from_slice(&octets(to));
            (40, 8..40)
        }
    };
    // The pseudo-header: addresses, protocol, length 20 (RFC 9293 section 3.1, RFC 768).
    let pseudo = header[addresses].chunks(2).map(word).sum::<u32>() + u32::from(protocol) + 20;
    let sum = checksum(pseudo, upper);
    upper[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    header[length..length + 20].copy_from_slice(upper);
    header
}

fn word(two: &[u8]) -> u32 {
    two.iter().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// Computes the Internet checksum (RFC 1071) of bytes, begun with a sum.
fn checksum(begun: u32, bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks(2).map(word).sum::<u32>() + begun;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Family;

    #[test]
    fn checksums_are_those_that_a_receiver_computes() {
        for family in [Family::V4, Family::V6] {
            let policy = Policy::random(family, 10).unwrap();
            let ends = opened(&policy, &mut Random(7), 3);
            let both = |ends: &Endpoints| [(ends.asks(segment::SYN), 6), (ends.asks_udp(), 17)];
            for (header, protocol) in ends.iter().flat_map(both) {
                let (ip, addresses) = if family == Family::V4 { (20, 12..20) } else { (40, 8..40) };
                let pseudo = header[addresses].chunks(2).map(word).sum::<u32>() + protocol + 20;
                assert_eq!(checksum(pseudo, &header[ip..ip + 20]), 0, "{family:?}: protocol {protocol}");
                if family == Family::V4 {
                    assert_eq!(checksum(0, &header[..20]), 0, "IP");
                }
            }
        }
    }

    #[test]
    fn traffic_is_of_the_kind_that_it_is_called() {
        for family in [Family::V4, Family::V6] {
            let policy = Policy::random(family, 1_000).unwrap();
            let mut random = Random(1);
            let grants = |ends: &Endpoints| {
                let tuple = |it: &&crate::policy::Tuple| {
                    it.port == ends.server.port() && it.peer.contains(&ends.client.ip())
                };
                policy.tuples.iter().find(tuple).is_some()
            };
            assert!(allowed(&policy, &mut random, 200).unwrap().iter().all(grants));
            assert!(
                port_scan(&policy, &mut random, 200).iter().all(|ends| !policy.lists(ends.server.port()))
            );
            for ends in strangers(&policy, &mut random, 200).unwrap() {
                assert!(policy.lists(ends.server.port()) && !grants(&ends), "{ends:?}");
            }
        }
    }
}
