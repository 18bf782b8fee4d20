//! ICMP errors, judged by the flow that they quote.

use super::{
    Decision, Env, ParsedSlot, Scratch,
    context::{Context, echo},
    key,
    overrides::allows,
};
use crate::{
    Direction,
    control::Matches,
    flow::{self, GRANDFATHERED, Store as _},
    image::{Address, Barrier, Family, Miss},
    packet::{Packet, be32},
    parse::{self, Datagram, Fragment, Kind, tcp_flag},
    protocol,
    reason::Reason,
};

/// Reads the packet that an ICMP error quotes, and stores it in the scratch as the original datagram. Returns
/// 0, or the number of the reason that decides the error. A separate function in the programs.
#[inline(never)]
pub(super) fn quote<P, M, D>(hook: Direction, packet: &P, datagram: &Datagram, memory: &M, scratch: &D) -> u8
where
    P: Packet + ?Sized,
    M: Barrier + ?Sized,
    D: Scratch,
{
    let quoted = match parse::quoted(packet, datagram, memory) {
        Ok(quoted) => quoted,
        Err(reason) => return reason as u8,
    };
    let unrelated = Reason::IcmpUnrelated as u8;
    // RFC 8201 section 4: no IPv6 link is narrower than 1,280 bytes.
    if matches!((datagram.family, datagram.icmp_type), (Family::V6, 2)) {
        let Some(mtu) = packet.window::<4>(datagram.upper + 4) else { return unrelated };
        if be32::<0, 4>(mtu) < 1_280 {
            return unrelated;
        }
    }
    // Inbound, this host sent the quoted packet; outbound, this host received it.
    let ours = match hook {
        Direction::Inbound => quoted.source == datagram.destination,
        Direction::Outbound => quoted.destination == datagram.source && quoted.source == datagram.destination,
    };
    if !ours {
        return unrelated;
    }
    // For ICMP, only quoted requests count. The TCP flags of the quoted packet do not matter.
    let ports = matches!(quoted.protocol, protocol::TCP | protocol::UDP);
    scratch.store(
        ParsedSlot::Embedded,
        Datagram {
            family: datagram.family,
            kind: if ports { Kind::Ports } else { Kind::Icmp },
            protocol: quoted.protocol,
            hop_limit: 0,
            tcp_flags: tcp_flag::ACK,
            icmp_type: echo(datagram.family).0,
            icmp_code: 0,
            group_mac: false,
            source: quoted.source,
            destination: quoted.destination,
            source_port: quoted.source_port,
            destination_port: quoted.destination_port,
            fragment: Fragment::WHOLE,
            upper: 0,
            end: 0,
        },
    );
    0
}

/// Looks up the flow that an ICMP error quotes in the flow table and the policy in force, and changes
/// nothing. Returns bits of [`related_flags`]. A separate function in the programs.
#[inline(never)]
pub(super) fn related<E: Env>(hook: Direction, quoted: &Datagram, env: &E) -> u64 {
    let (seen, peer) = seen(hook, quoted);
    let mut bits = 0;
    if let Some(found) = flow::find(env.flows(), key(seen, quoted)) {
        if found.epoch == env.image().generation() || found.epoch == GRANDFATHERED {
            return env.image().lines().barrier(related_flags::KNOWN | related_flags::ALLOWED);
        }
        bits = related_flags::KNOWN;
    }
    let class = env.image().class(quoted.family, peer);
    let context = Context { hook: seen, datagram: quoted, env, class };
    // The flow may have ended with its permission. The error does not record this: a packet of the flow does.
    if bits != 0 && context.still_allowed().is_some() {
        return env.image().lines().barrier(bits | related_flags::ALLOWED);
    }
    bits |= match context.row_match(Direction::Inbound) {
        Ok(_) => related_flags::ALLOWED,
        Err(Miss { audit: true, .. }) => related_flags::IN_AUDIT,
        Err(_) => 0,
    };
    env.image().lines().barrier(bits)
}

/// Flags that say how the policy treats a quoted flow.
mod related_flags {
    /// This host opened the flow. The permission of the flow may have ended.
    pub(super) const KNOWN: u64 = 1;
    /// This host opened the flow and the policy in force allows it, or an inbound row does.
    pub(super) const ALLOWED: u64 = 2;
    /// An inbound row in audit names the port: the packet passes, whoever the peer is.
    pub(super) const IN_AUDIT: u64 = 4;
}

/// Returns the direction in which the quoted packet went, and the address of the peer.
#[inline(always)]
const fn seen(hook: Direction, quoted: &Datagram) -> (Direction, &Address) {
    match hook {
        Direction::Inbound => (Direction::Outbound, &quoted.destination),
        Direction::Outbound => (Direction::Inbound, &quoted.source),
    }
}

/// Judges an ICMP error by the policy's result for the quoted flow, and by the overrides. The word is a
/// [`Decision`]. A separate function in the programs.
#[inline(never)]
pub(super) fn related_by<E: Env>(hook: Direction, quoted: &Datagram, env: &E, by_policy: u64) -> u64 {
    let isolated = env.isolated();
    if by_policy & related_flags::ALLOWED != 0 && !isolated {
        return Decision::because(Reason::IcmpRelated).0;
    }
    let (seen, _) = seen(hook, quoted);
    let matches = Matches(allows(seen, quoted, env.image().lines(), env.flows().now(), isolated));
    let (serves, uses) = match hook {
        Direction::Inbound => (matches.second(), matches.first()),
        Direction::Outbound => (matches.first(), matches.second()),
    };
    if serves.is_some() || by_policy & related_flags::KNOWN != 0 && uses.is_some() {
        return Decision::because(Reason::IcmpRelated).0;
    }
    let audit = by_policy & related_flags::IN_AUDIT != 0 && !isolated;
    Decision::because(Reason::IcmpUnrelated).not_enforced(audit).0
}
