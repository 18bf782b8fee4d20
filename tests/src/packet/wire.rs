//! The headers of a packet as bytes.

use pomguard_common::protocol;

use super::{Network, Packet, Upper, ether, extension};

impl Packet {
    pub(super) fn link_bytes(&self) -> Vec<u8> {
        let mut bytes = [self.to, self.from].concat();
        for (kind, control) in &self.tags {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        let natural = match self.network {
            Network::None => 0,
            Network::V4 { .. } => ether::IPV4,
            Network::V6 { .. } => ether::IPV6,
        };
        bytes.extend(self.ether_type.unwrap_or(natural).to_be_bytes());
        bytes
    }

    pub(super) fn network_bytes(&self, number: u8, upper: usize) -> Vec<u8> {
        match &self.network {
            Network::None => Vec::new(),
            Network::V4 { source, destination, options, id, position } => {
                let length = self.announced.unwrap_or((20 + options.len() + upper) as u16);
                let mut bytes = vec![0x40 | (5 + options.len() / 4) as u8, self.class];
                bytes.extend([length, *id, *position].map(u16::to_be_bytes).concat());
                bytes.extend([self.hop_limit, number, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(options);
                let sum = checksum(0, &bytes).to_be_bytes();
                bytes[10..12].copy_from_slice(&sum);
                bytes
            }
            Network::V6 { source, destination, extensions } => {
                let walked: usize = extensions.iter().map(|(_, body)| 2 + body.len()).sum();
                let length = self.announced.unwrap_or((walked + upper) as u16);
                let first = extensions.first().map_or(number, |(number, _)| *number);
                let mut bytes = vec![0x60 | self.class >> 4, self.class << 4, 0, 0];
                bytes.extend(length.to_be_bytes());
                bytes.extend([first, self.hop_limit]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                for (at, (own, body)) in extensions.iter().enumerate() {
                    let next = extensions.get(at + 1).map_or(number, |(number, _)| *number);
                    let length = if *own == extension::FRAGMENT { 0 } else { (body.len() + 2) / 8 - 1 };
                    bytes.extend([next, length as u8]);
                    bytes.extend(body);
                }
                bytes
            }
        }
    }

    pub(super) fn upper_bytes(&self) -> (u8, Vec<u8>) {
        let v6 = matches!(self.network, Network::V6 { .. });
        let (number, mut bytes, sum_at) = match &self.upper {
            Upper::None => (protocol::TCP, Vec::new(), None),
            Upper::Tcp { source, destination, flags, options } => {
                let mut bytes = [*source, *destination].map(u16::to_be_bytes).concat();
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
                bytes.extend([((5 + options.len() / 4) << 4) as u8, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                bytes.extend(options);
                (protocol::TCP, bytes, Some(16))
            }
            Upper::Udp { source, destination } => {
                let length = 8 + self.payload.len() as u16;
                (protocol::UDP, [*source, *destination, length, 0].map(u16::to_be_bytes).concat(), Some(6))
            }
            Upper::Icmp { kind, code, rest } => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend(rest);
                (if v6 { protocol::ICMPV6 } else { protocol::ICMP }, bytes, Some(2))
            }
        };
        bytes.extend(&self.payload);
        let number = self.protocol.unwrap_or(number);
        if let Some(at) = sum_at {
            let pseudo = match &self.network {
                Network::V4 { .. } if number == protocol::ICMP => Vec::new(),
                Network::V4 { source, destination, .. } => [source.octets(), destination.octets()].concat(),
                Network::V6 { source, destination, .. } => [source.octets(), destination.octets()].concat(),
                Network::None => Vec::new(),
            };
            let extra = if pseudo.is_empty() { 0 } else { u32::from(number) + bytes.len() as u32 };
            let sum = checksum(extra, &[pseudo, bytes.clone()].concat()).to_be_bytes();
            bytes[at..at + 2].copy_from_slice(&sum);
        }
        (number, bytes)
    }
}

/// Returns the Internet checksum (RFC 1071) of `bytes`, begun at `start`.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
