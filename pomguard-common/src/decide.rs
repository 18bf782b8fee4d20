//! What becomes of a datagram, and why.
//!
//! Precedence, inbound:
//!  1. No source address that cannot be, no destination that is not ours (the link's own
//!     multicast aside).
//!  2. A fragment after the first follows its first fragment's verdict.
//!  3. The link needs it: neighbour discovery, DHCP, group membership, VRRP.
//!  4. TCP that is not a SYN-ACK, UDP, echo requests and other protocols: a row allows peer,
//!     service and client port. Every packet is authorised anew; there is no connection table to
//!     exhaust, and a row that goes away bites at the next packet.
//!  5. A conversation that this host opened.
//!  6. An ICMP error that quotes a conversation of either sort.
//!  7. Otherwise dropped, under the reason that tells most.
//!
//! Outbound is the mirror: the reverse of an inbound row may leave, what opens is judged by the
//! outbound rows, and what belongs to a conversation of ours keeps it alive.

use crate::{
    Direction,
    flow::{self, Entered, Found, Key, State, Store},
    image::{Address, Class, Denial, Family, Forget, Grant, Image, Lines, Tuple, mode, switch},
    packet::{Packet, be32},
    parse::{self, Datagram, Kind, tcp_flag},
    protocol,
    reason::{Reason, Verdict},
};

/// No row.
pub const NO_ROW: u16 = u16::MAX;

/// What a packet comes to. The one exit of the programs turns it into an action and counts it.
///
/// One word, so that the programs can put it where their verifier forgets what it knows of it
/// ([`Forget`]): there are many ways to a decision, and one way on from it.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Decision(u64);

impl Decision {
    const REASON: u64 = 0xff;
    const OPENS: u64 = 1 << 8;
    const AUDITED: u64 = 1 << 9;
    const ENTERED_SHIFT: u32 = 10;
    const ENTERED: u64 = 3 << Self::ENTERED_SHIFT;
    const STATE_SHIFT: u32 = 12;
    const STATE: u64 = 7 << Self::STATE_SHIFT;
    const ROW_SHIFT: u32 = 16;
    /// What a ruling comes to for an ICMP error: see what it quotes.
    const QUOTES: u64 = u64::MAX;

    /// For a reason that no row is behind.
    #[inline(always)]
    pub const fn because(reason: Reason) -> Self {
        Self(reason as u64 | (NO_ROW as u64) << Self::ROW_SHIFT)
    }

    #[inline(always)]
    const fn by_row(grant: Grant) -> Self {
        let reason = if grant.failsafe { Reason::Failsafe } else { Reason::Row };
        Self::because(reason).under(grant.row)
    }

    #[inline(always)]
    const fn under(self, row: u16) -> Self {
        Self(self.0 & !((NO_ROW as u64) << Self::ROW_SHIFT) | (row as u64) << Self::ROW_SHIFT)
    }

    #[inline(always)]
    const fn opening(self, opens: bool) -> Self {
        if opens { Self(self.0 | Self::OPENS) } else { self }
    }

    /// The conversation is to be remembered in this state.
    #[inline(always)]
    const fn remembered_as(self, state: State) -> Self {
        Self(self.0 | (state as u64) << Self::STATE_SHIFT)
    }

    /// The state to remember the conversation in; free when it is not to be.
    #[inline(always)]
    const fn state(self) -> State {
        State::from_number(((self.0 & Self::STATE) >> Self::STATE_SHIFT) as u32)
    }

    #[inline(always)]
    const fn entering(self, entered: Entered) -> Self {
        Self(self.0 | (entered as u64) << Self::ENTERED_SHIFT)
    }

    /// Number of the reason.
    #[must_use]
    #[inline(always)]
    pub const fn reason_number(self) -> u8 {
        (self.0 & Self::REASON) as u8
    }

    /// Why.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match Reason::from_number(self.reason_number()) {
            Some(reason) => reason,
            None => Reason::Internal,
        }
    }

    #[inline(always)]
    const fn is(self, reason: Reason) -> bool {
        self.reason_number() == reason as u8
    }

    /// Counter slot of the row that allowed it, or [`NO_ROW`].
    #[must_use]
    #[inline(always)]
    pub const fn row(self) -> u16 {
        (self.0 >> Self::ROW_SHIFT) as u16
    }

    /// It opens a conversation.
    #[must_use]
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & Self::OPENS != 0
    }

    /// A drop that the direction's mode only counts.
    #[must_use]
    #[inline(always)]
    pub const fn audited(self) -> bool {
        self.0 & Self::AUDITED != 0
    }

    /// What happened to the flow table.
    #[must_use]
    #[inline(always)]
    pub const fn entered(self) -> Option<Entered> {
        Entered::from_number((self.0 & Self::ENTERED) >> Self::ENTERED_SHIFT)
    }

    /// Whether the packet goes on.
    #[must_use]
    #[inline(always)]
    pub const fn passes(self) -> bool {
        Verdict::of_number(self.reason_number()).is_pass() || self.audited()
    }
}

impl core::fmt::Debug for Decision {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Decision")
            .field("reason", &self.reason())
            .field("row", &(self.row() != NO_ROW).then_some(self.row()))
            .field("opens", &self.opens())
            .field("audited", &self.audited())
            .field("entered", &self.entered())
            .finish()
    }
}

/// Where a parsed datagram lies while it is judged.
///
/// On the host anywhere. In the kernel in a map: every way through the parser leaves other constants
/// behind (the protocol is 6, the last three words of an IPv4 address are 0), and the verifier would
/// walk the whole decision once for each; what it reads back from a map it knows nothing about. The
/// stack has no room for it either.
pub trait Desk {
    /// Lays a datagram down.
    fn lay(&self, datagram: Datagram);

    /// The datagram that was laid down; none before.
    fn laid(&self) -> Option<&Datagram>;
}

impl Desk for core::cell::OnceCell<Datagram> {
    fn lay(&self, datagram: Datagram) {
        self.get_or_init(|| datagram);
    }

    fn laid(&self) -> Option<&Datagram> {
        self.get()
    }
}

/// What a decision is made with: the image and the two tables.
pub struct Tables<'a, L: Lines + ?Sized, F: Store, T: Store> {
    /// The compiled policy.
    pub image: Image<'a, L>,
    /// Conversations.
    pub flows: &'a F,
    /// Fragment trains.
    pub trains: &'a T,
}

struct Vlans<'a, 'b, L: Lines + ?Sized>(&'b Image<'a, L>);

impl<L: Lines + ?Sized> Forget for Vlans<'_, '_, L> {
    #[inline(always)]
    fn forget(&self, value: u64) -> u64 {
        self.0.lines().forget(value)
    }
}

impl<L: Lines + ?Sized> parse::Link for Vlans<'_, '_, L> {
    #[inline(always)]
    fn serves_vlan(&self, id: u16) -> bool {
        self.0.serves_vlan(id)
    }
}

/// Judges a frame.
#[inline(always)]
pub fn judge<P, L, F, T, D>(hook: Direction, packet: &P, tables: &Tables<'_, L, F, T>, desk: &D) -> Decision
where
    P: Packet + ?Sized,
    L: Lines + ?Sized,
    F: Store,
    T: Store,
    D: Desk,
{
    let settled = read(packet, &tables.image, desk);
    if settled != 0 {
        let decision = Decision(u64::from(settled) | u64::from(NO_ROW) << Decision::ROW_SHIFT);
        return audited(hook, &tables.image, decision);
    }
    let Some(datagram) = desk.laid() else { return Decision::because(Reason::Internal) };
    let word = match hook {
        Direction::Inbound => inbound(datagram, tables),
        Direction::Outbound => outbound(datagram, tables),
    };
    let decision = if word == Decision::QUOTES {
        Decision::because(related(hook, &packet.again(), datagram, tables))
    } else {
        Decision(word)
    };
    let decision = Decision(tables.image.lines().forget(decision.0));
    let decision = match decision.state() {
        State::Free => decision,
        _ => remember(hook, datagram, tables, decision),
    };
    let decision = audited(hook, &tables.image, decision);
    if datagram.fragment.is_part() && decision.passes() {
        remember_train(hook, datagram, tables, decision);
    }
    decision
}

/// In audit a would-be drop is marked as such, and passes.
#[inline(always)]
fn audited<L: Lines + ?Sized>(hook: Direction, image: &Image<'_, L>, decision: Decision) -> Decision {
    if decision.passes() || decision.is(Reason::Isolated) {
        return decision;
    }
    // An answer that inbound audit let in must be able to leave, or audit would cut it.
    let softened = decision.is(Reason::Unasked) && image.mode(Direction::Inbound) != mode::ENFORCE;
    if image.mode(hook) != mode::ENFORCE || softened {
        return Decision(decision.0 | Decision::AUDITED);
    }
    decision
}

/// Enters a conversation that is to be remembered. Without room for it its answers could not come
/// in: then it may not leave. A function of its own in the programs.
#[inline(never)]
fn remember<L, F, T>(
    hook: Direction,
    datagram: &Datagram,
    tables: &Tables<'_, L, F, T>,
    decision: Decision,
) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let generation = tables.image.generation();
    match flow::enter(tables.flows, key(hook, datagram), decision.state(), decision.row(), generation) {
        Entered::Full => Decision::because(Reason::FlowTableFull).entering(Entered::Full),
        entered => decision.entering(entered),
    }
}

/// Remembers a first fragment that passes, so that its followers may. A function of its own in the
/// programs.
#[inline(never)]
fn remember_train<L, F, T>(
    hook: Direction,
    datagram: &Datagram,
    tables: &Tables<'_, L, F, T>,
    decision: Decision,
) where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    if matches!(datagram.kind, Kind::Follower) {
        return;
    }
    match flow::find(tables.trains, train(hook, datagram)) {
        Some(found) => flow::touch(tables.trains, &found, State::Fragment),
        None => {
            let _ = flow::enter(tables.trains, train(hook, datagram), State::Fragment, decision.row(), 0);
        }
    }
}

/// The key of a datagram's conversation.
#[inline(always)]
const fn key(hook: Direction, datagram: &Datagram) -> Key {
    let Datagram { family, protocol, source, destination, source_port, destination_port, .. } = datagram;
    match hook {
        Direction::Inbound => {
            Key::new(*family, *protocol, destination, *destination_port, source, *source_port)
        }
        Direction::Outbound => {
            Key::new(*family, *protocol, source, *source_port, destination, *destination_port)
        }
    }
}

/// The key of a datagram's fragment train.
#[inline(always)]
const fn train(hook: Direction, datagram: &Datagram) -> Key {
    let Datagram { family, protocol, source, destination, fragment, .. } = datagram;
    let outbound = matches!(hook, Direction::Outbound);
    Key::train(*family, *protocol, source, destination, fragment.id, outbound)
}

/// Parses a frame and lays the datagram on the desk: 0, or the number of the reason that settles it.
/// A function of its own in the programs: what it needs of the stack is free again when it is done.
#[inline(never)]
fn read<P, L, D>(packet: &P, image: &Image<'_, L>, desk: &D) -> u8
where
    P: Packet + ?Sized,
    L: Lines + ?Sized,
    D: Desk,
{
    match parse::frame(packet, &Vlans(image)) {
        Ok(datagram) => {
            desk.lay(datagram);
            0
        }
        Err(Reason::LinkControl) if !image.switch(switch::LINK_CONTROL) => Reason::EtherType as u8,
        Err(reason) => reason as u8,
    }
}

/// Addresses that cannot be a source (RFC 1122 section 3.2.1.3, RFC 4291 section 2): this network,
/// loopback, multicast, reserved, broadcast; in IPv6 also those that embed such an IPv4 address.
#[inline(always)]
const fn impossible_source(family: Family, address: &Address) -> bool {
    match family {
        Family::V4 => matches!(address[0] >> 24, 0 | 127 | 224..=255),
        // ::/96 holds the unspecified and the loopback address, and the retired IPv4-compatible ones.
        Family::V6 => {
            address[0] >> 24 == 0xff || address[0] | address[1] | address[2] == 0 || embeds_private(address)
        }
    }
}

/// A 6to4 (RFC 3056 section 2) or well-known NAT64 address (RFC 6052 section 3.1) of an IPv4 address
/// that is not global.
#[inline(always)]
const fn embeds_private(address: &Address) -> bool {
    let v4 = if address[0] >> 16 == 0x2002 {
        address[0] << 16 | address[1] >> 16
    } else if address[0] == 0x0064_ff9b && address[1] | address[2] == 0 {
        address[3]
    } else {
        return false;
    };
    matches!(v4 >> 24, 0 | 10 | 127 | 224..=255)
        || v4 >> 20 == 0xac1
        || v4 >> 16 == 0xc0a8
        || v4 >> 16 == 0xa9fe
}

/// ::ffff:0:0/96 on the wire (RFC 6092 REC-3).
#[inline(always)]
const fn mapped(address: &Address) -> bool {
    address[0] | address[1] == 0 && address[2] == 0xffff
}

#[inline(always)]
const fn unspecified(address: &Address) -> bool {
    address[0] | address[1] | address[2] | address[3] == 0
}

/// fe80::/10.
#[inline(always)]
const fn link_local(address: &Address) -> bool {
    address[0] >> 22 == 0x3fa
}

/// Broadcast or multicast as a destination.
#[inline(always)]
const fn group(family: Family, address: &Address) -> bool {
    match family {
        Family::V4 => address[0] >> 28 == 0xe || address[0] == u32::MAX,
        Family::V6 => address[0] >> 24 == 0xff,
    }
}

/// What the link needs to work, decided without rows: none when it is nothing of the sort.
#[inline(always)]
fn link_service<L: Lines + ?Sized>(
    hook: Direction,
    datagram: &Datagram,
    image: &Image<'_, L>,
) -> Option<Reason> {
    if datagram.fragment.is_part() {
        return None;
    }
    match (datagram.protocol, datagram.kind) {
        (protocol::UDP, Kind::Ports) => {
            let (server, client) = match datagram.family {
                Family::V4 => (67, 68),
                Family::V6 => (547, 546),
            };
            let (from, to) = match hook {
                Direction::Inbound => (server, client),
                Direction::Outbound => (client, server),
            };
            let lease = datagram.source_port == from && datagram.destination_port == to;
            (lease && proper_lease(hook, datagram, image) && image.switch(switch::DHCP))
                .then_some(Reason::Dhcp)
        }
        (protocol::ICMPV6, Kind::Icmp) => control_v6(datagram, image),
        (protocol::IGMP, Kind::Other) if matches!(datagram.family, Family::V4) => {
            // RFC 3376 section 4: IGMP is sent with TTL 1, to a group.
            let proper = datagram.hop_limit == 1 && group(Family::V4, &datagram.destination);
            (proper && image.switch(switch::GROUP_MEMBERSHIP)).then_some(Reason::Multicast)
        }
        (protocol::VRRP, Kind::Other) => {
            // RFC 9568 sections 5.1.1 and 5.1.2: to the VRRP group, with TTL 255.
            let to_group = match datagram.family {
                Family::V4 => datagram.destination[0] == 0xe000_0012,
                Family::V6 => datagram.destination == [0xff02_0000, 0, 0, 0x12],
            };
            (to_group && datagram.hop_limit == 255 && image.switch(switch::VRRP)).then_some(Reason::Vrrp)
        }
        _ => None,
    }
}

/// Whether a lease message comes from where a server is and goes to this host; what leaves comes from
/// this host (checked before). DHCPv6 servers and relays answer from link-local addresses (RFC 8415
/// sections 18.3.10 and 19.2).
#[inline(always)]
fn proper_lease<L: Lines + ?Sized>(hook: Direction, datagram: &Datagram, image: &Image<'_, L>) -> bool {
    let Datagram { family, source, destination, .. } = datagram;
    match (hook, family) {
        (Direction::Outbound, _) => true,
        (Direction::Inbound, Family::V4) => {
            destination[0] == u32::MAX || image.is_local(*family, destination)
        }
        (Direction::Inbound, Family::V6) => {
            link_local(source) && (link_local(destination) || image.is_local(*family, destination))
        }
    }
}

/// ICMPv6 messages of the link itself (RFC 4890 section 4.4.1).
#[inline(always)]
fn control_v6<L: Lines + ?Sized>(datagram: &Datagram, image: &Image<'_, L>) -> Option<Reason> {
    let near = datagram.hop_limit == 255;
    let from_router = link_local(&datagram.source);
    // RFC 4861 section 7.1 and RFC 3122 section 5: code 0; only solicitations come from nowhere.
    let discovery = matches!(datagram.icmp_type, 133..=137 | 141 | 142 | 148 | 149);
    let solicits = matches!(datagram.icmp_type, 133 | 135);
    if discovery && datagram.icmp_code != 0 {
        return Some(Reason::IcmpType);
    }
    if discovery && !solicits && unspecified(&datagram.source) {
        return Some(Reason::SpoofedSource);
    }
    match datagram.icmp_type {
        // Router solicitation, neighbour solicitation and advertisement, inverse neighbour discovery.
        133 | 135 | 136 | 141 | 142 => Some(if near { Reason::Neighbour } else { Reason::HopLimit }),
        // Router advertisement: from a link-local address only (RFC 4861 section 6.1.2).
        134 => Some(match (near, from_router) {
            (false, _) => Reason::HopLimit,
            (true, false) => Reason::SpoofedSource,
            (true, true) => Reason::Neighbour,
        }),
        137 => Some(match (near && from_router, image.switch(switch::REDIRECTS)) {
            (true, true) => Reason::Neighbour,
            _ => Reason::IcmpType,
        }),
        // MLD (RFC 2710, RFC 3810): hop limit 1, from a link-local address or, while that is still
        // being checked for duplicates, from the unspecified one.
        130 | 131 | 132 | 143 => {
            let proper = datagram.hop_limit == 1 && (from_router || unspecified(&datagram.source));
            Some(if proper && image.switch(switch::GROUP_MEMBERSHIP) {
                Reason::Multicast
            } else {
                Reason::IcmpType
            })
        }
        // Secure neighbour discovery (RFC 3971) and multicast router discovery (RFC 4286).
        148 | 149 if near => Some(Reason::IcmpControl),
        151..=153 if datagram.hop_limit == 1 => Some(Reason::IcmpControl),
        _ => None,
    }
}

/// ICMP errors: those that must reach the sender of what they quote. None for other messages.
#[inline(always)]
const fn is_error(datagram: &Datagram) -> bool {
    match datagram.family {
        // Unreachable, time exceeded, parameter problem.
        Family::V4 => matches!(datagram.icmp_type, 3 | 11 | 12),
        // Unreachable, packet too big, time exceeded, parameter problem.
        Family::V6 => matches!(datagram.icmp_type, 1..=4),
    }
}

/// Type of an echo request and of an echo reply.
#[inline(always)]
const fn echo(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    }
}

/// Everything that the rulings on one datagram look at.
struct Case<'a, 'b, L: Lines + ?Sized, F: Store, T: Store> {
    hook: Direction,
    datagram: &'a Datagram,
    tables: &'a Tables<'b, L, F, T>,
    /// Class of the peer. Looked up once, first: it is the costly question, and with one place that
    /// asks it the verifier walks it once.
    class: Class,
}

impl<L: Lines + ?Sized, F: Store, T: Store> Case<'_, '_, L, F, T> {
    #[inline(always)]
    const fn image(&self) -> &Image<'_, L> {
        &self.tables.image
    }

    /// The drop reason for the peer: known to the site, or a stranger.
    #[inline(always)]
    const fn either(&self, known: Reason, stranger: Reason) -> Reason {
        if self.class.known() { known } else { stranger }
    }

    /// The tuple that the datagram would belong to, had its conversation been opened in direction
    /// `opened`.
    #[inline(always)]
    const fn tuple(&self, opened: Direction) -> Tuple {
        let Datagram { protocol, source_port, destination_port, .. } = *self.datagram;
        let (peer_port, local_port) = match self.hook {
            Direction::Inbound => (source_port, destination_port),
            Direction::Outbound => (destination_port, source_port),
        };
        let (port, client_port) = match (self.datagram.kind, opened) {
            (Kind::Ports, Direction::Inbound) => (local_port, peer_port),
            (Kind::Ports, Direction::Outbound) => (peer_port, local_port),
            _ => (protocol as u16, 0),
        };
        Tuple { direction: opened, protocol, port, client_port }
    }

    /// The row under which the peer and this host may talk, opened in direction `opened`.
    #[inline(always)]
    fn grant(&self, opened: Direction) -> Result<Grant, Denial> {
        self.image().grant(self.class, &self.tuple(opened))
    }

    /// Finds the conversation, if the policy in force still lets this host have it.
    ///
    /// An entry remembers the generation that judged it. Under another one it is judged again, once:
    /// what a changed policy no longer allows ends with the next packet of either side.
    #[inline(always)]
    fn conversation(&self) -> Option<Found> {
        let found = flow::find(self.tables.flows, key(self.hook, self.datagram))?;
        let generation = self.image().generation();
        if found.stamp == generation || found.stamp == flow::GRANDFATHERED {
            return Some(found);
        }
        let row = match self.grant(Direction::Outbound) {
            Ok(grant) => grant.row,
            Err(_) if self.image().mode(Direction::Outbound) != mode::ENFORCE => NO_ROW,
            Err(_) => return None,
        };
        flow::restamp(self.tables.flows, &found, row, generation);
        Some(Found { row, stamp: generation, ..found })
    }

    /// A later fragment: passes when its first one did.
    #[inline(always)]
    fn follower(&self) -> Reason {
        match flow::find(self.tables.trains, train(self.hook, self.datagram)) {
            Some(_) => Reason::Fragment,
            None => Reason::FragmentUnknown,
        }
    }
}

/// Rules on a datagram that comes in; the word is a [`Decision`]. A function of its own in the programs.
#[inline(never)]
fn inbound<L, F, T>(datagram: &Datagram, tables: &Tables<'_, L, F, T>) -> u64
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
    let image = &tables.image;
    let family = datagram.family;
    let class = image.class(family, &datagram.source);
    let case = Case { hook: Direction::Inbound, datagram, tables, class };
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
        return Decision::because(case.follower());
    }
    addressed_to_us(&case)
}

/// Judges what is properly addressed to this host.
#[inline(always)]
fn addressed_to_us<L, F, T>(case: &Case<'_, '_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let datagram = case.datagram;
    let icmp = matches!(datagram.kind, Kind::Icmp);
    let tcp = matches!(datagram.kind, Kind::Ports) && datagram.protocol == protocol::TCP;
    let syn = datagram.tcp_flags & tcp_flag::SYN != 0;
    let ack = datagram.tcp_flags & tcp_flag::ACK != 0;
    let (request, reply) = echo(datagram.family);
    // A SYN-ACK is only ever an answer. Of ICMP a row grants echo requests.
    let by_row = if icmp { datagram.icmp_type == request } else { !(syn && ack) };
    let mut denial = Denial::Port;
    if by_row {
        match case.grant(Direction::Inbound) {
            Ok(grant) => return Decision::by_row(grant).opening(tcp && syn),
            Err(reason) => denial = reason,
        }
    }
    if matches!(denial, Denial::Broken) {
        return Decision::because(Reason::Internal);
    }
    if matches!(datagram.kind, Kind::Ports) || icmp && datagram.icmp_type == reply {
        // A SYN answers nothing: without a row there is nothing to look up.
        if !(tcp && syn && !ack)
            && let Some(found) = case.conversation()
        {
            // RFC 6092 REC-16: only what leaves keeps a UDP conversation alive.
            if tcp {
                let state = tcp_state(datagram.tcp_flags, &found, Direction::Inbound);
                flow::touch(case.tables.flows, &found, state);
            }
            return Decision::because(Reason::Answer);
        }
        let opens = if tcp { syn && !ack } else { !icmp };
        if matches!(datagram.kind, Kind::Ports)
            && let Some(reason) = link_service(Direction::Inbound, datagram, case.image())
        {
            return Decision::because(reason);
        }
        return Decision::because(match denial {
            Denial::ClientPort => Reason::ClientPort,
            Denial::Peer if opens => case.either(Reason::SourceKnown, Reason::Source),
            _ if opens => case.either(Reason::PortKnown, Reason::Port),
            _ => case.either(Reason::NoFlowKnown, Reason::NoFlow),
        });
    }
    if let Some(reason) = link_service(Direction::Inbound, datagram, case.image()) {
        return Decision::because(reason);
    }
    if !icmp {
        return Decision::because(case.either(Reason::ProtocolKnown, Reason::Protocol));
    }
    let v6 = matches!(datagram.family, Family::V6);
    let redirect = !v6 && datagram.icmp_type == 5 && case.image().switch(switch::REDIRECTS);
    if is_error(datagram) || redirect {
        return Decision(Decision::QUOTES);
    }
    if v6 && datagram.icmp_type == request && case.image().switch(switch::ECHO_V6) {
        return Decision::because(Reason::EchoV6);
    }
    Decision::because(Reason::IcmpType)
}

/// The state that a TCP packet moves a conversation of ours to.
#[inline(always)]
const fn tcp_state(flags: u8, found: &Found, hook: Direction) -> State {
    if flags & (tcp_flag::RST | tcp_flag::FIN) != 0 {
        return State::Closing;
    }
    match (hook, flags & tcp_flag::SYN != 0) {
        (Direction::Outbound, true) => State::Opening,
        // Our own packets do not prove that anybody answers.
        (Direction::Outbound, false) => match found.tag.state() {
            State::Opening => State::Opening,
            _ => State::Established,
        },
        (Direction::Inbound, _) => State::Established,
    }
}

/// Judges an ICMP error by the conversation it quotes. It changes nothing about that conversation.
/// A function of its own in the programs.
#[inline(never)]
fn related<P, L, F, T>(
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

/// Rules on a datagram that leaves; the word is a [`Decision`]. A function of its own in the programs.
#[inline(never)]
fn outbound<L, F, T>(datagram: &Datagram, tables: &Tables<'_, L, F, T>) -> u64
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    rule_outbound(datagram, tables).0
}

#[inline(always)]
fn rule_outbound<L, F, T>(datagram: &Datagram, tables: &Tables<'_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let image = &tables.image;
    let family = datagram.family;
    let class = image.class(family, &datagram.destination);
    if matches!(family, Family::V6) && (mapped(&datagram.source) || mapped(&datagram.destination)) {
        return Decision::because(Reason::MappedAddress);
    }
    // The link's own protocols also speak from link-local addresses, and from none while there is none.
    let ours = image.is_local(family, &datagram.source);
    let early = unspecified(&datagram.source) || matches!(family, Family::V6) && link_local(&datagram.source);
    if (ours || early)
        && let Some(reason) = link_service(Direction::Outbound, datagram, image)
    {
        return Decision::because(reason);
    }
    if !ours {
        return Decision::because(Reason::SourceNotOurs);
    }
    // A row that says "anywhere" means hosts, not groups nor this machine.
    let nobody = group(family, &datagram.destination) || impossible_source(family, &datagram.destination);
    let class = if nobody { Class::NONE } else { class };
    let case = Case { hook: Direction::Outbound, datagram, tables, class };
    if matches!(datagram.kind, Kind::Follower) {
        return Decision::because(case.follower());
    }
    sent_by_us(&case)
}

/// Judges what this host sends under its own address.
#[inline(always)]
fn sent_by_us<L, F, T>(case: &Case<'_, '_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    let datagram = case.datagram;
    let icmp = matches!(datagram.kind, Kind::Icmp);
    let tcp = matches!(datagram.kind, Kind::Ports) && datagram.protocol == protocol::TCP;
    let syn = datagram.tcp_flags & tcp_flag::SYN != 0;
    let ack = datagram.tcp_flags & tcp_flag::ACK != 0;
    let (request, reply) = echo(datagram.family);
    if icmp && is_error(datagram) {
        return Decision(Decision::QUOTES);
    }
    // What answers on a conversation that an inbound row allows. A SYN answers nothing.
    let answers = if icmp { datagram.icmp_type == reply } else { !(tcp && syn && !ack) };
    if answers && case.grant(Direction::Inbound).is_ok() {
        return Decision::because(Reason::Reply);
    }
    if icmp && datagram.icmp_type == reply {
        let free = matches!(datagram.family, Family::V6) && case.image().switch(switch::ECHO_V6);
        return Decision::because(if free { Reason::Reply } else { Reason::Unasked });
    }
    if icmp && datagram.icmp_type != request {
        return Decision::because(match case.image().mode(Direction::Outbound) {
            mode::TRACK => Reason::Untracked,
            _ => Reason::IcmpType,
        });
    }
    if matches!(datagram.kind, Kind::Other) {
        return open(case);
    }
    let found = case.conversation();
    let opens = if tcp { syn && !ack } else { found.is_none() };
    if let Some(found) = found
        && (!tcp || !opens)
    {
        let state = match (tcp, icmp) {
            (true, _) => tcp_state(datagram.tcp_flags, &found, Direction::Outbound),
            (false, true) => State::Icmp,
            (false, false) => State::Udp,
        };
        flow::touch(case.tables.flows, &found, state);
        return Decision::because(Reason::Answer).under(found.row);
    }
    // A SYN is judged anew each time. What neither opens nor belongs to anything re-creates a lost
    // entry if it could have opened it; but a SYN-ACK is an answer, and nothing asked for this one.
    let decision = open(case);
    let may_open = decision.passes() || case.image().mode(Direction::Outbound) != mode::ENFORCE;
    if tcp && !opens && (!may_open || syn) {
        return Decision::because(Reason::Unasked);
    }
    if !may_open {
        return decision;
    }
    let ended = datagram.tcp_flags & (tcp_flag::RST | tcp_flag::FIN) != 0;
    let state = match (tcp, icmp) {
        (true, _) if opens => State::Opening,
        (true, _) if ended => State::Closing,
        (true, _) => State::Established,
        (false, true) => State::Icmp,
        (false, false) => State::Udp,
    };
    let decision = decision.opening(opens);
    if let Some(found) = found {
        flow::touch(case.tables.flows, &found, state);
        return decision;
    }
    decision.remembered_as(state)
}

/// Judges what opens a conversation: by row, or by the mode.
#[inline(always)]
fn open<L, F, T>(case: &Case<'_, '_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    match case.grant(Direction::Outbound) {
        Ok(grant) => Decision::by_row(grant),
        Err(Denial::Broken) => Decision::because(Reason::Internal),
        Err(_) if case.image().mode(Direction::Outbound) == mode::TRACK => {
            Decision::because(Reason::Untracked)
        }
        Err(_) => Decision::because(Reason::Destination),
    }
}
