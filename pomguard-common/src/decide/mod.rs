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
//!  7. Otherwise dropped, under the reason that tells most; but a failsafe tuple, a timed exception or
//!     grace, which hold beside the policy, may let it through.
//!
//! Where a row in audit names the port, what is denied for its peer or client port is marked, and passes
//! like all that a direction in audit would drop.
//!
//! Outbound is the mirror: the reverse of an inbound row may leave, what opens is judged by the
//! outbound rows, and what belongs to a conversation of ours keeps it alive.
//!
//! What the link needs, and errors about conversations, come in only so often ([`crate::rate`]).
//!
//! Panic stands above: isolated, only failsafe tuples and the link's own services hold; open, nothing
//! is dropped.

mod address;
mod beside;
mod case;
mod decision;
mod inbound;
mod link;
mod outbound;
mod own_multicast;
mod quick;
mod rate;
mod related;

pub use decision::{Decision, NO_ROW};
pub use quick::quick;

use self::{
    beside::beside,
    inbound::inbound,
    outbound::outbound,
    own_multicast::own_multicast,
    rate::{limited, tells_mtu},
    related::{quote, related, related_by},
};
use crate::{
    Direction,
    control::{Standing, Timed, panic, word},
    flow::{self, Entered, Key, Newcomer, State, Store, mark},
    image::{Forget, Image, Lines, Tuple, mode, switch},
    packet::Packet,
    parse::{self, Datagram, Kind, tcp_flag},
    protocol,
    reason::{Reason, Verdict},
    serve,
};

/// Where parsed datagrams lie while they are judged.
///
/// On the host anywhere. In the kernel in a map: every way through the parser leaves other constants
/// behind (the protocol is 6, the last three words of an IPv4 address are 0), and the verifier would
/// walk the whole decision once for each; what it reads back from a map it knows nothing about. The
/// stack has no room for it either.
pub trait Desk {
    /// Lays a datagram down.
    fn lay(&self, place: Place, datagram: Datagram);

    /// The datagram that was laid down; none before.
    fn laid(&self, place: Place) -> Option<&Datagram>;
}

/// The places of a desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The datagram under judgement.
    Judged = 0,
    /// The one that it quotes, if it is an ICMP error.
    Quoted = 1,
}

impl Place {
    /// How many there are.
    pub const ALL: usize = 2;
}

impl Desk for [core::cell::OnceCell<Datagram>; Place::ALL] {
    fn lay(&self, place: Place, datagram: Datagram) {
        self[place as usize].get_or_init(|| datagram);
    }

    fn laid(&self, place: Place) -> Option<&Datagram> {
        self[place as usize].get()
    }
}

/// What a decision is made with: the image and the two tables.
pub struct Tables<'a, L: Lines + ?Sized, F: Store, T: Store> {
    /// The compiled policy.
    pub image: &'a Image<'a, L>,
    /// Conversations.
    pub flows: F,
    /// Fragment trains.
    pub trains: T,
    /// The modes that hold now in the low half, a byte each; the kind of panic above. One look at both
    /// for the whole packet.
    held: u64,
}

impl<'a, L: Lines + ?Sized, F: Store, T: Store> Tables<'a, L, F, T> {
    const PANIC_SHIFT: u32 = 32;

    /// Tables for one packet.
    #[inline(always)]
    pub fn new(image: &'a Image<'a, L>, flows: F, trains: T) -> Self {
        let lines = image.lines();
        let timed = Timed(lines.control(word::PANIC));
        let panic = if timed.0 == 0 { panic::NONE } else { timed.holds(flows.now()) };
        let modes = image.modes();
        let modes = if panic == panic::OPEN { mode::opened(modes) } else { modes };
        let held = lines.forget(u64::from(modes) | u64::from(panic) << Self::PANIC_SHIFT);
        Self { image, flows, trains, held }
    }

    /// Tables for one packet while no panic holds.
    #[inline(always)]
    pub fn in_peace(image: &'a Image<'a, L>, flows: F, trains: T) -> Self {
        Self { image, flows, trains, held: u64::from(image.modes()) }
    }

    /// What becomes of a would-be drop, see [`mode`].
    #[inline(always)]
    const fn mode(&self, direction: Direction) -> u8 {
        (self.held >> (8 * direction as u32)) as u8
    }

    /// Whether only failsafe tuples hold.
    #[inline(always)]
    const fn isolated(&self) -> bool {
        self.held >> Self::PANIC_SHIFT == panic::ISOLATE as u64
    }

    /// Whether a second look at the decision may change it.
    #[inline(always)]
    fn looks_again(&self, decision: Decision) -> bool {
        if self.isolated() {
            return true;
        }
        let lines = self.image.lines();
        decision.is_denial() && lines.control(word::SHADE) | lines.control(word::GRACE) != 0
    }

    /// Whether a flow of ours goes on that no outbound row allows: where outbound tracks; and where it audits
    /// and inbound would drop the answers. Where inbound audits, too, they pass without a flow, and are counted
    /// as what they would be.
    #[inline(always)]
    const fn keeps_unlisted(&self) -> bool {
        match self.mode(Direction::Outbound) {
            mode::TRACK => true,
            mode::ENFORCE => false,
            _ => self.mode(Direction::Inbound) == mode::ENFORCE,
        }
    }

    /// Stamp of a fragment train whose first fragment passed isolated.
    const ISOLATED_TRAIN: u32 = 1;

    /// Stamp of a fragment train that begins now. One whose first fragment was audited holds while the
    /// generation does that audited it.
    #[inline(always)]
    fn train_stamp(&self, audited: bool) -> u32 {
        if self.isolated() {
            Self::ISOLATED_TRAIN
        } else if audited {
            self.image.generation() << 1 | 1 << 31
        } else {
            0
        }
    }
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

/// A link of which nothing is known: only untagged frames and priority tags are judged.
struct NoVlans<'a, S: ?Sized>(&'a S);

impl<S: Forget + ?Sized> Forget for NoVlans<'_, S> {
    #[inline(always)]
    fn forget(&self, value: u64) -> u64 {
        self.0.forget(value)
    }
}

impl<S: Forget + ?Sized> parse::Link for NoVlans<'_, S> {
    #[inline(always)]
    fn serves_vlan(&self, _: u16) -> bool {
        false
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
    let image = tables.image;
    let settled = read(packet, &Vlans(image), image.switch(switch::LINK_CONTROL), desk);
    if settled != 0 {
        let settled = if settled == Reason::EtherType as u8 && matches!(hook, Direction::Inbound) {
            own_multicast(packet, image)
        } else {
            settled
        };
        let decision = Decision::numbered(settled);
        if tables.isolated() && !decision.goes_on_isolated() {
            return Decision::because(Reason::Isolated);
        }
        return audited(hook, tables, limited(hook, tables, decision, false));
    }
    let Some(datagram) = desk.laid(Place::Judged) else { return Decision::because(Reason::Internal) };
    let word = match hook {
        Direction::Inbound => inbound(datagram, tables),
        Direction::Outbound => outbound(datagram, tables),
    };
    let decision = if word == Decision::QUOTES {
        match quote(hook, &packet.again(), datagram, tables.image.lines(), desk) {
            0 => match desk.laid(Place::Quoted) {
                Some(quoted) => {
                    let by_policy = related(hook, quoted, tables);
                    Decision(related_by(hook, quoted, tables, by_policy))
                }
                None => Decision::because(Reason::Internal),
            },
            number => Decision::numbered(number),
        }
    } else {
        Decision(word)
    };
    let decision = Decision(image.lines().forget(decision.0));
    let decision = if tables.looks_again(decision) {
        Decision(beside(hook, datagram, tables, decision.0))
    } else {
        decision
    };
    let self_test = image.lines().self_test();
    let decision = decision.without_trace(self_test);
    let decision = limited(hook, tables, decision, tells_mtu(datagram));
    let decision = match decision.state() {
        State::Free => decision,
        _ => remember(hook, datagram, tables, decision.sent_by_socket(packet.is_from_socket(datagram))),
    };
    let decision = audited(hook, tables, decision);
    // What the mode alone lets through is let through again, and counted again, as long as the mode holds.
    let by_mode = decision.audited() && tables.mode(hook) != mode::ENFORCE;
    if datagram.fragment.is_part() && decision.passes() && !by_mode && self_test == 0 {
        remember_train(hook, datagram, tables, decision);
    }
    if matches!(hook, Direction::Inbound) && decision.lets_in() && self_test == 0 {
        remember_port(datagram, tables);
    }
    decision
}

/// Notes that a datagram was let in to a local port, and was no answer. A function of its own in the programs.
#[inline(never)]
fn remember_port<L, F, T>(datagram: &Datagram, tables: &Tables<'_, L, F, T>) -> u64
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    if matches!(datagram.kind, Kind::Ports | Kind::Other) {
        let Tuple { protocol, port, .. } = case::tuple(Direction::Inbound, datagram, Direction::Inbound);
        let opens = protocol != protocol::TCP
            || datagram.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        serve::note(tables.image.lines(), protocol, port, opens, tables.flows.now());
    }
    0
}

/// Notes that something was let in to a local port, unless it was an answer.
#[inline(always)]
fn let_in<L, F, T>(tables: &Tables<'_, L, F, T>, protocol: u8, port: u16, opens: bool, decision: Decision)
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    if decision.lets_in() {
        serve::note(tables.image.lines(), protocol, port, opens, tables.flows.now());
    }
}

/// Judges a frame while no policy is in force: closed, but for failsafe tuples and what they need.
#[inline(always)]
pub fn judge_without_policy<P, S, D>(
    hook: Direction,
    packet: &P,
    standing: &S,
    now: u32,
    desk: &D,
) -> Decision
where
    P: Packet + ?Sized,
    S: Standing + Forget + ?Sized,
    D: Desk,
{
    let settled = read(packet, &NoVlans(standing), true, desk);
    let decision = match desk.laid(Place::Judged) {
        Some(datagram) if settled == 0 => Decision(beside::without_policy(hook, datagram, standing, now)),
        _ if Verdict::of_number(settled).is_pass() && settled != 0 => Decision::numbered(settled),
        _ => Decision::because(Reason::NoPolicy),
    };
    let decision = decision.without_trace(standing.self_test());
    let open = Timed(standing.control(word::PANIC)).holds(now) == panic::OPEN;
    if open && !decision.passes() { Decision(decision.0 | Decision::AUDITED) } else { decision }
}

/// Judges a packet that is for the general path, while the program for that is not in its place.
#[inline(always)]
pub fn unjudged<L, F, T>(hook: Direction, tables: &Tables<'_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    audited(hook, tables, Decision::because(Reason::Internal))
}

/// In audit a would-be drop is marked as such, and passes. One that a row's audit lets through has its mark
/// already.
#[inline(always)]
fn audited<L, F, T>(hook: Direction, tables: &Tables<'_, L, F, T>, decision: Decision) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    if decision.passes() || tables.isolated() {
        return decision;
    }
    // An answer that inbound audit let in must be able to leave, or audit would cut it.
    let softened = decision.is(Reason::Unasked) && tables.mode(Direction::Inbound) != mode::ENFORCE;
    if tables.mode(hook) != mode::ENFORCE || softened {
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
    // What a pinhole allows is asked for it again and again: no generation has judged it.
    let stamp = if decision.is(Reason::Exception) || decision.is(Reason::Failsafe) {
        flow::UNJUDGED
    } else {
        tables.image.generation()
    };
    let fin = if datagram.tcp_flags & tcp_flag::FIN != 0 { mark::FIN } else { 0 };
    let ours = if decision.is_from_socket() { fin | mark::SOCKET } else { fin };
    let newcomer = Newcomer::new(decision.state(), decision.row(), stamp).marked(ours);
    let newcomer = newcomer.urgent(decision.is(Reason::Failsafe));
    match flow::enter(&tables.flows, key(hook, datagram), newcomer) {
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
    let stamp = tables.train_stamp(decision.audited());
    if let Some(found) = flow::find(&tables.trains, train(hook, datagram)) {
        flow::touch(&tables.trains, &found, State::Fragment);
        flow::restamp(&tables.trains, &found, decision.row(), stamp);
    } else {
        let newcomer = Newcomer::new(State::Fragment, decision.row(), stamp);
        let _ = flow::enter(&tables.trains, train(hook, datagram), newcomer);
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
fn read<P, V, D>(packet: &P, link: &V, link_control: bool, desk: &D) -> u8
where
    P: Packet + ?Sized,
    V: parse::Link,
    D: Desk,
{
    match parse::frame(packet, link) {
        Ok(datagram) => {
            desk.lay(Place::Judged, datagram);
            0
        }
        Err(Reason::LinkControl) if !link_control => Reason::EtherType as u8,
        Err(reason) => reason as u8,
    }
}
