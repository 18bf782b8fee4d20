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
mod env;
mod fast_path;
mod inbound;
mod link;
mod outbound;
mod overrides;
mod own_multicast;
mod rate;
mod related;

pub use decision::{Decision, NO_ROW};
pub use env::{Env, Held, Tables};
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
    flow::{self, Entered, Key, Newcomer, State, Store as _, mark},
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
pub fn judge<P, E, D>(hook: Direction, packet: &P, env: &E, scratch: &D) -> Decision
where
    P: Packet + ?Sized,
    E: Env,
    D: Scratch,
{
    let image = env.image();
    let number = read(packet, &Vlans(image), image.switch(switch::LINK_CONTROL), scratch);
    if number != 0 {
        let number = if number == Reason::EtherType as u8 && matches!(hook, Direction::Inbound) {
            own_multicast(packet, env)
        } else {
            number
        };
        let decision = Decision::numbered(number);
        if env.isolated() && !decision.goes_on_isolated() {
            return Decision::because(Reason::Isolated);
        }
        return audited(hook, env, limited(hook, env, decision, false));
    }
    let Some(datagram) = scratch.load(ParsedSlot::Outer) else { return Decision::because(Reason::Internal) };
    let ends = Endpoints(match hook {
        Direction::Inbound => arrives(datagram, env),
        Direction::Outbound => departs(datagram, env),
    });
    let word = match (ends.decision(), hook) {
        (Some(decision), _) => decision.0,
        (None, Direction::Inbound) => inbound(datagram, env, ends.class().0),
        (None, Direction::Outbound) => outbound(datagram, env, ends.class().0),
    };
    let decision = if word == Decision::QUOTES {
        match quote(hook, &packet.again(), datagram, env.image().lines(), scratch) {
            0 => match scratch.load(ParsedSlot::Embedded) {
                Some(quoted) => {
                    let by_policy = related(hook, quoted, env);
                    Decision(related_by(hook, quoted, env, by_policy))
                }
                None => Decision::because(Reason::Internal),
            },
            number => Decision::numbered(number),
        }
    } else {
        Decision(word)
    };
    let decision = Decision(image.lines().barrier(decision.0));
    let decision = if env.reconsiders(decision) {
        Decision(reconsider(hook, datagram, env, decision.0))
    } else {
        decision
    };
    let decision = decision.bare();
    let self_test = image.lines().self_test();
    let decision = decision.without_trace(self_test);
    let decision = limited(hook, env, decision, tells_mtu(datagram));
    let decision = match decision.state() {
        State::Free => decision,
        _ => remember(hook, datagram, env, decision.sent_by_socket(packet.is_from_socket(datagram))),
    };
    let decision = audited(hook, env, decision);
    // Packets that pass only because of the mode are judged, and counted, one by one while the mode holds.
    let by_mode = decision.audited() && env.mode(hook) != mode::ENFORCE;
    if datagram.fragment.is_part() && decision.passes() && !by_mode && self_test == 0 {
        remember_fragment(hook, datagram, env, decision);
    }
    if matches!(hook, Direction::Inbound) && decision.lets_in() && self_test == 0 {
        remember_port(datagram, env);
    }
    decision.noting(image.lines().noted_peer())
}

/// Records that a datagram other than an answer was let in to a local port. A separate function in the
/// programs.
#[inline(never)]
fn remember_port<E: Env>(datagram: &Datagram, env: &E) -> u64 {
    if matches!(datagram.kind, Kind::Ports | Kind::Other) {
        let Tuple { protocol, port, .. } = context::tuple(Direction::Inbound, datagram, Direction::Inbound);
        let opens = protocol != protocol::TCP
            || datagram.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        serve::note(env.image().lines(), protocol, port, opens, env.flows().now());
    }
    0
}

/// Records that a packet was let in to a local port, unless the packet was an answer.
#[inline(always)]
fn let_in<E: Env>(env: &E, protocol: u8, port: u16, opens: bool, decision: Decision) {
    if decision.lets_in() {
        serve::note(env.image().lines(), protocol, port, opens, env.flows().now());
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
pub fn unjudged<E: Env>(hook: Direction, env: &E) -> Decision {
    audited(hook, env, Decision::because(Reason::Internal))
}

/// Marks a would-be drop in audit, which then passes. A would-be drop that passes because a row is in audit
/// has the mark already.
#[inline(always)]
fn audited<E: Env>(hook: Direction, env: &E, decision: Decision) -> Decision {
    if decision.passes() || env.isolated() {
        return decision;
    }
    // An answer to a packet that inbound audit let in must be able to leave, or audit would break the
    // connection.
    let softened = decision.is(Reason::UnsolicitedReply) && env.mode(Direction::Inbound) != mode::ENFORCE;
    if env.mode(hook) != mode::ENFORCE || softened {
        return Decision(decision.0 | Decision::AUDITED);
    }
    decision
}

/// Enters a flow that is to be remembered. If there is no room, drops the packet: its answers could not come
/// in. A separate function in the programs.
#[inline(never)]
fn remember<E: Env>(hook: Direction, datagram: &Datagram, env: &E, decision: Decision) -> Decision {
    // A flow that an override allows is judged again with every packet: no generation has judged it.
    let epoch = if decision.is(Reason::Exception) || decision.is(Reason::Failsafe) {
        flow::UNJUDGED
    } else {
        env.image().generation()
    };
    let fin = if datagram.tcp_flags & tcp_flag::FIN != 0 { mark::FIN } else { 0 };
    let ours = if decision.is_from_socket() { fin | mark::SOCKET } else { fin };
    let newcomer = Newcomer::new(decision.state(), decision.row(), epoch).marked(ours);
    let newcomer = newcomer.urgent(decision.is(Reason::Failsafe));
    match flow::enter(env.flows(), key(hook, datagram), newcomer) {
        Entered::Full => Decision::because(Reason::FlowTableFull).entering(Entered::Full),
        entered => decision.entering(entered),
    }
}

/// Remembers a first fragment that passes, so that the later fragments may pass. A separate function in the
/// programs.
#[inline(never)]
fn remember_fragment<E: Env>(hook: Direction, datagram: &Datagram, env: &E, decision: Decision) {
    if matches!(datagram.kind, Kind::Follower) {
        return;
    }
    let epoch = env.fragment_epoch(decision.audited());
    if let Some(found) = flow::find(env.fragments(), fragment_key(hook, datagram)) {
        flow::touch(env.fragments(), &found, State::Fragment);
        flow::set_epoch(env.fragments(), &found, decision.row(), epoch);
    } else {
        let newcomer = Newcomer::new(State::Fragment, decision.row(), epoch);
        let _ = flow::enter(env.fragments(), fragment_key(hook, datagram), newcomer);
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
