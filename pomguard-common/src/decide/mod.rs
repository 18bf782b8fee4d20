//! The decision on a packet, and the reason for it.
//!
//! Precedence, inbound:
//!  1. Drop an impossible source address, and a destination that is not this host (except the link's own
//!     multicast).
//!  2. A fragment after the first follows the verdict on the first.
//!  3. Pass the protocols that the link needs: neighbour discovery, DHCP, group membership, VRRP.
//!  4. TCP except SYN-ACK, UDP, echo requests and other protocols: a row must allow the peer, the service and
//!     the client port. Every packet is authorised again. So there is no connection table to exhaust, and the
//!     removal of a row takes effect at the next packet.
//!  5. Pass a packet of a flow that this host opened.
//!  6. Pass an ICMP error that quotes a flow of either kind.
//!  7. Drop everything else, under the most informative reason. But a failsafe row, a timed exception or the
//!     grace period, which hold in addition to the policy, may let the packet pass.
//!
//! If a row in audit names the port, a packet that is denied because of the peer or the client port is marked
//! as a would-be drop and passes, like all would-be drops of a direction in audit.
//!
//! Outbound is the mirror image: replies to connections that inbound rows allow may leave, the outbound rows
//! judge packets that open a flow, and packets of a flow of this host keep that flow alive.
//!
//! Inbound link protocols and ICMP errors about flows are rate-limited ([`crate::rate`]).
//!
//! A suspension of the policy takes precedence over all of this. In lockdown, only failsafe rows and the
//! link's own services hold; in bypass, nothing is dropped.

mod address;
mod context;
mod decision;
mod ends;
mod fast_path;
mod inbound;
mod link;
mod outbound;
mod overrides;
mod own_multicast;
mod rate;
mod related;

pub use decision::{Decision, NO_ROW};
pub use fast_path::fast_path;

use self::{
    ends::{Endpoints, arrives, departs},
    inbound::inbound,
    outbound::outbound,
    overrides::reconsider,
    own_multicast::own_multicast,
    rate::{limited, tells_mtu},
    related::{quote, related, related_by},
};
use crate::{
    Direction,
    control::{ControlView, Timed, suspension, word},
    flow::{self, Entered, Key, Newcomer, State, Store, mark},
    image::{Barrier, Image, Lines, Tuple, mode, switch},
    packet::Packet,
    parse::{self, Datagram, Kind, Parsed, tcp_flag},
    protocol,
    reason::{Reason, Verdict},
    serve,
};

/// Storage for parsed datagrams while they are judged.
///
/// On the host, any memory will do. In the kernel, the storage is a map value: every path through the parser
/// leaves different known constants (the protocol is 6, the last three words of an IPv4 address are 0), and
/// the verifier would explore the whole decision once for each. The verifier knows nothing about a value that
/// is read back from a map. The stack is also too small.
pub trait Scratch {
    /// Stores a datagram.
    fn store(&self, place: ParsedSlot, datagram: Datagram);

    /// Returns the stored datagram, or `None` if there is none.
    fn load(&self, place: ParsedSlot) -> Option<&Datagram>;
}

/// The slots of a scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedSlot {
    /// The datagram under judgement.
    Outer = 0,
    /// The datagram that the outer one quotes, if the outer one is an ICMP error.
    Embedded = 1,
}

impl ParsedSlot {
    /// Number of slots.
    pub const ALL: usize = 2;
}

impl Scratch for [core::cell::OnceCell<Datagram>; ParsedSlot::ALL] {
    fn store(&self, place: ParsedSlot, datagram: Datagram) {
        self[place as usize].get_or_init(|| datagram);
    }

    fn load(&self, place: ParsedSlot) -> Option<&Datagram> {
        self[place as usize].get()
    }
}

/// The inputs of a decision: the image and the two tables.
pub struct Tables<'a, L: Lines + ?Sized, F: Store, T: Store> {
    /// The compiled policy.
    pub image: &'a Image<'a, L>,
    /// Flows.
    pub flows: F,
    /// Fragmented datagrams.
    pub fragments: T,
    /// The modes in force in the low half, one byte each; the kind of suspension in the high half. Both are
    /// read once per packet.
    held: u64,
}

impl<'a, L: Lines + ?Sized, F: Store, T: Store> Tables<'a, L, F, T> {
    const SUSPENSION_SHIFT: u32 = 32;

    /// Returns the tables for one packet.
    #[inline(always)]
    pub fn new(image: &'a Image<'a, L>, flows: F, fragments: T) -> Self {
        let lines = image.lines();
        let timed = Timed(lines.control(word::SUSPENSION));
        let suspended = if timed.0 == 0 { suspension::NONE } else { timed.holds(flows.now()) };
        let modes = image.modes();
        let modes = if suspended == suspension::BYPASS { mode::opened(modes) } else { modes };
        let held = lines.barrier(u64::from(modes) | u64::from(suspended) << Self::SUSPENSION_SHIFT);
        Self { image, flows, fragments, held }
    }

    /// Returns the tables for one packet while the policy is not suspended.
    #[inline(always)]
    pub fn in_peace(image: &'a Image<'a, L>, flows: F, fragments: T) -> Self {
        Self { image, flows, fragments, held: u64::from(image.modes()) }
    }

    /// Returns the mode of a direction, which says how a would-be drop is treated; see [`mode`].
    #[inline(always)]
    const fn mode(&self, direction: Direction) -> u8 {
        (self.held >> (8 * direction as u32)) as u8
    }

    /// Returns true in lockdown, where only failsafe rows hold.
    #[inline(always)]
    const fn isolated(&self) -> bool {
        self.held >> Self::SUSPENSION_SHIFT == suspension::LOCKDOWN as u64
    }

    /// Returns true if a second look may change the decision.
    #[inline(always)]
    fn reconsiders(&self, decision: Decision) -> bool {
        if self.isolated() {
            return true;
        }
        let lines = self.image.lines();
        decision.may_be_overridden() && lines.control(word::PORT_BLOOM) | lines.control(word::GRACE) != 0
    }

    /// Returns true if the image is up to date about the holders of addresses that several hosts may hold.
    #[inline(always)]
    fn knows_holders(&self) -> bool {
        Timed(self.image.lines().control(word::HOLDERS)).holds(self.flows.now()) != 0
    }

    /// Returns true if a flow of this host continues although no outbound row allows it. This is so where
    /// outbound tracks, and where outbound audits while inbound would drop the answers. Where inbound audits
    /// too, the answers pass without a flow, and are counted as would-be drops.
    #[inline(always)]
    const fn keeps_unlisted(&self) -> bool {
        match self.mode(Direction::Outbound) {
            mode::TRACK => true,
            mode::ENFORCE => false,
            _ => self.mode(Direction::Inbound) == mode::ENFORCE,
        }
    }

    /// Epoch of a fragmented datagram whose first fragment passed in lockdown.
    const ISOLATED_FRAGMENT: u32 = 1;

    /// Returns the epoch of a fragmented datagram that begins now. If the first fragment was audited, the
    /// entry holds only while the generation that audited it is in force.
    #[inline(always)]
    fn fragment_epoch(&self, audited: bool) -> u32 {
        if self.isolated() {
            Self::ISOLATED_FRAGMENT
        } else if audited {
            self.image.generation() << 1 | 1 << 31
        } else {
            0
        }
    }
}

struct Vlans<'a, 'b, L: Lines + ?Sized>(&'b Image<'a, L>);

impl<L: Lines + ?Sized> Barrier for Vlans<'_, '_, L> {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.0.lines().barrier(value)
    }
}

impl<L: Lines + ?Sized> parse::Link for Vlans<'_, '_, L> {
    #[inline(always)]
    fn serves_vlan(&self, id: u16) -> bool {
        self.0.serves_vlan(id)
    }
}

/// A link without a policy: only untagged frames and frames with a priority tag are judged.
struct NoVlans<'a, S: ?Sized>(&'a S);

impl<S: Barrier + ?Sized> Barrier for NoVlans<'_, S> {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.0.barrier(value)
    }
}

impl<S: Barrier + ?Sized> parse::Link for NoVlans<'_, S> {
    #[inline(always)]
    fn serves_vlan(&self, _: u16) -> bool {
        false
    }
}

/// Judges a frame.
#[inline(always)]
pub fn judge<P, L, F, T, D>(
    hook: Direction,
    packet: &P,
    tables: &Tables<'_, L, F, T>,
    scratch: &D,
) -> Decision
where
    P: Packet + ?Sized,
    L: Lines + ?Sized,
    F: Store,
    T: Store,
    D: Scratch,
{
    let image = tables.image;
    let number = read(packet, &Vlans(image), image.switch(switch::LINK_CONTROL), scratch);
    if number != 0 {
        let number = if number == Reason::EtherType as u8 && matches!(hook, Direction::Inbound) {
            own_multicast(packet, tables)
        } else {
            number
        };
        let decision = Decision::numbered(number);
        if tables.isolated() && !decision.goes_on_isolated() {
            return Decision::because(Reason::Isolated);
        }
        return audited(hook, tables, limited(hook, tables, decision, false));
    }
    let Some(datagram) = scratch.load(ParsedSlot::Outer) else { return Decision::because(Reason::Internal) };
    let ends = Endpoints(match hook {
        Direction::Inbound => arrives(datagram, tables),
        Direction::Outbound => departs(datagram, tables),
    });
    let word = match (ends.decision(), hook) {
        (Some(decision), _) => decision.0,
        (None, Direction::Inbound) => inbound(datagram, tables, ends.class().0),
        (None, Direction::Outbound) => outbound(datagram, tables, ends.class().0),
    };
    let decision = if word == Decision::QUOTES {
        match quote(hook, &packet.again(), datagram, tables.image.lines(), scratch) {
            0 => match scratch.load(ParsedSlot::Embedded) {
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
    let decision = Decision(image.lines().barrier(decision.0));
    let decision = if tables.reconsiders(decision) {
        Decision(reconsider(hook, datagram, tables, decision.0))
    } else {
        decision
    };
    let decision = decision.bare();
    let self_test = image.lines().self_test();
    let decision = decision.without_trace(self_test);
    let decision = limited(hook, tables, decision, tells_mtu(datagram));
    let decision = match decision.state() {
        State::Free => decision,
        _ => remember(hook, datagram, tables, decision.sent_by_socket(packet.is_from_socket(datagram))),
    };
    let decision = audited(hook, tables, decision);
    // Packets that pass only because of the mode are judged, and counted, one by one while the mode holds.
    let by_mode = decision.audited() && tables.mode(hook) != mode::ENFORCE;
    if datagram.fragment.is_part() && decision.passes() && !by_mode && self_test == 0 {
        remember_fragment(hook, datagram, tables, decision);
    }
    if matches!(hook, Direction::Inbound) && decision.lets_in() && self_test == 0 {
        remember_port(datagram, tables);
    }
    decision.noting(image.lines().noted_peer())
}

/// Records that a datagram other than an answer was let in to a local port. A separate function in the
/// programs.
#[inline(never)]
fn remember_port<L, F, T>(datagram: &Datagram, tables: &Tables<'_, L, F, T>) -> u64
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    if matches!(datagram.kind, Kind::Ports | Kind::Other) {
        let Tuple { protocol, port, .. } = context::tuple(Direction::Inbound, datagram, Direction::Inbound);
        let opens = protocol != protocol::TCP
            || datagram.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        serve::note(tables.image.lines(), protocol, port, opens, tables.flows.now());
    }
    0
}

/// Records that a packet was let in to a local port, unless the packet was an answer.
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

/// Judges a frame while no policy is in force: drops everything except packets that failsafe rows allow and
/// the protocols that those packets need.
#[inline(always)]
pub fn judge_without_policy<P, S, D>(hook: Direction, packet: &P, view: &S, now: u32, scratch: &D) -> Decision
where
    P: Packet + ?Sized,
    S: ControlView + Barrier + ?Sized,
    D: Scratch,
{
    let number = read(packet, &NoVlans(view), true, scratch);
    let decision = match scratch.load(ParsedSlot::Outer) {
        Some(datagram) if number == 0 => Decision(overrides::without_policy(hook, datagram, view, now)),
        _ if Verdict::of_number(number).is_pass() && number != 0 => Decision::numbered(number),
        _ => Decision::because(Reason::NoPolicy),
    };
    let decision = decision.without_trace(view.self_test());
    let open = Timed(view.control(word::SUSPENSION)).holds(now) == suspension::BYPASS;
    if open && !decision.passes() { Decision(decision.0 | Decision::AUDITED) } else { decision }
}

/// Returns the decision on a packet for the general path while the program of that path is missing.
#[inline(always)]
pub fn unjudged<L, F, T>(hook: Direction, tables: &Tables<'_, L, F, T>) -> Decision
where
    L: Lines + ?Sized,
    F: Store,
    T: Store,
{
    audited(hook, tables, Decision::because(Reason::Internal))
}

/// Marks a would-be drop in audit, which then passes. A would-be drop that passes because a row is in audit
/// has the mark already.
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
    // An answer to a packet that inbound audit let in must be able to leave, or audit would break the
    // connection.
    let softened = decision.is(Reason::UnsolicitedReply) && tables.mode(Direction::Inbound) != mode::ENFORCE;
    if tables.mode(hook) != mode::ENFORCE || softened {
        return Decision(decision.0 | Decision::AUDITED);
    }
    decision
}

/// Enters a flow that is to be remembered. If there is no room, drops the packet: its answers could not come
/// in. A separate function in the programs.
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
    // A flow that an override allows is judged again with every packet: no generation has judged it.
    let epoch = if decision.is(Reason::Exception) || decision.is(Reason::Failsafe) {
        flow::UNJUDGED
    } else {
        tables.image.generation()
    };
    let fin = if datagram.tcp_flags & tcp_flag::FIN != 0 { mark::FIN } else { 0 };
    let ours = if decision.is_from_socket() { fin | mark::SOCKET } else { fin };
    let newcomer = Newcomer::new(decision.state(), decision.row(), epoch).marked(ours);
    let newcomer = newcomer.urgent(decision.is(Reason::Failsafe));
    match flow::enter(&tables.flows, key(hook, datagram), newcomer) {
        Entered::Full => Decision::because(Reason::FlowTableFull).entering(Entered::Full),
        entered => decision.entering(entered),
    }
}

/// Remembers a first fragment that passes, so that the later fragments may pass. A separate function in the
/// programs.
#[inline(never)]
fn remember_fragment<L, F, T>(
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
    let epoch = tables.fragment_epoch(decision.audited());
    if let Some(found) = flow::find(&tables.fragments, fragment_key(hook, datagram)) {
        flow::touch(&tables.fragments, &found, State::Fragment);
        flow::set_epoch(&tables.fragments, &found, decision.row(), epoch);
    } else {
        let newcomer = Newcomer::new(State::Fragment, decision.row(), epoch);
        let _ = flow::enter(&tables.fragments, fragment_key(hook, datagram), newcomer);
    }
}

/// Returns the key of the datagram's flow.
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

/// Returns the fragment key of a datagram that is a fragment.
#[inline(always)]
const fn fragment_key(hook: Direction, datagram: &Datagram) -> Key {
    let Datagram { family, protocol, source, destination, fragment, .. } = datagram;
    let outbound = matches!(hook, Direction::Outbound);
    Key::fragment(*family, *protocol, source, destination, fragment.id, outbound)
}

/// Parses a frame and stores the datagram in the scratch. Returns 0, or the number of the reason that decides
/// the frame. A separate function in the programs: its stack space is free again when it returns.
#[inline(never)]
fn read<P, V, D>(packet: &P, link: &V, link_control: bool, scratch: &D) -> u8
where
    P: Packet + ?Sized,
    V: parse::Link,
    D: Scratch,
{
    match parse::frame(packet, link) {
        Parsed::Datagram(datagram) => {
            scratch.store(ParsedSlot::Outer, datagram);
            0
        }
        Parsed::Pass(Reason::LinkControl) if !link_control => Reason::EtherType as u8,
        Parsed::Pass(reason) | Parsed::Drop(reason) => reason as u8,
    }
}
