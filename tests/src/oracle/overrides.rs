//! State alongside the policy, which the programs ask about as well, by docs/policy.md: failsafe rows, timed
//! exceptions, grace period and suspension; and the rules that apply while there is no policy.

use pomguard::policy::{Direction, PacketSettings, Row, RowId};
use pomguard_common::{
    protocol::{TCP, UDP},
    reason::Reason,
};

use super::{
    Host, Ruling,
    address::may_send,
    echo_types, entry,
    memory::{Phase, Talk},
    read::{self, Body, Seen, Segment},
    talk,
};
use crate::operator_state::{OperatorState, Suspension};

/// A deadline later than the end of any scenario.
const FOREVER: u64 = u64::MAX;

/// The state alongside the policy, each part with the time at which it ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    suspension: Option<(Suspension, u64)>,
    grace: Option<u64>,
    holders: Option<u64>,
    rows: Vec<(Row, u64)>,
    pub(super) no_policy: bool,
    pub(super) generic: bool,
}

/// The reasons that only the lack of a row causes.
pub(super) const MISSES: [Reason; 12] = [
    Reason::Port,
    Reason::PortKnown,
    Reason::Source,
    Reason::SourceKnown,
    Reason::ClientPort,
    Reason::NoFlow,
    Reason::NoFlowKnown,
    Reason::Protocol,
    Reason::ProtocolKnown,
    Reason::IcmpType,
    Reason::Destination,
    Reason::UnsolicitedReply,
];

/// The reasons under which an isolated host still passes packets: its failsafe rows, and the services of the
/// link.
const ISOLATED: [Reason; 11] = [
    Reason::OwnMulticast,
    Reason::Failsafe,
    Reason::IcmpRelated,
    Reason::Fragment,
    Reason::Arp,
    Reason::Neighbour,
    Reason::Dhcp,
    Reason::Multicast,
    Reason::Vrrp,
    Reason::LinkControl,
    Reason::IcmpControl,
];

impl Host {
    /// Replaces the state alongside the policy.
    pub fn hold(&mut self, held: &OperatorState) {
        let until = |seconds: u32| self.notes.now() + u64::from(seconds);
        self.holding = Holding {
            suspension: held.suspension.map(|(suspension, seconds)| (suspension, until(seconds))),
            grace: held.grace.map(until),
            holders: held.holders.map(until),
            rows: held.rows.iter().map(|(row, seconds)| (row.clone(), until(*seconds))).collect(),
            no_policy: held.no_policy,
            generic: held.generic,
        };
    }

    /// Returns true if the policy knows who holds the floating addresses.
    pub(super) fn knows_holders(&self) -> bool {
        self.holding.holders.is_some_and(|until| self.notes.now() < until)
    }

    pub(super) fn is_suspended(&self, suspension: Suspension) -> bool {
        self.holding.suspension.is_some_and(|(kind, until)| kind == suspension && self.notes.now() < until)
    }

    /// Returns the first failsafe row or exception that allows the flow, opened in this direction.
    fn held(&self, opened: Direction, talk: &Talk, failsafe_only: bool) -> Option<&Row> {
        let own = self.policy.rows.iter().filter(|row| row.failsafe).map(|row| (row, FOREVER));
        let held = self.holding.rows.iter().map(|(row, until)| (row, *until));
        let (port, client) = match opened {
            Direction::Inbound => (talk.host.1, talk.peer.1),
            Direction::Outbound => (talk.peer.1, talk.host.1),
        };
        let ported = matches!(talk.protocol, TCP | UDP);
        let serves = |row: &Row| {
            row.services.iter().any(|service| {
                let ports = service.ports.contains(port) && row.client_ports.contains(client);
                service.protocol == talk.protocol && (!ported || ports)
            })
        };
        let found = own.chain(held).find(|(row, until)| {
            let counts = row.failsafe || !failsafe_only;
            let live = counts && self.notes.now() < *until && row.direction == opened;
            live && row.peers.iter().any(|peer| peer.prefix.contains(&talk.peer.0)) && serves(row)
        });
        found.map(|(row, _)| row)
    }

    /// Returns the final ruling on a frame, from the ruling of the policy and the state alongside the policy.
    pub(super) fn control_state(&mut self, direction: Direction, seen: &Seen, first: Ruling) -> Ruling {
        let isolated = self.is_suspended(Suspension::Lockdown);
        if isolated && ISOLATED.contains(&first.reason) {
            return first;
        }
        let denied = MISSES.contains(&first.reason) || first.unclaimed;
        if denied || isolated && first.reason.verdict().is_pass() {
            let again = match direction {
                Direction::Inbound => self.comes_in_alongside(seen, isolated),
                Direction::Outbound => self.leaves_alongside(seen, isolated),
            };
            if let Some(ruling) = again {
                return ruling;
            }
        }
        if isolated {
            return Ruling::of(Reason::Isolated);
        }
        let answers_nothing =
            [Reason::NoFlow, Reason::NoFlowKnown, Reason::ClientPort, Reason::UnsolicitedReply]
                .contains(&first.reason);
        let midway = matches!(seen.body, Body::Tcp(segment) if !segment.syn);
        let grace = self.holding.grace.is_some_and(|until| self.notes.now() < until);
        if grace && midway && answers_nothing && !first.audited { Ruling::of(Reason::Grace) } else { first }
    }

    fn comes_in_alongside(&mut self, seen: &Seen, failsafe_only: bool) -> Option<Ruling> {
        let talk = talk(Direction::Inbound, seen);
        let (opens, answers) = may(seen);
        if opens && let Some(row) = self.held(Direction::Inbound, &talk, failsafe_only) {
            return Some(by(row, matches!(seen.body, Body::Tcp(Segment { syn: true, .. }))));
        }
        let asked = self.held(Direction::Outbound, &talk, failsafe_only).is_some();
        if !(answers && asked && self.notes.talk(&talk).is_some()) {
            return None;
        }
        self.notes.heard(&talk, &seen.body);
        Some(Ruling::of(Reason::OwnFlow))
    }

    fn leaves_alongside(&mut self, seen: &Seen, failsafe_only: bool) -> Option<Ruling> {
        if !may_send(seen.destination) {
            return None;
        }
        let talk = talk(Direction::Outbound, seen);
        let (opens, answers) = may(seen);
        if answers && self.held(Direction::Inbound, &talk, failsafe_only).is_some() {
            return Some(Ruling::of(Reason::PeerFlow));
        }
        let row = self.held(Direction::Outbound, &talk, failsafe_only).filter(|_| opens)?.clone();
        let before = self.notes.talk(&talk).map(|memory| memory.row.clone());
        let (connects, phase) = match &seen.body {
            Body::Other | Body::Later => return Some(by(&row, false)),
            Body::Tcp(Segment { syn: true, .. }) => (true, Phase::Opening),
            Body::Tcp(_) => (false, Phase::Open),
            Body::Udp { .. } => (before.is_none(), Phase::Unanswered),
            Body::Icmp { .. } => (before.is_none(), Phase::Echo),
        };
        if before.is_some() {
            self.notes.sent(&talk, &seen.body);
        }
        Some(match before {
            Some(row) if !connects => Ruling { row, ..Ruling::of(Reason::OwnFlow) },
            Some(_) => by(&row, connects),
            None => Ruling { entry: entry(talk, phase, &seen.body), ..by(&row, connects) },
        })
    }

    /// Returns true if an ICMP error quotes a flow that a failsafe row or an exception allows. Asked if the
    /// policy does not know the flow, or if the host is isolated.
    pub(super) fn related_alongside(&mut self, direction: Direction, talk: &Talk) -> bool {
        let isolated = self.is_suspended(Suspension::Lockdown);
        // Of ICMP, errors quote only requests, which answer nothing.
        let (opened, answered) = (true, matches!(talk.protocol, TCP | UDP));
        let (serves, uses) = match direction {
            Direction::Inbound => (answered, opened),
            Direction::Outbound => (opened, answered),
        };
        serves && self.held(Direction::Inbound, talk, isolated).is_some()
            || uses
                && self.notes.talk(talk).is_some()
                && self.held(Direction::Outbound, talk, isolated).is_some()
    }

    /// Returns the ruling on a frame while there is no policy.
    pub(super) fn without_policy(&self, direction: Direction, frame: &[u8]) -> Ruling {
        let packets = PacketSettings { vlans: Vec::new(), link_control: true, ..self.policy.packets.clone() };
        let mut ruling = match read::frame(&packets, frame) {
            Ok(seen) => self.failsafe_alone(direction, &seen),
            Err(reason @ (Reason::Arp | Reason::LinkControl)) => Ruling::of(reason),
            Err(_) => Ruling::of(Reason::NoPolicy),
        };
        ruling.audited = !ruling.passes() && self.is_suspended(Suspension::Bypass);
        ruling
    }

    fn failsafe_alone(&self, direction: Direction, seen: &Seen) -> Ruling {
        if let Body::Icmp { kind: 133..=136, .. } = seen.body
            && (seen.source.is_ipv6(), seen.hops) == (true, 255)
        {
            return Ruling::of(Reason::Neighbour);
        }
        if !may_send(seen.source) {
            return Ruling::of(Reason::NoPolicy);
        }
        let talk = talk(direction, seen);
        let (opens, answers) = may(seen);
        let (other, answer) = match direction {
            Direction::Inbound => (Direction::Outbound, Reason::OwnFlow),
            Direction::Outbound => (Direction::Inbound, Reason::PeerFlow),
        };
        match (self.held(direction, &talk, true), self.held(other, &talk, true)) {
            (Some(row), _) if opens => by(row, matches!(seen.body, Body::Tcp(Segment { syn: true, .. }))),
            (_, Some(_)) if answers => Ruling::of(answer),
            _ => Ruling::of(Reason::NoPolicy),
        }
    }
}

fn by(row: &Row, connection: bool) -> Ruling {
    let reason = if row.failsafe { Reason::Failsafe } else { Reason::Exception };
    let id: RowId = row.id.clone();
    Ruling { row: Some(id), connection, ..Ruling::of(reason) }
}

/// Returns two values: true if the packet may open or continue a flow, and true if the packet may be an
/// answer.
fn may(seen: &Seen) -> (bool, bool) {
    let (request, reply) = echo_types(seen.source);
    match &seen.body {
        Body::Tcp(Segment { syn: true, ack, .. }) => (!ack, *ack),
        Body::Tcp(_) | Body::Udp { .. } => (true, true),
        Body::Icmp { kind, .. } => (*kind == request, *kind == reply),
        Body::Other => (true, false),
        Body::Later => (false, false),
    }
}
