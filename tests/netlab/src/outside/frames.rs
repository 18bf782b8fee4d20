//! Frames that the far end sends and reads.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, IpNumber, Ipv6Header, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TransportSlice,
};

use super::Segment;

/// The shortest frame on a wire, without the checksum.
const SHORTEST: usize = 60;
/// The TCP window of the far end, in bytes.
const WINDOW: u16 = 64_000;

/// The far end's side of a connection: addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) from: IpAddr,
    pub(super) from_port: u16,
    pub(super) to: IpAddr,
    pub(super) to_port: u16,
}

/// A segment of TCP.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tcp<'a> {
    /// Opens the connection.
    Syn,
    /// Acknowledges up to a number and carries words.
    Words(u32, &'a [u8]),
    /// Ends the connection at this number of the far end.
    Reset(u32),
}

/// The first sequence number of the far end.
pub(super) const FIRST: u32 = 1_000;

impl Segment {
    pub(super) fn tcp(self, ends: Endpoints, what: Tcp<'_>) -> Option<Vec<u8>> {
        let sequence = match what {
            Tcp::Syn => FIRST,
            Tcp::Words(..) => FIRST + 1,
            Tcp::Reset(number) => number,
        };
        let builder = self.ip(ends.from, ends.to)?.tcp(ends.from_port, ends.to_port, sequence, WINDOW);
        let (builder, words): (_, &[u8]) = match what {
            Tcp::Syn => (builder.syn(), &[]),
            Tcp::Words(acknowledged, words) => (builder.ack(acknowledged).psh(), words),
            Tcp::Reset(_) => (builder.rst(), &[]),
        };
        let mut frame = Vec::with_capacity(SHORTEST);
        builder.write(&mut frame, words).ok()?;
        Some(padded(frame))
    }

    pub(super) fn udp(self, ends: Endpoints, words: &[u8]) -> Option<Vec<u8>> {
        let builder = self.ip(ends.from, ends.to)?.udp(ends.from_port, ends.to_port);
        let mut frame = Vec::with_capacity(SHORTEST);
        builder.write(&mut frame, words).ok()?;
        Some(padded(frame))
    }

    fn ip(self, from: IpAddr, to: IpAddr) -> Option<PacketBuilderStep<IpHeaders>> {
        let link = PacketBuilder::ethernet2(self.far_mac(), self.server_mac());
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some(link.ipv4(from.octets(), to.octets(), 64)),
            (IpAddr::V6(from), IpAddr::V6(to)) => Some(link.ipv6(from.octets(), to.octets(), 64)),
            _ => None,
        }
    }

    /// Returns the answer to a question for the link-layer address of a host at the far end.
    pub(super) fn resolution(self, frame: &[u8]) -> Option<Vec<u8>> {
        match frame.get(12..14)? {
            [8, 6] => self.arp_answer(frame),
            [0x86, 0xdd] => self.neighbour_answer(frame),
            _ => None,
        }
    }

    /// Answers an ARP request (RFC 826).
    fn arp_answer(self, frame: &[u8]) -> Option<Vec<u8>> {
        const REQUEST: [u8; 2] = [0, 1];
        let asked: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
        if frame.get(20..22)? != REQUEST || !self.is_far(asked.into()) {
            return None;
        }
        let asker = frame.get(22..32)?;
        let head: &[u8] = &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
        let answer = [asker.get(..6)?, &self.far_mac(), head, &self.far_mac(), &asked, asker].concat();
        Some(padded(answer))
    }

    /// Answers a neighbour solicitation (RFC 4861, 4.3 and 4.4).
    fn neighbour_answer(self, frame: &[u8]) -> Option<Vec<u8>> {
        const SOLICITATION: u8 = 135;
        const ADVERTISEMENT: u8 = 136;
        const SOLICITED_AND_OVERRIDES: [u8; 4] = [0x60, 0, 0, 0];
        const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
        let (next_header, kind) = (*frame.get(20)?, *frame.get(54)?);
        let asker: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
        let asked: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
        if next_header != IpNumber::IPV6_ICMP.0 || kind != SOLICITATION || !self.is_far(asked.into()) {
            return None;
        }
        let options = [&asked[..], &TARGET_LINK_LAYER, &self.far_mac()].concat();
        let builder = PacketBuilder::ethernet2(self.far_mac(), self.server_mac())
            .ipv6(asked, asker, 255)
            .icmpv6_raw(ADVERTISEMENT, 0, SOLICITED_AND_OVERRIDES);
        let mut answer = Vec::new();
        builder.write(&mut answer, &options).ok()?;
        Some(answer)
    }
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// A message from the server that concerns a knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A segment of TCP to a port of the far end.
    Tcp { to_port: u16, syn_ack: bool, reset: bool, sequence: u32, acknowledged: u32, words: &'a [u8] },
    /// A datagram of UDP to a port of the far end.
    Udp { to_port: u16 },
    /// An ICMP error about something that the far end sent from this port.
    Refusal { to_port: u16 },
}

/// Parses a frame. Returns `None` if the frame does not concern a knock.
pub(super) fn read(frame: &[u8]) -> Option<Heard<'_>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.transport? {
        TransportSlice::Tcp(tcp) => Some(Heard::Tcp {
            to_port: tcp.destination_port(),
            syn_ack: tcp.syn() && tcp.ack(),
            reset: tcp.rst(),
            sequence: tcp.sequence_number(),
            acknowledged: tcp.acknowledgment_number(),
            words: tcp.payload(),
        }),
        TransportSlice::Udp(udp) => Some(Heard::Udp { to_port: udp.destination_port() }),
        TransportSlice::Icmpv4(icmp) => {
            let quoted = icmp.payload();
            let header = usize::from(*quoted.first()? & 0xf) * 4;
            let error = matches!(icmp.header().icmp_type, Icmpv4Type::DestinationUnreachable(_));
            error.then(|| quoted_port(quoted, header)).flatten()
        }
        TransportSlice::Icmpv6(icmp) => {
            let error = matches!(icmp.header().icmp_type, Icmpv6Type::DestinationUnreachable(_));
            error.then(|| quoted_port(icmp.payload(), Ipv6Header::LEN)).flatten()
        }
        TransportSlice::Igmp(_) => None,
    }
}

/// Returns the source port of a quoted datagram. `header` is the length of the IP header in bytes.
fn quoted_port<'a>(quoted: &[u8], header: usize) -> Option<Heard<'a>> {
    let port = quoted.get(header..header + 2)?;
    Some(Heard::Refusal { to_port: u16::from_be_bytes(port.try_into().ok()?) })
}
