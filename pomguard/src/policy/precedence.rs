//! Judges the first packet of a flow by every step of docs/policy.md, in a slow and obvious way.
//!
//! Like [`super::oracle`], this module shares no matching code with the compiler and the datapath. It knows no
//! flows: the packet is judged as if nothing came before it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pomguard_common::{
    protocol::{ICMP, ICMPV6, IGMP, TCP, UDP, VRRP},
    reason::Reason,
};
use serde::Serialize;

use super::{
    Direction, Mode, Policy, Row, RowId,
    oracle::{self, Opening},
    own::Owner,
};
use crate::model::SuspensionKind;

/// State that holds alongside the policy.
#[derive(Clone, Debug, Default)]
pub struct Alongside {
    /// The timed exceptions, each as a row, in the order of the table.
    pub exceptions: Vec<Row>,
    /// The suspension of the policy.
    pub suspension: Option<SuspensionKind>,
    /// True if the programs know which floating addresses this machine holds. Without a daemon they do not.
    pub holders_known: bool,
}

/// The verdict on a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruling {
    /// The reason under which the packet is counted.
    #[serde(serialize_with = "named")]
    pub reason: Reason,
    /// True if the packet passes although the reason is a drop.
    pub audited: bool,
    /// The row or exception under which the packet is counted.
    pub row: Option<RowId>,
    /// True if only the address of this host's end is wrong, and nobody has it: failsafe rows and exceptions
    /// may still allow the packet.
    #[serde(skip)]
    unclaimed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn named<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.name())
}

impl Ruling {
    const fn new(reason: Reason) -> Self {
        Self { reason, audited: false, row: None, unclaimed: false }
    }

    fn by(row: &Row, reason: Reason) -> Self {
        Self { row: Some(row.id.clone()), ..Self::new(reason) }
    }

    fn spared(self, audit: bool) -> Self {
        Self { audited: audit, ..self }
    }

    /// Returns true if the packet passes.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.audited || self.reason.verdict().is_pass()
    }

    /// Returns true if the packet is dropped, or would be dropped in enforce.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        !self.reason.verdict().is_pass()
    }
}

/// The reason why no row allows a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Miss {
    Port,
    Peer,
    ClientPort,
}

/// Judges an opening packet.
#[must_use]
pub fn judge(policy: &Policy, alongside: &Alongside, opening: &Opening) -> Ruling {
    let packet = Packet { policy, alongside, opening };
    let first = match opening.direction {
        _ if packet.has_ports() && (opening.source_port == 0 || opening.destination_port == 0) => {
            Ruling::new(Reason::PortZero)
        }
        _ if is_mapped(opening.source) || is_mapped(opening.destination) => {
            Ruling::new(Reason::MappedAddress)
        }
        Direction::Inbound => packet.arrives(),
        Direction::Outbound => packet.leaves(),
    };
    packet.in_the_mode(packet.reconsider(first))
}

struct Packet<'a> {
    policy: &'a Policy,
    alongside: &'a Alongside,
    opening: &'a Opening,
}

impl Packet<'_> {
    const fn has_ports(&self) -> bool {
        matches!(self.opening.protocol, TCP | UDP)
    }

    /// Returns true for an echo request. ICMP of the other family is a protocol like any other.
    const fn is_echo(&self) -> bool {
        matches!(
            (self.opening.protocol, self.opening.source),
            (ICMP, IpAddr::V4(_)) | (ICMPV6, IpAddr::V6(_))
        )
    }

    const fn peer(&self) -> IpAddr {
        match self.opening.direction {
            Direction::Inbound => self.opening.source,
            Direction::Outbound => self.opening.destination,
        }
    }

    fn knows_peer(&self) -> bool {
        self.policy.known.iter().any(|known| known.prefix.contains(&self.peer()))
    }

    fn is_nobodys(&self, address: IpAddr) -> bool {
        self.policy.owner(address) == Owner::Nobody
            && !self.policy.machine.taken.contains(&address)
            && can_send(address)
    }

    fn is_listed(&self, address: IpAddr) -> bool {
        self.policy.owner(address) == Owner::Listed || self.policy.machine.taken.contains(&address)
    }

    fn is_held(&self, address: IpAddr) -> bool {
        self.alongside.holders_known && self.policy.machine.held.contains(&address)
    }

    /// Returns true if this host may send from the address.
    fn may_send(&self, address: IpAddr) -> bool {
        let shared = self.policy.owner(address) == Owner::Shared;
        self.is_listed(address) || shared && (!self.alongside.holders_known || self.is_held(address))
    }

    fn arrives(&self) -> Ruling {
        let Opening { source, destination, protocol, .. } = *self.opening;
        let newborn = source == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        if !newborn && !can_send(source) || self.is_listed(source) || self.is_held(source) {
            return Ruling::new(Reason::SpoofedSource);
        }
        let service = self.link_service();
        if newborn || !self.policy.is_own(destination) {
            return match service {
                Some(reason) => Ruling::new(reason),
                None if newborn => Ruling::new(Reason::SpoofedSource),
                None if is_group(destination) => Ruling::new(Reason::Broadcast),
                None => {
                    let here = self.policy.machine.held.contains(&destination) && self.knows_peer();
                    let reason = if here { Reason::NotLocalKnown } else { Reason::NotLocal };
                    Ruling { unclaimed: self.is_nobodys(destination), ..Ruling::new(reason) }
                }
            };
        }
        let miss = match self.row(Direction::Inbound) {
            Ok(row) => return by_row(row),
            Err(miss) => miss,
        };
        if let Some(reason) = service {
            return Ruling::new(reason);
        }
        if self.is_echo() && source.is_ipv6() && self.policy.packets.echo_v6 {
            return Ruling::new(Reason::EchoV6);
        }
        let reason = match (miss, self.knows_peer()) {
            _ if self.is_echo() => Reason::IcmpType,
            (_, true) if !matches!(protocol, TCP | UDP) => Reason::ProtocolKnown,
            (_, false) if !matches!(protocol, TCP | UDP) => Reason::Protocol,
            (Miss::ClientPort, _) => Reason::ClientPort,
            (Miss::Peer, true) => Reason::SourceKnown,
            (Miss::Peer, false) => Reason::Source,
            (Miss::Port, true) => Reason::PortKnown,
            (Miss::Port, false) => Reason::Port,
        };
        Ruling::new(reason).spared(self.row_in_audit(Direction::Inbound))
    }

    fn leaves(&self) -> Ruling {
        let source = self.opening.source;
        let ours = self.may_send(source);
        let early = source.is_unspecified() || is_link_local(source);
        if let Some(reason) = self.link_service()
            && (ours || early || self.is_nobodys(source))
        {
            return Ruling::new(reason);
        }
        if !ours {
            return Ruling { unclaimed: self.is_nobodys(source), ..Ruling::new(Reason::SourceNotOurs) };
        }
        let answers = !self.is_echo() && self.opening.protocol != TCP;
        if answers && self.row(Direction::Inbound).is_ok() {
            return Ruling::new(Reason::PeerFlow);
        }
        match self.row(Direction::Outbound) {
            Ok(row) => by_row(row),
            Err(_) if answers && self.row_in_audit(Direction::Inbound) => {
                Ruling::new(Reason::UnsolicitedReply).spared(true)
            }
            Err(_) if self.mode(Direction::Outbound) == Mode::Track => Ruling::new(Reason::Untracked),
            Err(_) => Ruling::new(Reason::Destination).spared(self.row_in_audit(Direction::Outbound)),
        }
    }

    /// Returns the reason of a service of the link.
    fn link_service(&self) -> Option<Reason> {
        let Opening { source, source_port, destination, destination_port, .. } = *self.opening;
        let (packets, inbound) = (&self.policy.packets, self.opening.direction == Direction::Inbound);
        match self.opening.protocol {
            UDP => {
                let ports = (source_port, destination_port);
                let lease = match (inbound, destination.is_ipv4()) {
                    (true, true) => ports == (67, 68),
                    (false, true) => ports == (68, 67),
                    (true, false) => ports == (547, 546),
                    (false, false) => ports == (546, 547),
                };
                let at_us = self.policy.is_own(destination) || self.is_nobodys(destination);
                let proper = match destination {
                    _ if !inbound => true,
                    IpAddr::V4(address) => address.is_broadcast() || at_us,
                    IpAddr::V6(_) => is_link_local(source) && (is_link_local(destination) || at_us),
                };
                (packets.dhcp && lease && proper).then_some(Reason::Dhcp)
            }
            IGMP if destination.is_ipv4() && is_group(destination) && packets.group_membership => {
                Some(Reason::Multicast)
            }
            VRRP if is_vrrp_group(destination) && packets.vrrp => Some(Reason::Vrrp),
            _ => None,
        }
    }

    /// Returns the first row that allows a flow between both ends, opened in this direction.
    fn row(&self, opened: Direction) -> Result<&Row, Miss> {
        let opening = self.seen_as(opened);
        let peer = self.peer();
        if can_send(peer)
            && let Some(id) = oracle::judge(self.policy, &opening).first
            && let Some(row) = self.policy.rows_in(opened).find(|row| row.id == id)
        {
            return Ok(row);
        }
        let names = |row: &&Row| {
            row.services.iter().any(|service| {
                service.protocol == opening.protocol
                    && (!self.has_ports() || service.ports.contains(opening.destination_port))
            })
        };
        let for_peer = |row: &Row| row.peers.iter().any(|it| it.prefix.contains(&peer));
        let naming: Vec<&Row> = self.policy.rows_in(opened).filter(names).collect();
        Err(if naming.is_empty() {
            Miss::Port
        } else if can_send(peer) && naming.into_iter().any(for_peer) {
            Miss::ClientPort
        } else {
            Miss::Peer
        })
    }

    /// Returns the same two ends as a flow that is opened in this direction.
    const fn seen_as(&self, opened: Direction) -> Opening {
        let Opening { direction, source, source_port, destination, destination_port, protocol } =
            *self.opening;
        if matches!(
            (direction, opened),
            (Direction::Inbound, Direction::Inbound) | (Direction::Outbound, Direction::Outbound)
        ) {
            return *self.opening;
        }
        Opening {
            direction: opened,
            source: destination,
            source_port: destination_port,
            destination: source,
            destination_port: source_port,
            protocol,
        }
    }

    /// Returns true if a row in audit names the service, for any peer.
    fn row_in_audit(&self, opened: Direction) -> bool {
        !oracle::judge(self.policy, &self.seen_as(opened)).in_audit.is_empty()
    }

    /// Returns the mode, which a bypass softens.
    fn mode(&self, direction: Direction) -> Mode {
        match self.policy.mode(direction) {
            Mode::Enforce if self.alongside.suspension == Some(SuspensionKind::Bypass) => Mode::Audit,
            mode => mode,
        }
    }

    /// Asks the failsafe rows, the exceptions and the lockdown.
    fn reconsider(&self, first: Ruling) -> Ruling {
        let isolated = self.alongside.suspension == Some(SuspensionKind::Lockdown);
        if isolated && holds_in_lockdown(first.reason) {
            return first;
        }
        let again = is_miss(first.reason) || first.unclaimed || isolated && first.reason.verdict().is_pass();
        if again && let Some(ruling) = self.by_override(isolated) {
            return ruling;
        }
        if isolated { Ruling::new(Reason::Isolated) } else { first }
    }

    fn by_override(&self, failsafe_only: bool) -> Option<Ruling> {
        let direction = self.opening.direction;
        if direction == Direction::Outbound {
            if !can_send(self.opening.destination) {
                return None;
            }
            let answers = self.opening.protocol == UDP;
            if answers && self.override_row(Direction::Inbound, failsafe_only).is_some() {
                return Some(Ruling::new(Reason::PeerFlow));
            }
        }
        let row = self.override_row(direction, failsafe_only)?;
        let reason = if row.failsafe { Reason::Failsafe } else { Reason::Exception };
        Some(Ruling::by(row, reason))
    }

    /// Returns the first failsafe row or exception for both ends.
    fn override_row(&self, opened: Direction, failsafe_only: bool) -> Option<&Row> {
        let opening = self.seen_as(opened);
        let peer = self.peer();
        let failsafe = self.policy.rows.iter().filter(|row| row.failsafe);
        let mut rows = failsafe.chain(self.alongside.exceptions.iter().filter(|_| !failsafe_only));
        rows.find(|row| {
            let served = row.services.iter().any(|service| {
                service.protocol == opening.protocol
                    && (!self.has_ports()
                        || service.ports.contains(opening.destination_port)
                            && row.client_ports.contains(opening.source_port))
            });
            row.direction == opened && served && row.peers.iter().any(|it| it.prefix.contains(&peer))
        })
    }

    /// Turns a drop into a would-be drop if the mode says so.
    fn in_the_mode(&self, ruling: Ruling) -> Ruling {
        let isolated = self.alongside.suspension == Some(SuspensionKind::Lockdown);
        let answered =
            ruling.reason == Reason::UnsolicitedReply && self.mode(Direction::Inbound) != Mode::Enforce;
        let softened = self.mode(self.opening.direction) != Mode::Enforce || answered;
        let audited = ruling.audited || !ruling.passes() && !isolated && softened;
        Ruling { audited, ..ruling }
    }
}

fn by_row(row: &Row) -> Ruling {
    Ruling::by(row, if row.failsafe { Reason::Failsafe } else { Reason::Row })
}

/// Returns true for a reason that only the lack of a row causes.
const fn is_miss(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Port
            | Reason::PortKnown
            | Reason::Source
            | Reason::SourceKnown
            | Reason::ClientPort
            | Reason::Protocol
            | Reason::ProtocolKnown
            | Reason::IcmpType
            | Reason::Destination
            | Reason::UnsolicitedReply
    )
}

/// Returns true for a reason that passes a packet in lockdown, too.
const fn holds_in_lockdown(reason: Reason) -> bool {
    matches!(reason, Reason::Failsafe | Reason::Dhcp | Reason::Multicast | Reason::Vrrp)
}

/// Returns true if the address can be the source of a genuine packet (RFC 1122 section 3.2.1.3, RFC 4291).
fn can_send(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets(), [0 | 127 | 224.., ..]),
        IpAddr::V6(address) => {
            let low = address.segments().iter().take(6).all(|&segment| segment == 0);
            !low && !address.is_multicast() && embedded(address).is_none_or(is_global)
        }
    }
}

/// Returns the IPv4 address in a 6to4 or well-known NAT64 address (RFC 3056, RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x2002, high, low, ..] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

fn is_global(address: Ipv4Addr) -> bool {
    can_send(address.into()) && !address.is_private() && !address.is_link_local()
}

const fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

const fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Returns true for a multicast address, and for the IPv4 broadcast address.
#[must_use]
pub fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

fn is_vrrp_group(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18))
        || address == IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12))
}
