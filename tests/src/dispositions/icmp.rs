//! ICMP and ICMPv6, by type.

use pomguard::policy::{Direction, PortRange};
use pomguard_common::{
    protocol::{ICMP, ICMPV6},
    reason::Reason,
};

use super::{
    Class, NO_ECHO_V6, NO_MEMBERSHIP, REDIRECTS, Section, Set, TRACK, address, class,
    link::{allowed, ask},
};
use crate::{
    packet::{Packet, eth, extension},
    reference::{Places, row},
};

/// Rows that allow echo requests from everybody to this host, and from this host to everybody.
const ECHO_ROWS: Set = Set {
    message: "",
    key: None,
    apply: |policy| {
        for (direction, id) in [(Direction::Inbound, "I"), (Direction::Outbound, "O")] {
            policy.rows.push(row(id, direction, &["0.0.0.0/0"], ICMP, PortRange::ANY));
            policy.rows.push(row(id, direction, &["::/0"], ICMPV6, PortRange::ANY));
            if let [.., v4, v6] = &mut policy.rows[..] {
                v4.id.0.push_str("/4");
                v6.id.0.push_str("/6");
            }
        }
    },
};

fn ping(places: &Places) -> Packet {
    let (kind, _) = kinds(places);
    eth().ip(places.stranger, places.host).icmp(kind, 0).rest(7 << 16)
}

fn pong(places: &Places) -> Packet {
    let (_, kind) = kinds(places);
    eth().ip(places.stranger, places.host).icmp(kind, 0).rest(7 << 16)
}

const fn kinds(places: &Places) -> (u8, u8) {
    if places.is_v6() { (128, 129) } else { (8, 0) }
}

/// Returns an ICMP error about a packet that this host sent or received.
fn about(places: &Places, kind: u8, quoted: &Packet) -> Packet {
    eth().ip(places.elsewhere, places.host).icmp(kind, 0).rest(1_400).payload(&quoted.quoted())
}

fn complains(places: &Places, kind: u8, quoted: &Packet) -> Packet {
    eth().ip(places.host, places.stranger).icmp(kind, 0).rest(1_400).payload(&quoted.quoted())
}

/// Returns the first fragment of a message.
fn in_pieces(packet: &Packet) -> Packet {
    packet.cut(7, &[24]).remove(0)
}

fn kind(places: &Places) -> u8 {
    if places.is_v6() { 2 } else { 3 }
}

/// Returns the class of ICMP errors, whose quoted packet decides.
fn errors(packet: &'static str) -> Class {
    class(packet)
        .inbound("when it quotes a flow that this host opened", Reason::IcmpRelated, |at| {
            about(at, kind(at), &ask(at))
        })
        .after_outbound(ask)
        .inbound("when it quotes an answer to what a row allows", Reason::IcmpRelated, |at| {
            about(at, kind(at), &allowed(at).mirrored())
        })
        .inbound("in fragments", Reason::Fragmented, |at| in_pieces(&about(at, kind(at), &ask(at))))
        .after_outbound(ask)
        .inbound("otherwise", Reason::IcmpUnrelated, |at| about(at, kind(at), &ask(at)))
        .inbound("otherwise", Reason::IcmpUnrelated, |at| about(at, kind(at), &allowed(at)))
        .outbound("when it quotes what a row allows", Reason::IcmpRelated, |at| {
            complains(at, kind(at), &allowed(at))
        })
        .outbound("otherwise", Reason::IcmpUnrelated, |at| {
            complains(at, kind(at), &eth().ip(at.stranger, at.host).udp(40_000, 99))
        })
}

/// Returns the class of echo replies in both families: inbound replies to outbound requests.
fn echo_reply() -> Class {
    class("echo reply")
        .inbound("of a flow that this host opened", Reason::OwnFlow, pong)
        .after_outbound(|at| ping(at).mirrored())
        .with(ECHO_ROWS)
        .inbound("otherwise *k*", Reason::NoFlow, pong)
        .inbound("", Reason::NoFlowKnown, |at| eth().ip(at.office, at.host).icmp(kinds(at).1, 0))
}

pub(super) fn v4() -> Section {
    let classes = vec![
        class("shorter than 8 bytes")
            .both(
                "",
                Reason::Truncated,
                |at| ping(at).truncate(41).announcing(27),
                |at| ping(at).mirrored().truncate(41).announcing(27),
            )
            .v4(),
        class("echo request")
            .inbound("when a row allows it", Reason::Row, ping)
            .with(ECHO_ROWS)
            .inbound("otherwise", Reason::IcmpType, ping)
            .outbound("when a row allows it", Reason::Row, |at| ping(at).mirrored())
            .with(ECHO_ROWS)
            .outbound("otherwise", Reason::Destination, |at| ping(at).mirrored())
            .outbound("otherwise", Reason::Untracked, |at| ping(at).mirrored())
            .with(TRACK)
            .v4(),
        echo_reply()
            .outbound("when a row allows the request", Reason::PeerFlow, |at| pong(at).mirrored())
            .with(ECHO_ROWS)
            .outbound("otherwise", Reason::UnsolicitedReply, |at| pong(at).mirrored())
            .v4(),
        errors("unreachable (path MTU too: 3, code 4), time exceeded (11), parameter problem (12)").v4(),
        class("redirect (5)")
            .inbound("", Reason::IcmpType, |at| about(at, 5, &ask(at)))
            .after_outbound(ask)
            .inbound("", Reason::IcmpRelated, |at| about(at, 5, &ask(at)))
            .after_outbound(ask)
            .with(REDIRECTS)
            .outbound("", Reason::IcmpType, |at| complains(at, 5, &allowed(at)))
            .outbound("", Reason::Untracked, |at| complains(at, 5, &allowed(at)))
            .with(TRACK)
            .v4()
            .reads("drop `icmp-type`; like an error with `redirects` on")
            .reads_outbound("drop `icmp-type`; pass `leaves-unlisted` in track"),
        class("any other: source quench, timestamp, information, mask, router discovery, unknown types")
            .inbound("", Reason::IcmpType, |at| about(at, 4, &ask(at)))
            .inbound("", Reason::IcmpType, |at| about(at, 13, &ask(at)))
            .inbound("", Reason::IcmpType, |at| about(at, 200, &ask(at)))
            .outbound("", Reason::IcmpType, |at| complains(at, 14, &allowed(at)))
            .outbound("", Reason::Untracked, |at| complains(at, 17, &allowed(at)))
            .with(TRACK)
            .v4(),
    ];
    let after = "\
The quoted packet must show its addresses, protocol and ports, or the identifier of an echo request; inbound it must be
one that this host sent. An error changes nothing about the flow.";
    Section { title: "ICMP", notes: ["", after], classes }
}

/// Returns a message from a neighbour to this host or to a group.
fn near(kind: u8, hops: u8) -> Packet {
    eth().ip(address("fe80::7"), address("fd00:9::2")).hops(hops).icmp(kind, 0).payload(&[0; 16])
}

/// Returns a message from this host to a group.
fn ours(kind: u8, hops: u8) -> Packet {
    eth().ip(address("fe80::2"), address("ff02::1")).hops(hops).icmp(kind, 0).payload(&[0; 16])
}

fn alert(from: &str, kind: u8) -> Packet {
    let packet = eth().ip(address(from), address("ff02::16")).hops(1);
    packet.ext_header(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]).icmp(kind, 0).payload(&[0; 16])
}

fn coded(kind: u8) -> Packet {
    eth().ip(address("fe80::7"), address("fd00:9::2")).hops(255).icmp(kind, 1).payload(&[0; 16])
}

pub(super) fn v6() -> Section {
    let classes = vec![
        class("133 to 137, 141, 142, 148, 149 with a code other than 0")
            .both("", Reason::IcmpType, |_| coded(135), |_| coded(136)),
        class("those but 133 and 135 from `::`")
            .each_way(Reason::SpoofedSource, |_| eth().ip(address("::"), address("ff02::1")).hops(255).icmp(136, 0)),
        class("router and neighbour solicitation (133, 135), hop limit 255")
            .both("", Reason::Neighbour, |_| near(133, 255), |_| ours(133, 255))
            .both("", Reason::Neighbour, |_| near(135, 255), |_| ours(135, 255))
            .reads("pass `neighbour-discovery`"),
        class("neighbour advertisement, inverse neighbour discovery (136, 141, 142), hop limit 255")
            .both("", Reason::Neighbour, |_| near(136, 255), |_| ours(136, 255))
            .both("", Reason::Neighbour, |_| near(141, 255), |_| ours(142, 255))
            .reads("pass `neighbour-discovery`"),
        class("router advertisement (134), hop limit 255")
            .both("from a link-local address", Reason::Neighbour, |_| near(134, 255), |_| ours(134, 255))
            .both("from another", Reason::SpoofedSource, |_| router(), |_| router().mirrored()),
        class("133 to 136, 141, 142 with a lower hop limit")
            .both("", Reason::HopLimit, |_| near(135, 254), |_| ours(136, 64)),
        class("redirect (137)")
            .both("", Reason::IcmpType, |_| near(137, 255), |_| ours(137, 255))
            .both("from a link-local address, hop limit 255,", Reason::Neighbour, |_| near(137, 255), |_| ours(137, 255))
            .both_with(REDIRECTS)
            .both("", Reason::IcmpType, |_| near(137, 254), |_| ours(137, 254))
            .both_with(REDIRECTS)
            .reads(
                "drop `icmp-type`; pass `neighbour-discovery` from a link-local address with hop limit 255 with \
                 `redirects` on",
            ),
        class("MLD (130, 131, 132, 143), hop limit 1, from a link-local address or `::`")
            .both("", Reason::Multicast, |_| alert("fe80::7", 130), |_| alert("fe80::2", 143))
            .both("", Reason::IcmpType, |_| alert("fe80::7", 131), |_| alert("::", 143))
            .both_with(NO_MEMBERSHIP),
        class("MLD otherwise").both("", Reason::IcmpType, |_| near(130, 255), |_| alert("fd00:9::2", 143)),
        class("secure neighbour discovery (148, 149) with hop limit 255, multicast router discovery (151 to 153) with hop limit 1")
            .both("", Reason::IcmpControl, |_| near(148, 255), |_| ours(149, 255))
            .both("", Reason::IcmpControl, |_| near(151, 1), |_| ours(153, 1))
            .reads("pass `icmp-control`"),
        class("echo request")
            .inbound("when a row allows it", Reason::Row, ping)
            .with(ECHO_ROWS)
            .inbound("otherwise", Reason::EchoV6, ping)
            .inbound("in fragments, which need a row", Reason::IcmpType, |at| {
                in_pieces(&ping(at).payload(&[0; 64]))
            })
            .inbound("otherwise", Reason::IcmpType, ping)
            .with(NO_ECHO_V6)
            .outbound("when a row allows it", Reason::Row, |at| ping(at).mirrored())
            .with(ECHO_ROWS)
            .outbound("otherwise", Reason::Destination, |at| ping(at).mirrored())
            .outbound("otherwise", Reason::Untracked, |at| ping(at).mirrored())
            .with(TRACK),
        echo_reply()
            .outbound("", Reason::PeerFlow, |at| pong(at).mirrored())
            .outbound("without a row for the request", Reason::UnsolicitedReply, |at| pong(at).mirrored())
            .with(NO_ECHO_V6),
        errors("unreachable (1), packet too big (2), time exceeded (3), parameter problem (4)"),
        class("packet too big with an MTU below 1,280")
            .inbound("", Reason::IcmpUnrelated, |at| about(at, 2, &ask(at)).rest(1_279))
            .after_outbound(ask)
            .outbound("", Reason::IcmpUnrelated, |at| complains(at, 2, &allowed(at)).rest(1_279)),
        class("any other: 100 to 127, 138 to 140, 144 to 147, 150, 154 and above")
            .inbound("", Reason::IcmpType, |at| about(at, 138, &ask(at)))
            .inbound("", Reason::IcmpType, |_| near(155, 255))
            .inbound("", Reason::IcmpType, |_| near(100, 255))
            .outbound("", Reason::IcmpType, |at| complains(at, 139, &allowed(at)))
            .outbound("", Reason::Untracked, |at| complains(at, 144, &allowed(at)))
            .with(TRACK),
    ];
    let classes = classes.into_iter().map(Class::v6).collect();
    Section { title: "ICMPv6", notes: ["", ""], classes }
}

fn router() -> Packet {
    eth().ip(address("fd00:9::1"), address("fd00:9::2")).hops(255).icmp(134, 0).payload(&[0; 16])
}
