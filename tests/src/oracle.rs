//! A second reading of a frame, as simple as it can be: etherparse takes it apart, the policy's own
//! oracle answers for the tuple, and whatever is not understood must not pass.
//!
//! It is about a host in enforce that has no conversations yet, and shares no code with the programs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    LinkExtHeader, NetHeaders, PacketHeaders, TransportHeader,
    err::{Layer, packet::SliceError},
};
use pomguard::policy::{
    Direction, Policy,
    oracle::{self, Opening},
};
use pomguard_common::protocol::{TCP, UDP};

/// What must become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It must pass.
    Passes,
    /// It must not.
    Stops,
    /// That depends on fragments before it, on what an error quotes, or on the link.
    Open,
}

/// Flags of real segments as (SYN, ACK, RST, FIN), with or without PSH, ECE, CWR.
const SEGMENTS: [(bool, bool, bool, bool); 6] = [
    (true, false, false, false),
    (true, true, false, false),
    (false, true, false, false),
    (false, true, false, true),
    (false, false, true, false),
    (false, true, true, false),
];

/// A packet with ports, or of a protocol without.
struct Seen {
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
}

impl Seen {
    /// Whether rows of the hook's own direction allow it as an opening.
    fn allowed(&self, policy: &Policy) -> bool {
        let Self { direction, source, destination, source_port, destination_port, protocol } = *self;
        let opening = Opening { direction, source, source_port, destination, destination_port, protocol };
        oracle::judge(policy, &opening).first.is_some()
    }

    /// Whether inbound rows allow what this, leaving, would answer.
    fn answers(&self, policy: &Policy) -> bool {
        let asked = Self {
            direction: Direction::Inbound,
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        };
        self.direction == Direction::Outbound && asked.allowed(policy)
    }
}

/// What must become of a frame.
#[must_use]
pub fn judge(policy: &Policy, direction: Direction, frame: &[u8]) -> Answer {
    let headers = match PacketHeaders::from_ethernet_slice(frame) {
        Ok(headers) => headers,
        // What they say is the stack's to read: the filter looks at whom they are for.
        Err(SliceError::Len(error)) if matches!(error.layer, Layer::Arp) => return Answer::Open,
        Err(_) => return Answer::Stops,
    };
    let foreign = |tag: &LinkExtHeader| match tag {
        LinkExtHeader::Vlan(tag) => {
            let id = tag.vlan_id.value();
            id != 0 && !policy.packets.vlans.contains(&id)
        }
        LinkExtHeader::Macsec(_) => true,
    };
    if headers.link_exts.iter().any(foreign) {
        return Answer::Stops;
    }
    let (source, destination, protocol, length, plain): (IpAddr, IpAddr, u8, u16, bool) = match &headers.net {
        // Neither IP nor ARP: only the link's own protocols may pass.
        None | Some(NetHeaders::Arp(_)) => return Answer::Open,
        Some(NetHeaders::Ipv4(header, _)) => {
            let (number, whole) = (header.protocol.0, !header.is_fragmenting_payload());
            if !header.options.is_empty() && number != 2 {
                return Answer::Stops;
            }
            (header.source.into(), header.destination.into(), number, header.total_len, whole)
        }
        Some(NetHeaders::Ipv6(header, _)) => {
            let number = header.next_header.0;
            let chain = matches!(number, 0 | 43 | 44 | 60);
            (header.source.into(), header.destination.into(), number, header.payload_length, !chain)
        }
    };
    // No length at all is a jumbogram, or an empty packet.
    if length == 0 {
        return Answer::Stops;
    }
    let seen = |protocol, source_port, destination_port| Seen {
        direction,
        source,
        destination,
        source_port,
        destination_port,
        protocol,
    };
    let group_station = frame[0] & 1 != 0;
    let (ours, other) = match direction {
        Direction::Inbound => (destination, source),
        Direction::Outbound => (source, destination),
    };
    let inbound = direction == Direction::Inbound;
    // What cannot send cannot be sent to either: groups, loopback, reserved addresses.
    let improper = !policy.local.contains(&ours)
        || !may_send(other)
        || inbound && (group_station || policy.local.contains(&other));
    match &headers.transport {
        Some(TransportHeader::Tcp(header)) => {
            let flags = (header.syn, header.ack, header.rst, header.fin);
            let urgent = header.urg && header.rst;
            let tuple = seen(TCP, header.source_port, header.destination_port);
            let ports = header.source_port != 0 && header.destination_port != 0;
            if improper || !ports || urgent || !SEGMENTS.contains(&flags) {
                return Answer::Stops;
            }
            if header.urg && header.syn && header.ack {
                return Answer::Stops;
            }
            let passes = match (direction, header.syn, header.ack) {
                // A SYN-ACK is only ever an answer, and nothing was asked.
                (Direction::Inbound, true, true) => false,
                (Direction::Inbound, ..) | (Direction::Outbound, true, false) => tuple.allowed(policy),
                (Direction::Outbound, true, true) if tuple.answers(policy) => true,
                // Unless it is the other half of opening at once.
                (Direction::Outbound, true, true) if tuple.allowed(policy) => return Answer::Open,
                (Direction::Outbound, true, true) => false,
                (Direction::Outbound, false, _) => tuple.answers(policy) || tuple.allowed(policy),
            };
            settled(passes, plain)
        }
        Some(TransportHeader::Udp(header)) => {
            let tuple = seen(UDP, header.source_port, header.destination_port);
            let lease = [(67, 68), (68, 67), (546, 547), (547, 546)];
            if policy.packets.dhcp && lease.contains(&(tuple.source_port, tuple.destination_port)) {
                return Answer::Open;
            }
            let room = headers.payload.slice().len() + 8;
            let fits = (8..=room).contains(&usize::from(header.length));
            if improper || !fits || tuple.source_port == 0 || tuple.destination_port == 0 {
                return Answer::Stops;
            }
            settled(tuple.allowed(policy) || tuple.answers(policy), plain)
        }
        // Echo, errors, and what the link needs.
        Some(_) => Answer::Open,
        None if !plain || matches!(protocol, 1 | 2 | 58 | 112) => Answer::Open,
        None if matches!(protocol, TCP | UDP) || improper => Answer::Stops,
        None => {
            let tuple = seen(protocol, 0, 0);
            settled(tuple.allowed(policy) || tuple.answers(policy), plain)
        }
    }
}

/// What is not allowed stops in every shape; what is passes in the plain one.
const fn settled(passes: bool, plain: bool) -> Answer {
    match (passes, plain) {
        (true, true) => Answer::Passes,
        (true, false) => Answer::Open,
        (false, _) => Answer::Stops,
    }
}

/// Whether packets can come from an address (RFC 1122 section 3.2.1.3, RFC 4291, RFC 6092 REC-3).
fn may_send(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => {
            let mapped = address.to_ipv4_mapped().is_some();
            // ::/96: unspecified, loopback, and the retired IPv4-compatible addresses.
            let low = address.segments()[..6] == [0; 6];
            !(low || address.is_multicast() || mapped || embedded(address).is_some_and(|v4| !global(v4)))
        }
    }
}

/// The IPv4 address in a 6to4 or well-known NAT64 address (RFC 3056, RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let four = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    match address.segments() {
        [0x2002, ..] => Some(four(2)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(four(12)),
        _ => None,
    }
}

fn global(address: Ipv4Addr) -> bool {
    may_send(address.into()) && !address.is_private() && !address.is_link_local()
}
