//! TCP and UDP.

use pomguard_common::reason::Reason;

use super::{
    FAILSAFE, NO_DHCP, Section, TRACK, address, class,
    link::{allowed, ask, reply},
};
use crate::{
    packet::{
        Packet, Part, eth,
        flag::{ACK, FIN, RST, SYN},
    },
    reference::Places,
};

/// Returns a packet from a stranger to a port that nobody may use.
fn stray(places: &Places) -> Packet {
    eth().ip(places.stranger, places.host).tcp(40_000, 8_080)
}

/// Returns a packet from a known peer to a port that nobody may use.
fn known(places: &Places) -> Packet {
    eth().ip(places.office, places.host).tcp(40_000, 8_080)
}

/// Returns the database's answer to `ask`.
fn answer(places: &Places) -> Packet {
    ask(places).mirrored().flags(SYN | ACK)
}

pub(super) fn tcp() -> Section {
    let classes = vec![
        class("header below 20 bytes").both(
            "",
            Reason::Malformed,
            |at| offset(allowed(at), 0x40),
            |at| offset(ask(at), 0x40),
        ),
        class("header beyond the packet").both(
            "",
            Reason::Truncated,
            |at| offset(allowed(at), 0x60),
            |at| offset(ask(at), 0x60),
        ),
        class("flags that no flow has: none, SYN+FIN, SYN+RST, FIN alone, ...")
            .both("", Reason::TcpFlags, |at| allowed(at).flags(0), |at| ask(at).flags(0))
            .both("", Reason::TcpFlags, |at| allowed(at).flags(SYN | FIN), |at| ask(at).flags(SYN | RST))
            .both("", Reason::TcpFlags, |at| allowed(at).flags(FIN), |at| ask(at).flags(0xff))
            .reads("drop `tcp-flags`"),
        class("port 0").both(
            "",
            Reason::PortZero,
            |at| eth().ip(at.stranger, at.host).tcp(0, 443),
            |at| eth().ip(at.host, at.database).tcp(40_000, 0),
        ),
        class("SYN")
            .inbound("when a row allows it", Reason::Row, allowed)
            .inbound("", Reason::Failsafe, allowed)
            .with(FAILSAFE)
            .inbound("when only its source port is not allowed *a*", Reason::ClientPort, allowed)
            .with(super::Set {
                message: "",
                key: None,
                apply: |policy| {
                    policy.rows.iter_mut().for_each(|row| row.client_ports.last = 1_023);
                },
            })
            .inbound("when the port is served to others *k*", Reason::Source, |at| stranger_to(at, 22))
            .inbound("", Reason::SourceKnown, |at| eth().ip(at.resolver, at.host).tcp(40_000, 22))
            .inbound("otherwise *k*", Reason::Port, stray)
            .inbound("", Reason::PortKnown, known)
            .outbound("when a row allows it", Reason::Row, ask)
            .outbound("otherwise", Reason::Destination, |at| stray(at).mirrored())
            .outbound("otherwise", Reason::Untracked, |at| stray(at).mirrored())
            .with(TRACK),
        class("SYN-ACK")
            .inbound("of a flow that this host opened", Reason::OwnFlow, answer)
            .after_outbound(ask)
            .inbound("otherwise *k*", Reason::NoFlow, |at| allowed(at).flags(SYN | ACK))
            .inbound("", Reason::NoFlowKnown, answer)
            .outbound("when a row allows the SYN that it answers", Reason::PeerFlow, reply)
            .outbound("of a flow that this host opened", Reason::OwnFlow, |at| ask(at).flags(SYN | ACK))
            .after_outbound(ask)
            .outbound("otherwise", Reason::UnsolicitedReply, |at| stray(at).mirrored().flags(SYN | ACK)),
        class("any other segment")
            .inbound("when a row allows it", Reason::Row, |at| allowed(at).flags(ACK))
            .inbound("of a flow that this host opened", Reason::OwnFlow, |at| answer(at).flags(ACK))
            .after_outbound(ask)
            .inbound("otherwise *k*", Reason::NoFlow, |at| stray(at).flags(ACK))
            .inbound("", Reason::NoFlowKnown, |at| known(at).flags(RST))
            .outbound("when a row allows what it answers", Reason::PeerFlow, |at| reply(at).flags(FIN | ACK))
            .outbound("of a flow that this host opened", Reason::OwnFlow, |at| ask(at).flags(ACK))
            .after_outbound(ask)
            .outbound("when it could have opened one, which it enters anew", Reason::Row, |at| {
                ask(at).flags(ACK)
            })
            .outbound("otherwise", Reason::UnsolicitedReply, |at| stray(at).mirrored().flags(ACK))
            .audited_as(Reason::Destination),
    ];
    let after = "\
Accepted are SYN, SYN+ACK, RST, RST+ACK, FIN+ACK and ACK, and of these SYN, FIN+ACK and ACK also with URG. PSH, ECE and
CWR may join any of them. *a* holds for other segments, too. A segment other than a SYN-ACK that nothing asked for enters
a flow and passes in outbound track, as `leaves-unlisted`, and in outbound audit with inbound enforce, as
`destination`; not if its local port serves ([policy.md](policy.md)).";
    Section { title: "TCP", notes: ["", after], classes }
}

fn offset(packet: Packet, byte: u8) -> Packet {
    packet.poke(Part::Upper, 12, &[byte])
}

fn stranger_to(places: &Places, port: u16) -> Packet {
    eth().ip(places.stranger, places.host).tcp(40_000, port)
}

/// Returns a query of this host to a name server.
fn names(places: &Places) -> Packet {
    eth().ip(places.host, places.stranger).udp(40_000, 53)
}

/// Returns a query to this host that row A3 allows.
fn question(places: &Places) -> Packet {
    eth().ip(places.resolver, places.host).udp(40_000, 53)
}

fn nobody_serves(places: &Places) -> Packet {
    eth().ip(places.stranger, places.host).udp(40_000, 54)
}

/// Returns a lease from a server.
fn lease(places: &Places) -> Packet {
    if places.is_v6() {
        return eth().ip(address("fe80::7"), address("fe80::2")).udp(547, 546).payload(&[0; 8]);
    }
    eth().to([0xff; 6]).ip(places.elsewhere, address("255.255.255.255")).udp(67, 68).payload(&[0; 8])
}

/// Returns a client's request for a lease.
fn discover(places: &Places) -> Packet {
    if places.is_v6() {
        return eth().ip(address("fe80::2"), address("ff02::1:2")).udp(546, 547).payload(&[0; 8]);
    }
    eth().to([0xff; 6]).ip(address("0.0.0.0"), address("255.255.255.255")).udp(68, 67).payload(&[0; 8])
}

pub(super) fn udp() -> Section {
    let classes = vec![
        class("length below 8 or beyond the packet")
            .both("", Reason::Malformed, |at| length(question(at), 7), |at| length(names(at), 7))
            .both("", Reason::Malformed, |at| length(question(at), 9), |at| length(names(at), 9))
            .reads("drop `malformed`"),
        class("port 0").both("", Reason::PortZero, |at| eth().ip(at.resolver, at.host).udp(0, 53), |at| {
            eth().ip(at.host, at.stranger).udp(40_000, 0)
        }),
        class(
            "DHCP: server 67 to client 68, to this host or 255.255.255.255; DHCPv6: 547 to 546, from a link-local \
             address, to a link-local one or this host; outbound the other way, from this host, a link-local \
             address or none",
        )
        .both("", Reason::Dhcp, lease, discover)
        .inbound("", Reason::Broadcast, lease)
        .with(NO_DHCP)
        .last(|it| it.family = Some(false))
        .outbound("", Reason::SourceNotOurs, discover)
        .with(NO_DHCP)
        .reads("pass `dhcp`; by its addresses and ports with `dhcp` off"),
        class("any other datagram")
            .inbound("when a row allows it", Reason::Row, question)
            .inbound("of a flow that this host opened", Reason::OwnFlow, |at| names(at).mirrored())
            .after_outbound(names)
            .inbound("when the port is served to others *k*", Reason::Source, |at| eth().ip(at.stranger, at.host).udp(40_000, 53))
            .inbound("", Reason::SourceKnown, |at| eth().ip(at.office, at.host).udp(40_000, 53))
            .inbound("otherwise *k*", Reason::Port, nobody_serves)
            .inbound("", Reason::PortKnown, |at| eth().ip(at.office, at.host).udp(53, 40_000))
            .outbound("when a row allows what it answers", Reason::PeerFlow, |at| question(at).mirrored())
            .outbound("when a row allows it", Reason::Row, names)
            .outbound("of a flow that this host opened", Reason::OwnFlow, names)
            .after_outbound(names)
            .outbound("otherwise", Reason::Destination, |at| nobody_serves(at).mirrored())
            .outbound("otherwise", Reason::Untracked, |at| nobody_serves(at).mirrored())
            .with(TRACK),
    ];
    let after = "\
As for TCP, a datagram that only its source port keeps out is dropped as `client-port`. Inbound, a unicast lease message
to an address of ours meets rows and flows first.";
    Section { title: "UDP", notes: ["", after], classes }
}

fn length(packet: Packet, bytes: u8) -> Packet {
    packet.poke(Part::Upper, 4, &[0, bytes])
}
