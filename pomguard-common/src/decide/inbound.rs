//! Rules for inbound datagrams.

use super::{
    Decision, Env,
    context::{Context, echo, is_error},
    link::link_service,
};
use crate::{
    Direction,
    image::{Class, Family, Miss, MissReason, switch},
    parse::{Datagram, Kind, tcp_flag},
    protocol,
    reason::Reason,
};

/// Judges an inbound datagram from a peer of this class. The word is a [`Decision`]. A separate function in
/// the programs.
#[inline(never)]
pub(super) fn inbound<E: Env>(datagram: &Datagram, env: &E, class: u32) -> u64 {
    let context = Context { hook: Direction::Inbound, datagram, env, class: Class(class) };
    if matches!(datagram.kind, Kind::Follower) { context.follower().0 } else { addressed_to_us(&context).0 }
}

/// Judges a datagram that is properly addressed to this host.
#[inline(always)]
fn addressed_to_us<E: Env>(context: &Context<'_, E>) -> Decision {
    let datagram = context.datagram;
    let icmp = matches!(datagram.kind, Kind::Icmp);
    let tcp = matches!(datagram.kind, Kind::Ports) && datagram.protocol == protocol::TCP;
    let syn = datagram.tcp_flags & tcp_flag::SYN != 0;
    let ack = datagram.tcp_flags & tcp_flag::ACK != 0;
    let (request, reply) = echo(datagram.family);
    // A SYN-ACK is always an answer. For ICMP, rows allow echo requests only.
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
        // A SYN answers nothing: without a row there is no flow to look up.
        if !(tcp && syn && !ack)
            && let Some(found) = context.flow()
        {
            context.heard(&found);
            return Decision::because(Reason::OwnFlow);
        }
        let opens = if tcp { syn && !ack } else { !icmp };
        if matches!(datagram.kind, Kind::Ports)
            && let Some(reason) = link_service(Direction::Inbound, datagram, context.image(), true)
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
    if let Some(reason) = link_service(Direction::Inbound, datagram, context.image(), true) {
        return Decision::because(reason);
    }
    if !icmp {
        return Decision::because(context.either(Reason::ProtocolKnown, Reason::Protocol))
            .not_enforced(audit);
    }
    let v6 = matches!(datagram.family, Family::V6);
    let redirect = !v6 && datagram.icmp_type == 5 && context.image().switch(switch::REDIRECTS);
    // Later fragments pass without a check of their class, so first fragments of a rate-limited class are
    // refused. A well-formed error fits into every link (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4), and
    // a fragmented ping needs a row.
    let whole = !datagram.fragment.is_part();
    if is_error(datagram) || redirect {
        return if whole { Decision(Decision::QUOTES) } else { Decision::because(Reason::Fragmented) };
    }
    if v6 && datagram.icmp_type == request && whole && context.image().switch(switch::ECHO_V6) {
        return Decision::because(Reason::EchoV6);
    }
    Decision::because(Reason::IcmpType).not_enforced(audit)
}
