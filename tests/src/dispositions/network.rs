//! The IP header, the headers between it and its payload, and fragments.

use std::net::IpAddr;

use pomguard_common::reason::Reason;

use super::{
    Section, class,
    link::{allowed, ask, reply},
};
use crate::{
    packet::{Packet, Part, eth, extension},
    reference::Places,
};

fn behind(packet: fn(Packet) -> Packet, inbound: bool, places: &Places) -> Packet {
    if inbound {
        packet(eth().ip(places.stranger, places.host)).tcp(40_000, 443)
    } else {
        packet(eth().ip(places.host, places.database)).tcp(40_000, 5_432)
    }
}

macro_rules! behind {
    ($class:expr, $reason:expr, $packet:expr) => {
        $class.both("", $reason, |at| behind($packet, true, at), |at| behind($packet, false, at))
    };
}

fn many(count: usize, packet: Packet) -> Packet {
    (0..count).fold(packet, |packet, _| packet.ext_header(extension::DESTINATION, &[1, 4]))
}

pub(super) fn headers() -> Section {
    let classes = vec![
        class("IPv4: another version, a header below 20 bytes, a total length below the header")
            .both("", Reason::Malformed, |at| first(allowed(at), 0x65), |at| first(ask(at), 0x65))
            .both("", Reason::Malformed, |at| first(allowed(at), 0x44), |at| first(ask(at), 0x44))
            .both("", Reason::Malformed, |at| allowed(at).announcing(19), |at| ask(at).announcing(19))
            .v4()
            .reads("drop `malformed`"),
        behind!(class("IPv4 options"), Reason::IpOptions, |it| it.ip_options(&[7, 7, 4, 0, 0, 0, 0]))
            .both("", Reason::IpOptions, |at| behind(nop, true, at), |at| behind(nop, false, at))
            .both("", Reason::IpOptions, |at| behind(lsrr, true, at), |at| behind(lsrr, false, at))
            .v4()
            .reads("drop `ip-options`"),
        class("IPv4 Router Alert as the only option, in IGMP")
            .both("", Reason::Multicast, |at| query(at.elsewhere), |at| query(at.host))
            .v4()
            .reads("judged as IGMP"),
        class("IPv6: another version, payload length 0, jumbograms")
            .both("", Reason::Malformed, |at| first(allowed(at), 0x45), |at| first(ask(at), 0x45))
            .both("", Reason::Malformed, |at| allowed(at).announcing(0), |at| ask(at).announcing(0))
            .v6()
            .reads("drop `malformed`"),
        behind!(class("IPv6 hop-by-hop options that do not come first"), Reason::ExtensionHeader, |it| {
            it.ext_header(extension::DESTINATION, &[1, 4]).ext_header(extension::HOP_BY_HOP, &[1, 4])
        })
        .v6(),
        behind!(
            class("IPv6 routing header of type 0, 2 or 4, or with segments left"),
            Reason::ExtensionHeader,
            |it| it.ext_header(extension::ROUTING, &[0, 0])
        )
        .both("", Reason::ExtensionHeader, |at| behind(left, true, at), |at| behind(left, false, at))
        .v6()
        .reads("drop `extension-header`"),
        behind!(
            class("more than 16 IPv6 extension headers, or headers beyond 2,048 bytes"),
            Reason::ExtensionLimit,
            |it| many(17, it)
        )
        .both("", Reason::ExtensionLimit, |at| behind(long, true, at), |at| behind(long, false, at))
        .v6()
        .reads("drop `extension-limit`"),
        behind!(class("up to 16 hop-by-hop, destination and other routing headers"), Reason::Row, |it| many(
            15,
            it.ext_header(extension::HOP_BY_HOP, &[1, 4])
        ))
        .v6()
        .reads("judged by what they carry"),
        class("ESP, AH, no next header, mobility, HIP, Shim6, unknown next headers")
            .both("", Reason::Protocol, |at| bare(at, 50), |at| bare(at, 50).mirrored())
            .last(|it| it.reason = Reason::Destination)
            .both("", Reason::Protocol, |at| bare(at, 59), |at| bare(at, 139).mirrored())
            .last(|it| it.reason = Reason::Destination)
            .v6()
            .reads("judged as other protocols"),
        class("longer than the frame").both(
            "",
            Reason::Truncated,
            |at| allowed(at).announcing(900),
            |at| ask(at).announcing(900),
        ),
        class("padding behind the IP packet")
            .both("", Reason::Row, |at| allowed(at).pad(&[9; 30]), |at| ask(at).pad(&[9; 30]))
            .reads("ignored"),
    ];
    let after = "\
Checksums are not verified: the server's own stack does that.

**BIG TCP.** The kernel can hold more than 65,535 bytes of TCP segments in one packet (`gso_max_size`, `gro_max_size`).
Its length field is 0 then, and IPv6 may have a hop-by-hop header with the jumbo option before TCP. Such a packet is judged
as the one TCP segment that its headers show. A length of 0 counts only in a frame with more than 65,535 bytes of
TCP; at TC the kernel must also say that the packet holds segments (`gso_size`). A shorter frame with length 0 is
`malformed`. So are jumbograms (RFC 2675) of a wire. Counters count such a packet once, not its segments.";
    Section { title: "The IP header", notes: ["", after], classes }
}

fn first(packet: Packet, byte: u8) -> Packet {
    packet.poke(Part::Network, 0, &[byte])
}

fn nop(packet: Packet) -> Packet {
    packet.ip_options(&[1; 4])
}

fn lsrr(packet: Packet) -> Packet {
    packet.ip_options(&[0x83, 7, 8, 10, 9, 0, 9])
}

fn left(packet: Packet) -> Packet {
    packet.ext_header(extension::ROUTING, &[253, 1])
}

fn long(packet: Packet) -> Packet {
    (0..9).fold(packet, |packet, _| packet.ext_header(extension::DESTINATION, &[1; 254]))
}

fn bare(places: &Places, number: u8) -> Packet {
    eth().ip(places.stranger, places.host).protocol(number).payload(&[0; 40])
}

/// Returns a membership query to all members of groups.
fn query(from: IpAddr) -> Packet {
    let group = if from.is_ipv6() { "ff02::1" } else { "224.0.0.1" };
    let packet = eth().ip(from, super::address(group)).hops(1);
    packet.ip_options(&[0x94, 4, 0, 0]).protocol(2).payload(&[0; 8])
}

/// Returns the first or a later fragment of a datagram that a row allows.
fn piece(places: &Places, inbound: bool, offset: u16, more: bool, length: usize) -> Packet {
    let (from, to) = if inbound { (places.resolver, places.host) } else { (places.host, places.database) };
    let packet = eth().ip(from, to).fragment(9, offset, more);
    if offset > 0 {
        packet.protocol(17).payload(&vec![0; length])
    } else {
        packet.udp(40_000, 53).payload(&vec![0; length.saturating_sub(8)])
    }
}

fn tcp_piece(places: &Places, inbound: bool, offset: u16, more: bool, length: usize) -> Packet {
    let (from, to) = if inbound { (places.stranger, places.host) } else { (places.host, places.database) };
    eth().ip(from, to).fragment(9, offset, more).protocol(6).payload(&vec![0x50; length])
}

pub(super) fn fragments() -> Section {
    let head = |at: &Places| piece(at, true, 0, true, 16);
    let classes = vec![
        class("first fragment that holds the whole upper header")
            .both("", Reason::Row, head, |at| piece(at, false, 0, true, 16))
            .reads("judged as if whole; when it passes, its train is remembered for 60 s"),
        class("first fragment too small for the upper header (IPv6: for the header chain)").both(
            "",
            Reason::Fragmented,
            |at| tcp_piece(at, true, 0, true, 16),
            |at| tcp_piece(at, false, 0, true, 16),
        ),
        class("not a multiple of 8 bytes, or empty, though more follow")
            .both(
                "",
                Reason::Fragmented,
                |at| piece(at, true, 0, true, 17),
                |at| piece(at, false, 16, true, 9),
            )
            .both(
                "",
                Reason::Fragmented,
                |at| piece(at, true, 16, true, 0),
                |at| piece(at, false, 16, true, 0),
            )
            .reads("drop `fragment-refused`"),
        class("ends beyond 65,535 bytes").both(
            "",
            Reason::Fragmented,
            |at| piece(at, true, 65_528, false, 8),
            |at| piece(at, false, 65_528, false, 8),
        ),
        class("TCP at offset 8").both(
            "",
            Reason::Fragmented,
            |at| tcp_piece(at, true, 8, false, 16),
            |at| tcp_piece(at, false, 8, false, 16),
        ),
        class("a second IPv6 fragment header")
            .both("", Reason::Fragmented, |at| twice(at, true), |at| twice(at, false))
            .v6(),
        class("later fragment whose first one passed, overlapping or not")
            .inbound("", Reason::Fragment, |at| piece(at, true, 16, true, 8))
            .after_inbound(head)
            .outbound("", Reason::Fragment, |at| piece(at, false, 16, false, 9))
            .after_outbound(|at| piece(at, false, 0, true, 16)),
        class("later fragment otherwise, also one that comes before its first").both(
            "",
            Reason::FragmentUnknown,
            |at| piece(at, true, 16, true, 8),
            |at| piece(at, false, 16, false, 9),
        ),
        class("IPv6 atomic fragment")
            .both("", Reason::Row, |at| piece(at, true, 0, false, 16), |at| piece(at, false, 0, false, 16))
            .v6()
            .reads("judged as whole"),
    ];
    let after = "A fragment is never a service of the link.";
    Section { title: "Fragments", notes: ["", after], classes }
}

fn twice(places: &Places, inbound: bool) -> Packet {
    let packet = if inbound { eth().ip(places.stranger, places.host) } else { reply(places) };
    packet.fragment(9, 0, true).fragment(9, 0, true).payload(&[0; 24])
}
