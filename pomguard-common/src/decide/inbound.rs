//! What comes in.

use super::{
    Decision, Tables,
    address::{group, impossible_source, mapped, unspecified},
    context::{Context, echo, is_error},
    link::link_service,
};
use crate::{
    Direction,
    flow::Store,
    image::{Family, Lines, Miss, MissReason, switch},
    parse::{Datagram, Kind, tcp_flag},
    protocol,
    reason::Reason,
};

/// Rules on a datagram that comes in; the word is a [`Decision`]. A function of its own in the programs.
#[inline(never)]
pub(super) fn inbound<L, F, T>(datagram: &Datagram, tables: &Tables<'_, L, F, T>) -> u64
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    rule_inbound(datagram, tables).0
}

#[inline(always)]
fn rule_inbound<L, F, T>(datagram: &Datagram, tables: &Tables<'_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let image = tables.image;
    let family = datagram.family;
    let class = image.class(family, &datagram.source);
    let context = Context { hook: Direction::Inbound, datagram, tables, class };
    if matches!(family, Family::V6) && (mapped(&datagram.source) || mapped(&datagram.destination)) {
        return Decision::because(Reason::MappedAddress);
    }
    // Duplicate address detection and MLD start from the unspecified address.
    let newborn = matches!(family, Family::V6) && unspecified(&datagram.source);
    let impossible = impossible_source(family, &datagram.source) && !newborn;
    if impossible || image.is_local(family, &datagram.source) {
        return Decision::because(Reason::SpoofedSource);
    }
    if newborn || !image.is_local(family, &datagram.destination) {
        return Decision::because(match link_service(Direction::Inbound, datagram, image) {
            Some(reason) => reason,
            None if newborn => Reason::SpoofedSource,
            None if group(family, &datagram.destination) => Reason::Broadcast,
            None => Reason::NotLocal,
        });
    }
    // A broadcast frame has no business with a unicast address (RFC 1122 section 3.3.6).
    if datagram.group_mac {
        return Decision::because(Reason::Broadcast);
    }
    if matches!(datagram.kind, Kind::Follower) {
        return context.follower();
    }
    addressed_to_us(&context)
}

/// Judges what is properly addressed to this host.
#[inline(always)]
fn addressed_to_us<L, F, T>(context: &Context<'_, '_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let datagram = context.datagram;
    let icmp = matches!(datagram.kind, Kind::Icmp);
    let tcp = matches!(datagram.kind, Kind::Ports) && datagram.protocol == protocol::TCP;
    let syn = datagram.tcp_flags & tcp_flag::SYN != 0;
    let ack = datagram.tcp_flags & tcp_flag::ACK != 0;
    let (request, reply) = echo(datagram.family);
    // A SYN-ACK is only ever an answer. Of ICMP a row grants echo requests.
    let by_row = if icmp { datagram.icmp_type == request } else { !(syn && ack) };
    let mut miss = Miss::NO_SERVICE;
    if by_row {
        match context.row_match(Direction::Inbound) {
            Ok(row_match) => return Decision::by_row(row_match).opening(tcp && syn),
            Err(why) => miss = why,
        }
    }
    let Miss { miss_reason, audit } = miss;
    if matches!(miss_reason, MissReason::Broken) {
        return Decision::because(Reason::Internal);
    }
    if matches!(datagram.kind, Kind::Ports) || icmp && datagram.icmp_type == reply {
        // A SYN answers nothing: without a row there is nothing to look up.
        if !(tcp && syn && !ack)
            && let Some(found) = context.flow()
        {
            context.heard(&found);
            return Decision::because(Reason::OwnFlow);
        }
        let opens = if tcp { syn && !ack } else { !icmp };
        if matches!(datagram.kind, Kind::Ports)
            && let Some(reason) = link_service(Direction::Inbound, datagram, context.image())
        {
            return Decision::because(reason);
        }
        return Decision::because(match miss_reason {
            MissReason::ClientPort => Reason::ClientPort,
            MissReason::Peer if opens => context.either(Reason::SourceKnown, Reason::Source),
            _ if opens => context.either(Reason::PortKnown, Reason::Port),
            _ => context.either(Reason::NoFlowKnown, Reason::NoFlow),
        })
        .not_enforced(audit);
    }
    if let Some(reason) = link_service(Direction::Inbound, datagram, context.image()) {
        return Decision::because(reason);
    }
    if !icmp {
        return Decision::because(context.either(Reason::ProtocolKnown, Reason::Protocol))
            .not_enforced(audit);
    }
    let v6 = matches!(datagram.family, Family::V6);
    let redirect = !v6 && datagram.icmp_type == 5 && context.image().switch(switch::REDIRECTS);
    // Followers pass without a look at their class, so a class with a rate admits no first fragment. An honest
    // error fits into every link (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4), and a ping in fragments
    // needs a row.
    let whole = !datagram.fragment.is_part();
    if is_error(datagram) || redirect {
        return if whole { Decision(Decision::QUOTES) } else { Decision::because(Reason::Fragmented) };
    }
    if v6 && datagram.icmp_type == request && whole && context.image().switch(switch::ECHO_V6) {
        return Decision::because(Reason::EchoV6);
    }
    Decision::because(Reason::IcmpType).not_enforced(audit)
}
