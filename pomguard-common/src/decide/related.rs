//! ICMP errors, judged by the conversation that they quote.

use super::Tables;
use crate::{
    Direction,
    flow::{self, Key, Store},
    image::{Family, Lines, Tuple},
    packet::{Packet, be32},
    parse::{self, Datagram},
    protocol,
    reason::Reason,
};

/// Judges an ICMP error by the conversation it quotes. It changes nothing about that conversation.
/// A function of its own in the programs.
#[inline(never)]
pub(super) fn related<P, L, F, T>(
    hook: Direction,
    packet: &P,
    datagram: &Datagram,
    tables: &Tables<'_, L, F, T>,
) -> Reason
where
    P: Packet + ?Sized,
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let quoted = match parse::quoted(packet, datagram, tables.image.lines()) {
        Ok(quoted) => quoted,
        Err(reason) => return reason,
    };
    // RFC 8201 section 4: no IPv6 link is narrower than 1,280 bytes.
    if matches!((datagram.family, datagram.icmp_type), (Family::V6, 2)) {
        let Some(mtu) = packet.window::<4>(datagram.upper + 4) else { return Reason::IcmpUnrelated };
        if be32::<0, 4>(mtu) < 1_280 {
            return Reason::IcmpUnrelated;
        }
    }
    // Inbound the quoted packet is one that this host sent, outbound one that it received.
    let (ours, local, local_port, peer, peer_port) = match hook {
        Direction::Inbound => (
            quoted.source == datagram.destination,
            &quoted.source,
            quoted.source_port,
            &quoted.destination,
            quoted.destination_port,
        ),
        Direction::Outbound => (
            quoted.destination == datagram.source && quoted.source == datagram.destination,
            &quoted.destination,
            quoted.destination_port,
            &quoted.source,
            quoted.source_port,
        ),
    };
    if !ours {
        return Reason::IcmpUnrelated;
    }
    let conversation = Key::new(datagram.family, quoted.protocol, local, local_port, peer, peer_port);
    if flow::find(tables.flows, conversation).is_some() {
        return Reason::IcmpRelated;
    }
    let (port, client_port) = match quoted.protocol {
        protocol::TCP | protocol::UDP => (local_port, peer_port),
        other => (u16::from(other), 0),
    };
    let served = Tuple { direction: Direction::Inbound, protocol: quoted.protocol, port, client_port };
    let class = tables.image.class(datagram.family, peer);
    match tables.image.grant(class, &served) {
        Ok(_) => Reason::IcmpRelated,
        Err(_) => Reason::IcmpUnrelated,
    }
}
