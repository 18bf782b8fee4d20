//! One datagram under judgement, and the questions that rulings in both directions ask.

use super::{Decision, NO_ROW, Tables, fragment_key, key};
use crate::{
    Direction,
    flow::{self, Found, Store},
    image::{Class, Family, Image, Lines, Miss, RowMatch, Tuple},
    parse::{Datagram, Kind, tcp_flag},
    protocol,
    reason::Reason,
    serve,
};

/// ICMP errors: those that must reach the sender of what they quote. None for other messages.
#[inline(always)]
pub(super) const fn is_error(datagram: &Datagram) -> bool {
    match datagram.family {
        // Unreachable, time exceeded, parameter problem.
        Family::V4 => matches!(datagram.icmp_type, 3 | 11 | 12),
        // Unreachable, packet too big, time exceeded, parameter problem.
        Family::V6 => matches!(datagram.icmp_type, 1..=4),
    }
}

/// Type of an echo request and of an echo reply.
#[inline(always)]
pub(super) const fn echo(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    }
}

/// The tuple that a datagram would belong to, had its flow been opened in direction `opened`.
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

/// Whether a datagram may open a flow, or go on with one that its sender opened; and whether it
/// may answer in one that the other side opened. A SYN-ACK only ever answers, and a SYN never. Of ICMP
/// requests open, and replies answer.
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

/// Everything that the rulings on one datagram look at.
pub(super) struct Context<'a, 'b, L: Lines + ?Sized, F: Store, T: Store> {
    pub(super) hook: Direction,
    pub(super) datagram: &'a Datagram,
    pub(super) tables: &'a Tables<'b, L, F, T>,
    /// Class of the peer. Looked up once, first: it is the costly question, and with one place that
    /// asks it the verifier walks it once.
    pub(super) class: Class,
}

impl<L: Lines + ?Sized, F: Store, T: Store> Context<'_, '_, L, F, T> {
    #[inline(always)]
    pub(super) const fn image(&self) -> &Image<'_, L> {
        self.tables.image
    }

    /// The drop reason for the peer: known to the site, or a stranger.
    #[inline(always)]
    pub(super) const fn either(&self, known: Reason, stranger: Reason) -> Reason {
        if self.class.known() { known } else { stranger }
    }

    /// The row under which the peer and this host may talk, opened in direction `opened`.
    #[inline(always)]
    pub(super) fn row_match(&self, opened: Direction) -> Result<RowMatch, Miss> {
        self.image().row_match(self.class, &tuple(self.hook, self.datagram, opened))
    }

    /// Finds the flow, if the policy in force still lets this host have it.
    ///
    /// An entry remembers the generation that judged it. Under another one it is judged again, once:
    /// what a changed policy no longer allows ends with the next packet of either side.
    #[inline(always)]
    pub(super) fn flow(&self) -> Option<Found> {
        let found = flow::find(&self.tables.flows, key(self.hook, self.datagram))?;
        let generation = self.image().generation();
        if found.epoch == generation || found.epoch == flow::GRANDFATHERED {
            return Some(found);
        }
        let row = match self.row_match(Direction::Outbound) {
            Ok(row_match) => row_match.row,
            Err(Miss { audit, .. }) if audit || self.tables.keeps_unlisted() => NO_ROW,
            Err(_) => return None,
        };
        flow::set_epoch(&self.tables.flows, &found, row, generation);
        Some(Found { row, epoch: generation, ..found })
    }

    /// Returns true if the local port of a datagram that leaves serves, see [`serve`]; of what has no ports,
    /// its protocol.
    #[inline(always)]
    pub(super) fn serves(&self) -> bool {
        let Tuple { protocol, port, .. } = tuple(self.hook, self.datagram, Direction::Inbound);
        serve::serves(self.image().lines(), protocol, port, self.tables.flows.now())
    }

    /// Notes what the peer sent on a flow of ours.
    #[inline(always)]
    pub(super) fn heard(&self, found: &Found) {
        let flows = &self.tables.flows;
        match (self.datagram.kind, self.datagram.protocol) {
            (Kind::Ports, protocol::TCP) => {
                flow::segment(flows, found, Direction::Inbound, self.datagram.tcp_flags);
            }
            // RFC 6092 REC-16: only what leaves keeps a UDP flow alive.
            (Kind::Ports, _) => flow::answered(flows, found),
            _ => {}
        }
    }

    /// Notes what this host sent on a flow of its own.
    #[inline(always)]
    pub(super) fn sent(&self, found: &Found) {
        let flows = &self.tables.flows;
        match (self.datagram.kind, self.datagram.protocol) {
            (Kind::Ports, protocol::TCP) => {
                flow::segment(flows, found, Direction::Outbound, self.datagram.tcp_flags);
            }
            _ => flow::touch(flows, found, found.tag.state()),
        }
    }

    /// A later fragment: passes when its first one did; isolated, when that passed isolated. It counts as a
    /// drop that passes when the first one did.
    #[inline(always)]
    pub(super) fn follower(&self) -> Decision {
        let (passes, audited) =
            match flow::find(&self.tables.fragments, fragment_key(self.hook, self.datagram)) {
                Some(found) => {
                    let wanted = self.tables.fragment_epoch(false);
                    let audited = found.epoch == self.tables.fragment_epoch(true);
                    (found.epoch == wanted || found.epoch == Tables::<L, F, T>::ISOLATED_FRAGMENT, audited)
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
