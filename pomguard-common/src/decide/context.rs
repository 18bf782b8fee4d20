//! One datagram under judgement, and the questions that both directions ask about it.

use super::{Decision, Env, NO_ROW, fragment_key, key};
use crate::{
    Direction,
    flow::{self, Found, Store as _},
    image::{Class, Family, Image, Miss, RowMatch, Tuple},
    parse::{Datagram, Kind, tcp_flag},
    protocol,
    reason::Reason,
    serve,
};

/// Returns true for an ICMP error that must reach the sender of the quoted packet. Returns false for any
/// other message.
#[inline(always)]
pub(super) const fn is_error(datagram: &Datagram) -> bool {
    match datagram.family {
        // Unreachable, time exceeded, parameter problem.
        Family::V4 => matches!(datagram.icmp_type, 3 | 11 | 12),
        // Unreachable, packet too big, time exceeded, parameter problem.
        Family::V6 => matches!(datagram.icmp_type, 1..=4),
    }
}

/// Returns the types of an echo request and of an echo reply.
#[inline(always)]
pub(super) const fn echo(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    }
}

/// Returns the tuple of the datagram, assuming that its flow was opened in direction `opened`.
#[inline(always)]
pub(super) const fn tuple(hook: Direction, datagram: &Datagram, opened: Direction) -> Tuple {
    let Datagram { protocol, source_port, destination_port, .. } = *datagram;
    let (peer_port, local_port) = match hook {
        Direction::Inbound => (source_port, destination_port),
        Direction::Outbound => (destination_port, source_port),
    };
    let (port, client_port) = match (datagram.kind, opened) {
        (Kind::Ports, Direction::Inbound) => (local_port, peer_port),
        (Kind::Ports, Direction::Outbound) => (peer_port, local_port),
        _ => (protocol as u16, 0),
    };
    Tuple { direction: opened, protocol, port, client_port }
}

/// Returns two booleans: true if the datagram may open a flow or continue one that the sender of the datagram
/// opened; true if the datagram may answer in a flow that the other side opened.
///
/// A SYN-ACK only answers, and a SYN never answers. ICMP requests open, and ICMP replies answer.
#[inline(always)]
pub(super) const fn opens_and_answers(datagram: &Datagram) -> (bool, bool) {
    match datagram.kind {
        Kind::Icmp => {
            let (request, reply) = echo(datagram.family);
            (datagram.icmp_type == request, datagram.icmp_type == reply)
        }
        Kind::Ports if datagram.protocol == protocol::TCP => {
            let syn = datagram.tcp_flags & tcp_flag::SYN != 0;
            let ack = datagram.tcp_flags & tcp_flag::ACK != 0;
            (!(syn && ack), !syn || ack)
        }
        Kind::Ports => (true, true),
        Kind::Follower => (false, false),
        Kind::Other => (true, false),
    }
}

/// The inputs of every ruling on one datagram.
pub(super) struct Context<'a, E: Env> {
    pub(super) hook: Direction,
    pub(super) datagram: &'a Datagram,
    pub(super) env: &'a E,
    /// Class of the peer. Looked up once, before everything else: the look-up is costly, and the verifier
    /// explores a single call site only once.
    pub(super) class: Class,
}

impl<E: Env> Context<'_, E> {
    #[inline(always)]
    pub(super) fn image(&self) -> &Image<'_, E::Lines> {
        self.env.image()
    }

    /// Returns `known` if the site file knows the peer, else `stranger`.
    #[inline(always)]
    pub(super) const fn either(&self, known: Reason, stranger: Reason) -> Reason {
        if self.class.known() { known } else { stranger }
    }

    /// Returns the row that allows the peer and this host to talk in a connection opened in direction
    /// `opened`.
    #[inline(always)]
    pub(super) fn row_match(&self, opened: Direction) -> Result<RowMatch, Miss> {
        self.image().row_match(self.class, &tuple(self.hook, self.datagram, opened))
    }

    /// Looks up the flow, and returns it if the policy in force still allows it.
    ///
    /// An entry keeps the generation that judged it (its epoch). If another generation is in force, this
    /// function judges the flow again, once. A flow that the new policy does not allow ends with the next
    /// packet of either side.
    #[inline(always)]
    pub(super) fn flow(&self) -> Option<Found> {
        let found = flow::find(self.env.flows(), key(self.hook, self.datagram))?;
        let generation = self.image().generation();
        if found.epoch == generation || found.epoch == flow::GRANDFATHERED {
            return Some(found);
        }
        let row = self.still_allowed()?;
        flow::set_epoch(self.env.flows(), &found, row, generation);
        Some(Found { row, epoch: generation, ..found })
    }

    /// Returns the row by which the policy in force allows the flow of the datagram, if this host opened the
    /// flow; [`NO_ROW`] if the flow goes on without a row. Returns `None` if the flow has ended.
    #[inline(always)]
    pub(super) fn still_allowed(&self) -> Option<u16> {
        match self.row_match(Direction::Outbound) {
            Ok(row_match) => Some(row_match.row),
            Err(Miss { audit, .. }) if audit || self.env.keeps_unlisted() => Some(NO_ROW),
            Err(_) => None,
        }
    }

    /// Returns true if the local port of an outbound datagram serves (see [`serve`]). For a protocol without
    /// ports, asks for the protocol.
    #[inline(always)]
    pub(super) fn serves(&self) -> bool {
        let Tuple { protocol, port, .. } = tuple(self.hook, self.datagram, Direction::Inbound);
        serve::serves(self.image().lines(), protocol, port, self.env.flows().now())
    }

    /// Records in the flow table that the peer sent this datagram on a flow of this host.
    #[inline(always)]
    pub(super) fn heard(&self, found: &Found) {
        let flows = self.env.flows();
        match (self.datagram.kind, self.datagram.protocol) {
            (Kind::Ports, protocol::TCP) => {
                flow::segment(flows, found, Direction::Inbound, self.datagram.tcp_flags);
            }
            // RFC 6092 REC-16: only outbound packets keep a UDP flow alive.
            (Kind::Ports, _) => flow::answered(flows, found),
            _ => {}
        }
    }

    /// Records in the flow table that this host sent this datagram on a flow of its own.
    #[inline(always)]
    pub(super) fn sent(&self, found: &Found) {
        let flows = self.env.flows();
        match (self.datagram.kind, self.datagram.protocol) {
            (Kind::Ports, protocol::TCP) => {
                flow::segment(flows, found, Direction::Outbound, self.datagram.tcp_flags);
            }
            _ => flow::touch(flows, found, found.tag.state()),
        }
    }

    /// Judges a fragment after the first. The fragment passes if the first fragment passed. In lockdown, it
    /// passes only if the first fragment passed in lockdown. If the first fragment was a would-be drop, the
    /// later ones are counted as would-be drops too.
    #[inline(always)]
    pub(super) fn follower(&self) -> Decision {
        let (passes, audited) = match flow::find(self.env.fragments(), fragment_key(self.hook, self.datagram))
        {
            Some(found) => {
                let wanted = self.env.fragment_epoch(false);
                let audited = found.epoch == self.env.fragment_epoch(true);
                (found.epoch == wanted || found.epoch == E::ISOLATED_FRAGMENT, audited)
            }
            None => (false, false),
        };
        if passes {
            Decision::because(Reason::Fragment)
        } else {
            Decision::because(Reason::FragmentUnknown).not_enforced(audited)
        }
    }
}
