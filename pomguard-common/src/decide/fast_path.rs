//! Fast path: decides a plain packet without parsing it into a datagram.
//!
//! Nearly all packets are plain: TCP or UDP over IP without tags, options or fragments, between this host and
//! a peer. This path makes the checks in the order in which they are cheapest. It returns no decision for a
//! packet that is unusual in any respect: such a packet takes the general path ([`super::judge`]) from the
//! start. For every packet that the fast path decides, the general path would reach the same decision.

use super::{Decision, Env, address::impossible_source, audited, let_in};
use crate::{
    Direction,
    control::Override,
    flow::{self, Found, Glance, Key},
    image::{Barrier, Class, Family, Image, Lines, Miss, MissReason, Service},
    packet::{Packet, be16, be32, be64},
    parse::{ethertype, tcp_flag, tcp_flags_occur},
    protocol,
    reason::Reason,
};

/// Decides a plain packet; returns `None` for any other.
///
/// `port_bloom` is the port bloom of the overrides: the fast path does not drop a packet that an override
/// might allow. The caller handles bypass, lockdown and the grace period: while one of them holds, the caller
/// does not use the fast path.
#[inline(always)]
pub fn fast_path<P, E>(hook: Direction, packet: &P, env: &E, port_bloom: u64) -> Option<Decision>
where
    P: Packet + ?Sized,
    E: Env,
{
    let ethernet = packet.window::<14>(0)?;
    if ethernet[0] & 1 != 0 {
        return None;
    }
    match be16::<12, 14>(ethernet) {
        ethertype::IPV4 => classify::<V4, P, E>(hook, packet, env, port_bloom),
        ethertype::IPV6 => classify::<V6, P, E>(hook, packet, env, port_bloom),
        _ => None,
    }
}

#[inline(always)]
fn classify<I, P, E>(hook: Direction, packet: &P, env: &E, port_bloom: u64) -> Option<Decision>
where
    I: Ip,
    P: Packet + ?Sized,
    E: Env,
{
    let (source, destination, segment) = I::read(packet)?;
    let segment = segment.forgotten(env.image().lines());
    match hook {
        Direction::Inbound => {
            let ends = Endpoints::<I> { ours: destination, theirs: source, segment };
            let decision = audited(hook, env, ends.inbound(env, port_bloom)?);
            let opens = !segment.tcp() || segment.opens();
            let_in(env, segment.protocol, segment.destination_port, opens, decision);
            Some(decision)
        }
        Direction::Outbound => {
            let ends = Endpoints::<I> { ours: source, theirs: destination, segment };
            ends.outbound(env)
        }
    }
}

/// The upper-layer fields of a plain packet.
#[derive(Clone, Copy)]
struct Segment {
    protocol: u8,
    /// TCP flags; 0 for UDP.
    flags: u8,
    source_port: u16,
    destination_port: u16,
}

/// The raw fields of the upper layer, independent of the IP version.
struct Fields {
    ports: u32,
    /// UDP length.
    length: u16,
    /// TCP: the byte with the data offset.
    offset: u8,
    flags: u8,
}

impl Segment {
    /// Returns `None` if the header is unusual in any respect. `room` is the number of bytes that the IP
    /// header leaves for the segment.
    #[inline(always)]
    fn new(protocol: u8, room: u32, fields: &Fields) -> Option<Self> {
        let flags = match protocol {
            protocol::TCP => {
                let length = u32::from(fields.offset >> 4) * 4;
                if length < 20 || length > room || !tcp_flags_occur(fields.flags) {
                    return None;
                }
                fields.flags
            }
            protocol::UDP => {
                if fields.length < 8 || u32::from(fields.length) > room {
                    return None;
                }
                0
            }
            _ => return None,
        };
        let (source_port, destination_port) = ((fields.ports >> 16) as u16, fields.ports as u16);
        if source_port == 0 || destination_port == 0 {
            return None;
        }
        Some(Self { protocol, flags, source_port, destination_port })
    }

    /// Hides the protocol and the flags from the verifier, so that it explores the code after this only once
    /// for TCP and UDP.
    #[inline(always)]
    fn forgotten<F: Barrier + ?Sized>(self, memory: &F) -> Self {
        let word = memory.barrier(u64::from(self.protocol) << 8 | u64::from(self.flags));
        Self { protocol: (word >> 8) as u8, flags: word as u8, ..self }
    }

    #[inline(always)]
    const fn tcp(self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Returns true for a SYN without ACK.
    #[inline(always)]
    const fn opens(self) -> bool {
        self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }

    /// Returns true for a SYN with ACK.
    #[inline(always)]
    const fn accepts(self) -> bool {
        self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK
    }
}

/// An IP version.
trait Ip {
    type Address: Copy;
    /// Reads a plain packet. Returns the source, the destination and the upper-layer fields.
    fn read<P: Packet + ?Sized>(packet: &P) -> Option<(Self::Address, Self::Address, Segment)>;
    /// Returns true if the address is an ordinary address of a single host.
    fn plain(address: Self::Address) -> bool;
    /// Returns true if `ours` is an address of this host and `theirs` is not.
    fn is_local_to_remote<L: Lines + ?Sized>(
        image: &Image<'_, L>,
        ours: Self::Address,
        theirs: Self::Address,
    ) -> bool;
    /// Returns true if the address is one of this host's.
    fn is_local<L: Lines + ?Sized>(image: &Image<'_, L>, address: Self::Address) -> bool;
    /// Returns the class of an address.
    fn class<L: Lines + ?Sized>(image: &Image<'_, L>, address: Self::Address) -> Class;
    /// Returns the key of a flow.
    fn key(protocol: u8, ours: Self::Address, port: u16, theirs: Self::Address, peer_port: u16) -> Key;
    /// DHCP ports: the server's, then the client's.
    const LEASE: [u16; 2];
}

enum V4 {}

impl Ip for V4 {
    type Address = u32;
    const LEASE: [u16; 2] = [67, 68];

    #[inline(always)]
    fn read<P: Packet + ?Sized>(packet: &P) -> Option<(u32, u32, Segment)> {
        // The window covers Ethernet, IPv4 without options, and TCP. A shorter UDP frame takes the general
        // path.
        let header = packet.window::<54>(0)?;
        let total = u32::from(be16::<16, 54>(header));
        // Version 4 with a header of five words. Not a fragment: all bits below the upper two are 0.
        let plain = header[14] == 0x45 && be16::<20, 54>(header) << 2 == 0;
        if !plain || total < 20 || 14 + total > packet.length() {
            return None;
        }
        let fields = Fields {
            ports: be32::<34, 54>(header),
            length: be16::<38, 54>(header),
            offset: header[46],
            flags: header[47],
        };
        let segment = Segment::new(header[23], total - 20, &fields)?;
        Some((be32::<26, 54>(header), be32::<30, 54>(header), segment))
    }

    #[inline(always)]
    fn plain(address: u32) -> bool {
        !impossible_source(Family::V4, &[address, 0, 0, 0])
    }

    #[inline(always)]
    fn is_local_to_remote<L: Lines + ?Sized>(image: &Image<'_, L>, ours: u32, theirs: u32) -> bool {
        image.is_local_to_remote_v4(ours, theirs)
    }

    #[inline(always)]
    fn is_local<L: Lines + ?Sized>(image: &Image<'_, L>, address: u32) -> bool {
        image.is_local_v4(address)
    }

    #[inline(always)]
    fn class<L: Lines + ?Sized>(image: &Image<'_, L>, address: u32) -> Class {
        image.class_v4(address)
    }

    #[inline(always)]
    fn key(protocol: u8, ours: u32, port: u16, theirs: u32, peer_port: u16) -> Key {
        Key::new(Family::V4, protocol, &[ours, 0, 0, 0], port, &[theirs, 0, 0, 0], peer_port)
    }
}

enum V6 {}

impl Ip for V6 {
    type Address = [u64; 2];
    const LEASE: [u16; 2] = [547, 546];

    #[inline(always)]
    fn read<P: Packet + ?Sized>(packet: &P) -> Option<([u64; 2], [u64; 2], Segment)> {
        // The window covers Ethernet, IPv6 and TCP. A shorter UDP frame takes the general path.
        let header = packet.window::<74>(0)?;
        let payload = u32::from(be16::<18, 74>(header));
        if header[14] >> 4 != 6 || 54 + payload > packet.length() {
            return None;
        }
        let fields = Fields {
            ports: be32::<54, 74>(header),
            length: be16::<58, 74>(header),
            offset: header[66],
            flags: header[67],
        };
        let segment = Segment::new(header[20], payload, &fields)?;
        let source = [be64::<22, 74>(header), be64::<30, 74>(header)];
        let destination = [be64::<38, 74>(header), be64::<46, 74>(header)];
        Some((source, destination, segment))
    }

    #[inline(always)]
    fn plain(address: [u64; 2]) -> bool {
        // ::/64 holds the unspecified, loopback, mapped and compatible addresses; 2002::/16 and 64:ff9b::/96
        // embed IPv4 addresses; ff00::/8 is multicast.
        let top = address[0] >> 48;
        address[0] != 0 && top != 0x2002 && address[0] >> 32 != 0x0064_ff9b && top >> 8 != 0xff
    }

    #[inline(always)]
    fn is_local_to_remote<L: Lines + ?Sized>(image: &Image<'_, L>, ours: [u64; 2], theirs: [u64; 2]) -> bool {
        image.is_local_to_remote_v6(ours, theirs)
    }

    #[inline(always)]
    fn is_local<L: Lines + ?Sized>(image: &Image<'_, L>, address: [u64; 2]) -> bool {
        image.is_local_v6(address)
    }

    #[inline(always)]
    fn class<L: Lines + ?Sized>(image: &Image<'_, L>, address: [u64; 2]) -> Class {
        image.class_v6(address[0], address[1])
    }

    #[inline(always)]
    fn key(protocol: u8, ours: [u64; 2], port: u16, theirs: [u64; 2], peer_port: u16) -> Key {
        Key::of_words(Family::V6, protocol, ours, port, theirs, peer_port)
    }
}

/// A plain packet between this host and another.
struct Endpoints<I: Ip> {
    ours: I::Address,
    theirs: I::Address,
    segment: Segment,
}

impl<I: Ip> Endpoints<I> {
    #[inline(always)]
    fn inbound<E: Env>(&self, env: &E, port_bloom: u64) -> Option<Decision> {
        let image = env.image();
        let Segment { protocol, source_port, destination_port, .. } = self.segment;
        let hosts = I::plain(self.theirs) && I::plain(self.ours);
        if !hosts || !I::is_local_to_remote(image, self.ours, self.theirs) {
            return None;
        }
        // Before the class, whose look-up the processor mispredicts: the memory is fetched meanwhile.
        let service = if self.segment.accepts() {
            None
        } else {
            image.service(Direction::Inbound, protocol, destination_port)
        };
        // The barrier makes the verifier explore the look-up of the class once.
        let service = Service::unpack(image.lines().barrier(Service::pack(service)));
        let class = I::class(image, self.theirs);
        // The source is, or was, an address of this machine: the general path knows if that is possible.
        if class.is_held() {
            return None;
        }
        let miss = match service {
            None => Miss::NO_SERVICE,
            Some(service) => match image.cell(class, service, source_port) {
                Ok(row_match) => {
                    return Some(Decision::by_row(row_match).opening(self.segment.opens()));
                }
                Err(miss_reason) => Miss { miss_reason, audit: service.in_audit() },
            },
        };
        // The barrier makes the verifier explore the look-up of the flow once, instead of once per miss reason.
        let Miss { miss_reason, audit } = miss.hidden(image.lines());
        if port_bloom & Override::port_bloom_bit(protocol, destination_port) != 0
            || matches!(miss_reason, MissReason::Broken)
        {
            return None;
        }
        if !self.segment.opens() {
            if source_port == I::LEASE[0] && destination_port == I::LEASE[1] {
                return None;
            }
            let key = I::key(protocol, self.ours, destination_port, self.theirs, source_port);
            match flow::glance(env.flows(), &key) {
                Glance::Found(found) => {
                    if !fresh(image, &found) {
                        return None;
                    }
                    if !self.segment.tcp() {
                        flow::answered(env.flows(), &found);
                    } else if !flow::plain_segment(env.flows(), &found, self.segment.flags) {
                        return None;
                    }
                    return Some(Decision::because(Reason::OwnFlow));
                }
                Glance::Absent => {}
                Glance::Unsure => return None,
            }
        }
        let either = |known, stranger| if class.known() { known } else { stranger };
        let opens = self.segment.opens() || !self.segment.tcp();
        let reason = match miss_reason {
            MissReason::ClientPort => Reason::ClientPort,
            MissReason::Peer if opens => either(Reason::SourceKnown, Reason::Source),
            _ if opens => either(Reason::PortKnown, Reason::Port),
            _ => either(Reason::NoFlowKnown, Reason::NoFlow),
        };
        let decision = Decision::because(reason).not_enforced(audit).noting(class.note());
        // The barrier makes the verifier explore the code after this once. A packet that passes needs none,
        // and the compiler knows then what becomes of it.
        Decision::of_word(image.lines().barrier(decision.word()))
    }

    /// Decides only packets that answer or continue a flow. The general path enters new flows into the table.
    #[inline(always)]
    fn outbound<E: Env>(&self, env: &E) -> Option<Decision> {
        let image = env.image();
        let Segment { protocol, source_port, destination_port, .. } = self.segment;
        let lease = source_port == I::LEASE[1] && destination_port == I::LEASE[0];
        let hosts = I::plain(self.theirs) && I::plain(self.ours);
        if self.segment.opens() || lease || !hosts || !I::is_local(image, self.ours) {
            return None;
        }
        // The class is looked up only for a listed port: most packets of this host's own flows need none.
        let listed = match image.service(Direction::Inbound, protocol, source_port) {
            Some(service) => image.cell(I::class(image, self.theirs), service, destination_port).is_ok(),
            None => false,
        };
        // The barrier makes the verifier explore the look-up of the flow once.
        if image.lines().barrier(listed.into()) != 0 {
            return Some(Decision::because(Reason::PeerFlow));
        }
        let key = I::key(protocol, self.ours, source_port, self.theirs, destination_port);
        let Glance::Found(found) = flow::glance(env.flows(), &key) else { return None };
        if !fresh(image, &found) {
            return None;
        }
        if !self.segment.tcp() {
            flow::touch(env.flows(), &found, found.tag.state());
        } else if !flow::plain_segment(env.flows(), &found, self.segment.flags) {
            return None;
        }
        Some(Decision::because(Reason::OwnFlow).under(found.row))
    }
}

/// Returns true if the policy in force has judged the flow.
#[inline(always)]
fn fresh<L: Lines + ?Sized>(image: &Image<'_, L>, found: &Found) -> bool {
    found.epoch == image.generation() || found.epoch == flow::GRANDFATHERED
}
