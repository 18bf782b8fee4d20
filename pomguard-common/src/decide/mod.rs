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

mod address;
mod case;
mod decision;
mod inbound;
mod link;
mod outbound;
mod quick;
mod related;

pub use decision::{Decision, NO_ROW};
pub use quick::quick;

use self::{inbound::inbound, outbound::outbound, related::related};
use crate::{
    Direction,
    flow::{self, Entered, Key, State, Store},
    image::{Forget, Image, Lines, mode, switch},
    packet::Packet,
    parse::{self, Datagram, Kind},
    reason::Reason,
};

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
