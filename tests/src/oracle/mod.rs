//! A second implementation of the dispositions, written from docs/packets.md and docs/policy.md as simply as
//! possible: slices, hash maps, and the policy's own oracle for the rows.
//!
//! This module shares no code with the programs, neither for parsing packets nor for judging them.

use std::net::IpAddr;

use pomguard::policy::{
    Direction, Mode, PacketSettings, Policy, RowId,
    oracle::{self, Opening},
};
use pomguard_common::{
    parse::Parsed,
    protocol::{ICMP, ICMPV6, TCP, UDP},
    reason::Reason,
};

use crate::operator_state::Suspension;

mod address;
mod bare;
mod link;
mod memory;
mod overrides;
mod own;
mod read;
mod related;
mod ruling;

use self::overrides::{Holding, MISSES};
use address::{is_group, is_link_local, is_mapped, is_newborn, may_send};
use memory::{FlowTable, FragmentKey, Memory, Passed, Phase, Talk};
use own::{Whose, is_own, only_we_send, sends, whose};
use read::{Body, Seen, Segment};
pub use ruling::Ruling;

/// The part of a rule that no row satisfies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Port,
    Peer,
    ClientPort,
}

/// The epoch of a flow that no policy has judged yet. Generations begin at 1.
const UNJUDGED: u32 = 0;

/// A guarded host with its policy and tables.
#[derive(Clone, Debug)]
pub struct Host {
    policy: Policy,
    generation: u32,
    notes: FlowTable,
    holding: Holding,
}

impl Host {
    /// Creates a host without flows.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, generation: 1, notes: FlowTable::default(), holding: Holding::default() }
    }

    /// Puts another policy in force and ends the state alongside the policy. Flows stay.
    pub fn enforce(&mut self, policy: Policy) {
        self.policy = policy;
        self.generation += 1;
        self.holding = Holding::default();
    }

    /// Advances the clock.
    pub const fn wait(&mut self, seconds: u32) {
        self.notes.wait(seconds as u64);
    }

    /// Parses a frame into the form that the programs use.
    pub fn read(&self, frame: &[u8]) -> Parsed {
        let packets = PacketSettings { link_control: true, ..self.policy.packets.clone() };
        match read::frame(&packets, frame) {
            Ok(seen) => Parsed::Datagram(seen.datagram()),
            Err(reason) if reason.verdict().is_pass() => Parsed::Pass(reason),
            Err(reason) => Parsed::Drop(reason),
        }
    }

    /// Judges a frame.
    pub fn judge(&mut self, direction: Direction, frame: &[u8]) -> Ruling {
        if self.holding.no_policy {
            return self.without_policy(direction, frame);
        }
        let isolated = self.is_suspended(Suspension::Lockdown);
        let mut seen = read::frame(&self.policy.packets, frame);
        let comes_bare = direction == Direction::Inbound && self.holding.generic;
        if comes_bare
            && matches!(seen, Err(Reason::EtherType))
            && bare::is_own_multicast(&self.policy, self.knows_holders(), frame)
        {
            seen = Err(Reason::OwnMulticast);
        }
        let mut ruling = match &seen {
            Err(reason) if isolated && !reason.verdict().is_pass() => Ruling::of(Reason::Isolated),
            Err(reason) => Ruling::of(*reason),
            Ok(seen) => {
                let first = match direction {
                    Direction::Inbound => self.comes_in(seen),
                    Direction::Outbound => self.leaves(seen),
                };
                self.control_state(direction, seen, first)
            }
        };
        if let Some((talk, phase, fin)) = ruling.entry {
            // No policy has judged a flow that state alongside the policy admits.
            let control_state = matches!(ruling.reason, Reason::Exception | Reason::Failsafe);
            let generation = if control_state { UNJUDGED } else { self.generation };
            self.notes.enter(talk, phase, fin, ruling.row.clone(), generation);
        }
        // An answer to a packet that inbound audit let in passes in audit.
        let answered =
            ruling.reason == Reason::UnsolicitedReply && self.mode(Direction::Inbound) != Mode::Enforce;
        let enforces = self.mode(direction) == Mode::Enforce;
        ruling.audited |= !(ruling.passes() || isolated || enforces && !answered);
        if let Ok(seen) = &seen
            && let Some(piece) = seen.piece
            && !matches!(seen.body, Body::Later)
            && ruling.passes()
            && (enforces || !ruling.audited)
        {
            let how = match (isolated, ruling.audited) {
                (true, _) => Passed::Isolated,
                (false, true) => Passed::Audited(self.generation),
                (false, false) => Passed::Allowed,
            };
            self.notes.note_fragment(fragment_key(direction, seen, piece.id), how);
        }
        if let Ok(seen) = &seen
            && direction == Direction::Inbound
        {
            self.let_in(seen, &ruling);
        }
        ruling
    }

    /// Records a packet that came in without being an answer.
    fn let_in(&mut self, seen: &Seen, ruling: &Ruling) {
        let allowed = [Reason::Row, Reason::Failsafe, Reason::Exception, Reason::Grace];
        let would_be_denied = ruling.audited && MISSES.contains(&ruling.reason);
        if !allowed.contains(&ruling.reason) && !would_be_denied {
            return;
        }
        let opens = match &seen.body {
            Body::Tcp(segment) => segment.syn && !segment.ack,
            Body::Udp { .. } | Body::Other => true,
            Body::Icmp { .. } | Body::Later => return,
        };
        self.notes.let_in(&talk(Direction::Inbound, seen), opens);
    }

    /// Returns true if the mode keeps a flow of this host alive that no row allows.
    fn keeps_unlisted(&self) -> bool {
        match self.mode(Direction::Outbound) {
            Mode::Track => true,
            Mode::Audit => self.mode(Direction::Inbound) == Mode::Enforce,
            Mode::Enforce => false,
        }
    }

    /// Returns the effective mode. While a suspension opens the host, no direction enforces.
    fn mode(&self, direction: Direction) -> Mode {
        let mode = match direction {
            Direction::Inbound => self.policy.inbound,
            Direction::Outbound => self.policy.outbound,
        };
        if mode == Mode::Enforce && self.is_suspended(Suspension::Bypass) { Mode::Audit } else { mode }
    }

    fn is_known(&self, address: IpAddr) -> bool {
        self.policy.known.iter().any(|known| known.prefix.contains(&address))
    }

    /// Returns the row under which a peer and this host may talk, if opened in this direction, and true if
    /// the row is a failsafe row. Otherwise the reason why no row allows the flow.
    fn row(&self, opened: Direction, talk: &Talk) -> Result<(RowId, bool), Refusal> {
        let ((source, from), (destination, to)) = match opened {
            Direction::Inbound => (talk.peer, talk.host),
            Direction::Outbound => (talk.host, talk.peer),
        };
        let ported = matches!(talk.protocol, TCP | UDP);
        let (source_port, destination_port) = if ported { (from, to) } else { (0, 0) };
        let protocol = talk.protocol;
        let opening =
            Opening { direction: opened, source, source_port, destination, destination_port, protocol };
        let peer = talk.peer.0;
        if may_send(peer)
            && let Some(id) = oracle::judge(&self.policy, &opening).first
        {
            let failsafe = self.policy.rows_in(opened).any(|row| row.id == id && row.failsafe);
            return Ok((id, failsafe));
        }
        let naming: Vec<_> = self
            .policy
            .rows_in(opened)
            .filter(|row| {
                row.services.iter().any(|service| {
                    service.protocol == protocol && (!ported || service.ports.contains(destination_port))
                })
            })
            .collect();
        let meets = |row: &&&pomguard::policy::Row| row.peers.iter().any(|it| it.prefix.contains(&peer));
        Err(match (naming.is_empty(), may_send(peer) && naming.iter().find(meets).is_some()) {
            (true, _) => Refusal::Port,
            (false, true) => Refusal::ClientPort,
            (false, false) => Refusal::Peer,
        })
    }

    /// Returns true if a row in audit names the service, for any peer.
    fn in_audit(&self, opened: Direction, talk: &Talk) -> bool {
        let port = if opened == Direction::Inbound { talk.host.1 } else { talk.peer.1 };
        let ported = matches!(talk.protocol, TCP | UDP);
        self.policy.rows_in(opened).filter(|row| row.mode == Mode::Audit).any(|row| {
            let mut services = row.services.iter().filter(|service| service.protocol == talk.protocol);
            services.any(|service| !ported || service.ports.contains(port))
        })
    }

    /// Returns a flow of this host that the policy in force still allows.
    fn connection(&mut self, talk: &Talk) -> Option<Memory> {
        let judged = self.notes.talk(talk)?.generation;
        if judged != self.generation {
            let row = self.row_of_a_flow(talk).ok()?;
            let generation = self.generation;
            let memory = self.notes.talk(talk)?;
            (memory.row, memory.generation) = (row, generation);
        }
        self.notes.talk(talk).cloned()
    }

    fn comes_in(&mut self, seen: &Seen) -> Ruling {
        let newborn = is_newborn(seen.source);
        let policy = &self.policy;
        if is_mapped(seen.source) || is_mapped(seen.destination) {
            return Ruling::of(Reason::MappedAddress);
        }
        if !newborn && !may_send(seen.source) || only_we_send(policy, seen.source, self.knows_holders()) {
            return Ruling::of(Reason::SpoofedSource);
        }
        let service = link::service(&self.policy, Direction::Inbound, seen);
        if newborn || !is_own(policy, seen.destination) {
            let unclaimed = whose(policy, seen.destination) == Whose::Nobodys
                && may_send(seen.destination)
                && !seen.to_group_station;
            let ours_by_mistake =
                policy.machine.held.contains(&seen.destination) && self.is_known(seen.source);
            return match service {
                Some(reason) => Ruling::of(reason),
                None if newborn => Ruling::of(Reason::SpoofedSource),
                None if is_group(seen.destination) => Ruling::of(Reason::Broadcast),
                None if unclaimed && matches!(seen.body, Body::Later) => self.later(Direction::Inbound, seen),
                None if ours_by_mistake => Ruling { unclaimed, ..Ruling::of(Reason::NotLocalKnown) },
                None => Ruling { unclaimed, ..Ruling::of(Reason::NotLocal) },
            };
        }
        if seen.to_group_station {
            return Ruling::of(Reason::Broadcast);
        }
        let talk = talk(Direction::Inbound, seen);
        let known = self.is_known(seen.source);
        let either = |known_reason, stranger| Ruling::of(if known { known_reason } else { stranger });
        let (request, reply) = echo_types(seen.source);
        let audit = self.in_audit(Direction::Inbound, &talk);
        match &seen.body {
            Body::Later => self.later(Direction::Inbound, seen),
            Body::Tcp(Segment { syn, ack, .. }) => {
                let refusal = if *syn && *ack {
                    Refusal::Port
                } else {
                    match self.row(Direction::Inbound, &talk) {
                        Ok(row) => return by_row(row, *syn),
                        Err(refusal) => refusal,
                    }
                };
                let opens = *syn && !*ack;
                if !opens && self.connection(&talk).is_some() {
                    self.notes.heard(&talk, &seen.body);
                    return Ruling::of(Reason::OwnFlow);
                }
                let ruling = match (refusal, opens) {
                    (Refusal::ClientPort, _) => Ruling::of(Reason::ClientPort),
                    (_, false) => either(Reason::NoFlowKnown, Reason::NoFlow),
                    (Refusal::Peer, true) => either(Reason::SourceKnown, Reason::Source),
                    (Refusal::Port, true) => either(Reason::PortKnown, Reason::Port),
                };
                // A SYN-ACK asks for nothing.
                ruling.in_audit(audit && !(*syn && *ack))
            }
            Body::Udp { .. } => {
                let refusal = match self.row(Direction::Inbound, &talk) {
                    Ok(row) => return by_row(row, false),
                    Err(refusal) => refusal,
                };
                if self.connection(&talk).is_some() {
                    self.notes.heard(&talk, &seen.body);
                    return Ruling::of(Reason::OwnFlow);
                }
                if let Some(reason) = service {
                    return Ruling::of(reason);
                }
                let ruling = match refusal {
                    Refusal::ClientPort => Ruling::of(Reason::ClientPort),
                    Refusal::Peer => either(Reason::SourceKnown, Reason::Source),
                    Refusal::Port => either(Reason::PortKnown, Reason::Port),
                };
                ruling.in_audit(audit)
            }
            Body::Icmp { kind, .. } if *kind == reply => match self.connection(&talk) {
                Some(_) => Ruling::of(Reason::OwnFlow),
                None => either(Reason::NoFlowKnown, Reason::NoFlow),
            },
            Body::Icmp { kind, rest, .. } => {
                if *kind == request
                    && let Ok(row) = self.row(Direction::Inbound, &talk)
                {
                    return by_row(row, false);
                }
                if let Some(reason) = service {
                    return Ruling::of(reason);
                }
                let v4 = seen.source.is_ipv4();
                let redirect = v4 && *kind == 5 && self.policy.packets.redirects;
                let in_pieces = seen.piece.is_some();
                if is_error(v4, *kind) || redirect {
                    if in_pieces {
                        return Ruling::of(Reason::Fragmented);
                    }
                    return self.related(Direction::Inbound, seen, *kind, rest);
                }
                let free_echo = !v4 && *kind == request && self.policy.packets.echo_v6;
                if free_echo && !in_pieces {
                    return Ruling::of(Reason::EchoV6);
                }
                Ruling::of(Reason::IcmpType).in_audit(audit && *kind == request)
            }
            Body::Other => match (self.row(Direction::Inbound, &talk), service) {
                (Ok(row), _) => by_row(row, false),
                (Err(_), Some(reason)) => Ruling::of(reason),
                (Err(_), None) => either(Reason::ProtocolKnown, Reason::Protocol).in_audit(audit),
            },
        }
    }

    fn leaves(&mut self, seen: &Seen) -> Ruling {
        if is_mapped(seen.source) || is_mapped(seen.destination) {
            return Ruling::of(Reason::MappedAddress);
        }
        let ours = sends(&self.policy, seen.source, self.knows_holders());
        let unclaimed = whose(&self.policy, seen.source) == Whose::Nobodys && may_send(seen.source);
        let early = seen.source.is_unspecified() || is_link_local(seen.source);
        if let Some(reason) = link::service(&self.policy, Direction::Outbound, seen)
            && (ours || early || unclaimed)
        {
            return Ruling::of(reason);
        }
        if !ours {
            return if unclaimed && matches!(seen.body, Body::Later) {
                self.later(Direction::Outbound, seen)
            } else {
                Ruling { unclaimed, ..Ruling::of(Reason::SourceNotOurs) }
            };
        }
        let talk = talk(Direction::Outbound, seen);
        let (request, reply) = echo_types(seen.source);
        // An answer on a service that only a row in audit opens may leave, and does not become a flow of this
        // host.
        let audit = self.in_audit(Direction::Inbound, &talk);
        let answers_audited = Ruling::of(Reason::UnsolicitedReply).in_audit(true);
        match &seen.body {
            Body::Later => self.later(Direction::Outbound, seen),
            Body::Tcp(segment) => self.segment_leaves(&talk, *segment, &seen.body),
            Body::Udp { .. } => {
                if self.row(Direction::Inbound, &talk).is_ok() {
                    return Ruling::of(Reason::PeerFlow);
                }
                if let Some(ruling) = self.goes_on(&talk, &seen.body) {
                    return ruling;
                }
                if audit && self.outbound_row(&talk).row.is_none() {
                    return answers_audited;
                }
                self.opens(talk, Phase::Unanswered, &seen.body, true)
            }
            Body::Icmp { kind, .. } if *kind == reply => {
                let free_echo = seen.source.is_ipv6() && self.policy.packets.echo_v6;
                let asked = free_echo || self.row(Direction::Inbound, &talk).is_ok();
                if asked {
                    Ruling::of(Reason::PeerFlow)
                } else {
                    Ruling::of(Reason::UnsolicitedReply).in_audit(audit)
                }
            }
            Body::Icmp { kind, .. } if *kind == request => {
                let ruling = self.goes_on(&talk, &seen.body);
                ruling.unwrap_or_else(|| self.opens(talk, Phase::Echo, &seen.body, true))
            }
            Body::Icmp { kind, rest, .. } if is_error(seen.source.is_ipv4(), *kind) => {
                self.related(Direction::Outbound, seen, *kind, rest)
            }
            Body::Icmp { .. } => {
                let track = self.mode(Direction::Outbound) == Mode::Track;
                Ruling::of(if track { Reason::Untracked } else { Reason::IcmpType })
            }
            Body::Other if self.row(Direction::Inbound, &talk).is_ok() => Ruling::of(Reason::PeerFlow),
            Body::Other => {
                let ruling = self.outbound_row(&talk);
                if audit && ruling.row.is_none() { answers_audited } else { self.may_answer(&talk, ruling) }
            }
        }
    }

    fn segment_leaves(&mut self, talk: &Talk, segment: Segment, body: &Body) -> Ruling {
        let Segment { syn, ack, .. } = segment;
        let opens = syn && !ack;
        if !opens {
            if self.row(Direction::Inbound, talk).is_ok() {
                return Ruling::of(Reason::PeerFlow);
            }
            if let Some(ruling) = self.goes_on(talk, body) {
                return ruling;
            }
            let would_open = self.outbound_row(talk);
            if self.in_audit(Direction::Inbound, talk) && (syn || would_open.row.is_none()) {
                return Ruling::of(Reason::UnsolicitedReply).in_audit(true);
            }
            let kept = self.keeps_unlisted() && !self.notes.serves(talk);
            if syn || !would_open.is_listed() && !kept {
                return Ruling::of(Reason::UnsolicitedReply);
            }
        }
        self.opens(*talk, if opens { Phase::Opening } else { Phase::Open }, body, opens)
    }

    /// Continues a flow, if there is one.
    fn goes_on(&mut self, talk: &Talk, body: &Body) -> Option<Ruling> {
        let row = self.connection(talk)?.row;
        self.notes.sent(talk, body);
        Some(Ruling { row, ..Ruling::of(Reason::OwnFlow) })
    }

    /// Opens a flow, or enters again a flow that has expired.
    fn opens(&mut self, talk: Talk, phase: Phase, body: &Body, connects: bool) -> Ruling {
        let mut ruling = self.outbound_row(&talk);
        if !ruling.is_listed() && !self.keeps_unlisted() {
            return self.may_answer(&talk, ruling);
        }
        if !ruling.is_listed() && talk.protocol == UDP && self.notes.serves(&talk) {
            return ruling;
        }
        ruling.connection = connects && ruling.row.is_some();
        if self.connection(&talk).is_some() {
            self.notes.sent(&talk, body);
        } else {
            ruling.entry = entry(talk, phase, body);
        }
        ruling
    }

    /// Lets a packet that no row allows leave while inbound audits, if the packet may answer a packet that
    /// audit let in: a datagram from a port, or of a protocol, that serves.
    fn may_answer(&self, talk: &Talk, ruling: Ruling) -> Ruling {
        let answers = !matches!(talk.protocol, TCP | ICMP | ICMPV6) && self.notes.serves(talk);
        let audits = self.mode(Direction::Inbound) != Mode::Enforce;
        let audited = ruling.audited || audits && answers && ruling.reason == Reason::Destination;
        ruling.in_audit(audited)
    }

    fn outbound_row(&self, talk: &Talk) -> Ruling {
        match self.row(Direction::Outbound, talk) {
            Ok(row) => by_row(row, false),
            Err(_) if self.mode(Direction::Outbound) == Mode::Track => Ruling::of(Reason::Untracked),
            Err(_) => Ruling::of(Reason::Destination).in_audit(self.in_audit(Direction::Outbound, talk)),
        }
    }

    fn later(&self, direction: Direction, seen: &Seen) -> Ruling {
        let first =
            seen.piece.and_then(|piece| self.notes.fragment_key(&fragment_key(direction, seen, piece.id)));
        let unknown = Ruling::of(Reason::FragmentUnknown);
        match first {
            Some(Passed::Isolated) => Ruling::of(Reason::Fragment),
            Some(_) if self.is_suspended(Suspension::Lockdown) => unknown,
            Some(Passed::Allowed) => Ruling::of(Reason::Fragment),
            Some(Passed::Audited(generation)) => unknown.in_audit(generation == self.generation),
            None => unknown,
        }
    }

    /// Returns the row under which a flow of this host goes on, if a row does.
    ///
    /// # Errors
    /// If the flow has ended with its permission.
    fn row_of_a_flow(&self, talk: &Talk) -> Result<Option<RowId>, Refusal> {
        match self.row(Direction::Outbound, talk) {
            Ok((id, _)) => Ok(Some(id)),
            Err(_) if self.keeps_unlisted() || self.in_audit(Direction::Outbound, talk) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Returns true if this host opened the flow and the policy in force allows it. Changes nothing.
    fn is_still_allowed(&mut self, talk: &Talk) -> bool {
        let Some(judged) = self.notes.talk(talk).map(|memory| memory.generation) else { return false };
        judged == self.generation || self.row_of_a_flow(talk).is_ok()
    }
}

/// Returns the entry of a flow that begins or continues with this packet. Returns `None` for a RST, which
/// nobody answers.
fn entry(talk: Talk, phase: Phase, body: &Body) -> Option<(Talk, Phase, bool)> {
    match body {
        Body::Tcp(segment) if segment.rst() => None,
        Body::Tcp(segment) => Some((talk, phase, segment.fin())),
        _ => Some((talk, phase, false)),
    }
}

fn by_row((id, failsafe): (RowId, bool), connection: bool) -> Ruling {
    let reason = if failsafe { Reason::Failsafe } else { Reason::Row };
    Ruling { row: Some(id), connection, ..Ruling::of(reason) }
}

const fn echo_types(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() { (8, 0) } else { (128, 129) }
}

/// Returns true for unreachable, too big, time exceeded and parameter problem.
fn is_error(v4: bool, kind: u8) -> bool {
    if v4 { [3, 11, 12].contains(&kind) } else { [1, 2, 3, 4].contains(&kind) }
}

/// Returns the key of the flow that a packet belongs to. Without ports, both ports are 0.
fn talk(direction: Direction, seen: &Seen) -> Talk {
    let (from, to) = match &seen.body {
        Body::Tcp(Segment { from, to, .. }) | Body::Udp { from, to } => (*from, *to),
        Body::Icmp { id, .. } => (*id, *id),
        Body::Later | Body::Other => (0, 0),
    };
    let (sender, receiver) = ((seen.source, from), (seen.destination, to));
    let (host, peer) = match direction {
        Direction::Inbound => (receiver, sender),
        Direction::Outbound => (sender, receiver),
    };
    Talk { protocol: seen.protocol, host, peer }
}

/// Returns the key of the datagram that a fragment belongs to. In IPv6 the protocol is not part of the key:
/// only the first fragment's protocol counts.
fn fragment_key(direction: Direction, seen: &Seen, id: u32) -> FragmentKey {
    let protocol = if seen.source.is_ipv4() { seen.protocol } else { 0 };
    (seen.source, seen.destination, id, protocol, direction == Direction::Outbound)
}
