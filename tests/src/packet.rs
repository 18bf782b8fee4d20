//! Builds frames byte by byte, so that a broken frame is broken exactly as intended.
//!
//! A [`Packet`] is correct by default: lengths and checksums fit its contents. The methods that break a
//! packet say so: [`Packet::poke`], [`Packet::announcing`], [`Packet::truncate`], [`Packet::pad`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod wire;

/// EtherTypes.
pub mod ether {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// TCP flags, in the order of their bits from the lowest.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
    /// URG.
    pub const URG: u8 = 32;
    /// ECE.
    pub const ECE: u8 = 64;
    /// CWR.
    pub const CWR: u8 = 128;
}

/// IPv6 extension headers by their Next Header numbers.
pub mod extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}

/// A part of a frame to [`Packet::poke`] into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The Ethernet header.
    Link,
    /// The IP header, extension headers included.
    Network,
    /// The upper layer: the payload of IP.
    Upper,
}

#[derive(Clone, Debug)]
enum Network {
    None,
    V4 { source: Ipv4Addr, destination: Ipv4Addr, options: Vec<u8>, id: u16, position: u16 },
    V6 { source: Ipv6Addr, destination: Ipv6Addr, extensions: Vec<(u8, Vec<u8>)> },
}

#[derive(Clone, Debug)]
enum Upper {
    None,
    Tcp { source: u16, destination: u16, flags: u8, options: Vec<u8> },
    Udp { source: u16, destination: u16 },
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
}

/// A frame under construction.
#[derive(Clone, Debug)]
pub struct Packet {
    to: [u8; 6],
    from: [u8; 6],
    tags: Vec<(u16, u16)>,
    ether_type: Option<u16>,
    network: Network,
    hop_limit: u8,
    class: u8,
    protocol: Option<u8>,
    upper: Upper,
    payload: Vec<u8>,
    announced: Option<u16>,
    pokes: Vec<(Part, usize, Vec<u8>)>,
    length: Option<usize>,
    padding: Vec<u8>,
    bare: bool,
}

/// Starts a frame between two unicast MAC addresses.
pub fn eth() -> Packet {
    Packet {
        to: [2, 0, 0, 0, 0, 2],
        from: [2, 0, 0, 0, 0, 1],
        tags: Vec::new(),
        ether_type: None,
        network: Network::None,
        hop_limit: 64,
        class: 0,
        protocol: None,
        upper: Upper::None,
        payload: Vec::new(),
        announced: None,
        pokes: Vec::new(),
        length: None,
        padding: Vec::new(),
        bare: false,
    }
}

impl Packet {
    /// Sets the destination MAC address.
    #[must_use]
    pub const fn to(mut self, station: [u8; 6]) -> Self {
        self.to = station;
        self
    }

    /// Sets the source MAC address.
    #[must_use]
    pub const fn from(mut self, station: [u8; 6]) -> Self {
        self.from = station;
        self
    }

    /// Sets the EtherType. A value below 1,536 is a length.
    #[must_use]
    pub const fn ether_type(mut self, number: u16) -> Self {
        self.ether_type = Some(number);
        self
    }

    /// Puts an 802.1Q tag in front of the other tags.
    #[must_use]
    pub fn vlan(self, control: u16) -> Self {
        self.tag(ether::VLAN, control)
    }

    /// Puts a tag of either kind in front of the other tags.
    #[must_use]
    pub fn tag(mut self, kind: u16, control: u16) -> Self {
        self.tags.insert(0, (kind, control));
        self
    }

    /// Adds an IPv4 header.
    #[must_use]
    pub fn ipv4(mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.network = Network::V4 { source, destination, options: Vec::new(), id: 0x1234, position: 0 };
        self
    }

    /// Adds an IPv6 header.
    #[must_use]
    pub fn ipv6(mut self, source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        self.network = Network::V6 { source, destination, extensions: Vec::new() };
        self
    }

    /// Adds a header of the addresses' family.
    ///
    /// # Panics
    /// If the addresses are of two families.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that mixes families is broken")]
    pub fn ip(self, source: IpAddr, destination: IpAddr) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("{source} and {destination} are of two families"),
        }
    }

    /// Sets the TTL or hop limit.
    #[must_use]
    pub const fn hops(mut self, limit: u8) -> Self {
        self.hop_limit = limit;
        self
    }

    /// Sets DSCP and ECN.
    #[must_use]
    pub const fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// Sets the protocol or last Next Header, whatever the upper layer is.
    #[must_use]
    pub const fn protocol(mut self, number: u8) -> Self {
        self.protocol = Some(number);
        self
    }

    /// Sets the options of TCP, or else the IPv4 options, padded to words.
    #[must_use]
    pub fn options(mut self, bytes: &[u8]) -> Self {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        match (&mut self.upper, &mut self.network) {
            (Upper::Tcp { options, .. }, _) | (_, Network::V4 { options, .. }) => *options = bytes,
            _ => {}
        }
        self
    }

    /// Sets the IPv4 options, padded to words, whatever the packet carries. No effect on IPv6.
    #[must_use]
    pub fn ip_options(mut self, bytes: &[u8]) -> Self {
        if let Network::V4 { options, .. } = &mut self.network {
            *options = bytes.to_vec();
            options.resize(bytes.len().next_multiple_of(4), 0);
        }
        self
    }

    /// Appends an IPv6 extension header. `body` follows the Next Header and length bytes and is padded to
    /// eight bytes. No effect on IPv4.
    #[must_use]
    pub fn ext_header(mut self, number: u8, body: &[u8]) -> Self {
        if let Network::V6 { extensions, .. } = &mut self.network {
            let mut body = body.to_vec();
            body.resize((body.len() + 2).next_multiple_of(8) - 2, 0);
            extensions.push((number, body));
        }
        self
    }

    /// Makes the packet a fragment of a datagram. `offset` is in bytes.
    #[must_use]
    pub fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        match &mut self.network {
            Network::V4 { id: at, position, .. } => {
                *at = id as u16;
                *position = (offset / 8) | (u16::from(more) << 13);
            }
            Network::V6 { extensions, .. } => {
                let mut body = (offset & 0xfff8 | u16::from(more)).to_be_bytes().to_vec();
                body.extend(id.to_be_bytes());
                extensions.push((extension::FRAGMENT, body));
            }
            Network::None => {}
        }
        self
    }

    /// Sets the three flags before the offset of an IPv4 fragment, as in the header. No effect on IPv6.
    #[must_use]
    pub const fn fragment_flags(mut self, bits: u16) -> Self {
        if let Network::V4 { position, .. } = &mut self.network {
            *position = *position & 0x1fff | bits;
        }
        self
    }

    /// Adds a TCP header; a SYN unless [`Self::flags`] changes the flags.
    #[must_use]
    pub fn tcp(mut self, source: u16, destination: u16) -> Self {
        self.upper = Upper::Tcp { source, destination, flags: flag::SYN, options: Vec::new() };
        self
    }

    /// Sets the TCP flags.
    #[must_use]
    pub const fn flags(mut self, bits: u8) -> Self {
        if let Upper::Tcp { flags, .. } = &mut self.upper {
            *flags = bits;
        }
        self
    }

    /// Adds a UDP header.
    #[must_use]
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.upper = Upper::Udp { source, destination };
        self
    }

    /// Adds an ICMP header, or an ICMPv6 header if the packet is IPv6.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8) -> Self {
        self.upper = Upper::Icmp { kind, code, rest: [0; 4] };
        self
    }

    /// Sets the four bytes after an ICMP message's checksum: identifier and sequence, or the MTU.
    #[must_use]
    pub const fn rest(mut self, four: u32) -> Self {
        if let Upper::Icmp { rest, .. } = &mut self.upper {
            *rest = four.to_be_bytes();
        }
        self
    }

    /// Sets the payload of the upper layer.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Sets the IPv4 total length or IPv6 payload length, whatever the frame holds.
    #[must_use]
    pub const fn announcing(mut self, length: u16) -> Self {
        self.announced = Some(length);
        self
    }

    /// Overwrites bytes of `part` at `offset`, after all lengths and checksums are computed.
    #[must_use]
    pub fn poke(mut self, part: Part, offset: usize, bytes: &[u8]) -> Self {
        self.pokes.push((part, offset, bytes.to_vec()));
        self
    }

    /// Removes the Ethernet header: XDP sees the host's own multicast this way in generic mode.
    #[must_use]
    pub const fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Cuts the frame after `length` bytes.
    #[must_use]
    pub const fn truncate(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Appends bytes after the IP packet, as Ethernet pads short frames.
    #[must_use]
    pub fn pad(mut self, bytes: &[u8]) -> Self {
        self.padding = bytes.to_vec();
        self
    }

    /// Makes TCP segments that the kernel holds in one packet of `bytes` bytes of IP, in the form that the
    /// programs get: with length 0, and in IPv6 with the jumbo option if `jumbo`.
    #[must_use]
    pub fn held_in_one(self, bytes: usize, jumbo: bool) -> Self {
        let base = if self.is_v6() { 40 } else { 20 };
        let packet = if jumbo {
            let payload = (bytes - base) as u32;
            self.ext_header(extension::HOP_BY_HOP, &[&[0xc2, 4][..], &payload.to_be_bytes()].concat())
        } else {
            self
        };
        let headers = packet.clone().announcing(0).build().len() - packet.link_bytes().len();
        let payload = vec![7; bytes - headers];
        packet.payload(&payload).announcing(0)
    }

    /// Swaps the addresses and ports of both sides.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        match &mut self.network {
            Network::V4 { source, destination, .. } => std::mem::swap(source, destination),
            Network::V6 { source, destination, .. } => std::mem::swap(source, destination),
            Network::None => {}
        }
        if let Upper::Tcp { source, destination, .. } | Upper::Udp { source, destination } = &mut self.upper {
            std::mem::swap(source, destination);
        }
        self
    }

    /// Returns the packet with which an honest peer answers: mirrored, and the reply to an echo request.
    #[must_use]
    pub fn answer(self) -> Self {
        let mut answer = self.mirrored();
        if let Upper::Icmp { kind, .. } = &mut answer.upper {
            *kind = match *kind {
                8 => 0,
                128 => 129,
                other => other,
            };
        }
        answer
    }

    /// Returns true if the packet has an IPv6 header.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        matches!(self.network, Network::V6 { .. })
    }

    /// Returns true if the packet is a fragment.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        match &self.network {
            Network::V4 { position, .. } => *position != 0,
            Network::V6 { extensions, .. } => extensions.iter().any(|(own, _)| *own == extension::FRAGMENT),
            Network::None => false,
        }
    }

    /// Cuts the packet into fragments at these offsets, in bytes of the payload of IP. Returns them in order.
    #[must_use]
    pub fn cut(&self, id: u32, places: &[u16]) -> Vec<Self> {
        let (number, bytes) = self.upper_bytes();
        let ends = places.iter().copied().chain([bytes.len() as u16]);
        let starts = [0].into_iter().chain(places.iter().copied());
        let piece = |(start, end): (u16, u16)| {
            let more = usize::from(end) < bytes.len();
            let packet = Self { upper: Upper::None, ..self.clone() };
            let packet = packet.fragment(id, start, more).protocol(number);
            packet.payload(bytes.get(usize::from(start)..usize::from(end)).unwrap_or_default())
        };
        starts.zip(ends).map(piece).collect()
    }

    /// Returns the IP packet alone, as an ICMP error quotes it.
    pub fn quoted(&self) -> Vec<u8> {
        Self { tags: Vec::new(), bare: true, ..self.clone() }.build()
    }

    /// Returns the bytes of the frame.
    pub fn build(&self) -> Vec<u8> {
        let link = self.link_bytes();
        let (number, upper) = self.upper_bytes();
        let network = self.network_bytes(number, upper.len());
        let starts = [0, link.len(), link.len() + network.len()];
        let mut frame = [link, network, upper].concat();
        for (part, offset, bytes) in &self.pokes {
            let at = starts[*part as usize] + offset;
            let end = frame.len().min(at + bytes.len());
            if at < end {
                frame[at..end].copy_from_slice(&bytes[..end - at]);
            }
        }
        frame.extend(&self.padding);
        if self.bare {
            frame.drain(..starts[1]);
        }
        frame.truncate(self.length.unwrap_or(usize::MAX));
        frame
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn honest_packet_reads_back_with_correct_checksums() {
        let v4 = eth().ipv4([10, 9, 0, 7].into(), [10, 9, 0, 2].into());
        let v6 = eth().ipv6(Ipv6Addr::LOCALHOST, "fd00:9::2".parse().unwrap()).ext_header(60, &[1, 4]);
        for base in [v4, v6] {
            for packet in [base.clone().tcp(40_000, 443).options(&[2, 4, 5, 0xb4]), base.udp(1, 2)] {
                let frame = packet.vlan(5).payload(b"odd").build();
                let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
                let sum = match (sliced.transport.unwrap(), sliced.net.unwrap()) {
                    (TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv4(ip)) => {
                        assert_eq!(tcp.payload(), b"odd");
                        tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
                            == tcp.checksum()
                    }
                    (TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv6(ip)) => {
                        tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
                            == tcp.checksum()
                    }
                    (TransportSlice::Udp(udp), _) => udp.payload() == b"odd",
                    other => unreachable!("{other:?}"),
                };
                assert!(sum);
            }
        }
    }

    #[test]
    fn what_is_broken_on_purpose_stays_broken() {
        let packet = eth().ipv4([10, 9, 0, 7].into(), [10, 9, 0, 2].into()).tcp(1, 2);
        assert_eq!(packet.clone().truncate(20).build().len(), 20);
        assert_eq!(packet.clone().announcing(20).pad(&[0; 6]).build()[14 + 3], 20);
        assert_eq!(packet.poke(Part::Upper, 12, &[0x40]).build()[14 + 20 + 12], 0x40);
    }
}
