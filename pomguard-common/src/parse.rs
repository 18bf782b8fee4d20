//! Parses a frame into the datagram that the decision needs. The same code runs in BPF and on the host.
//!
//! The parser guesses nothing: for a frame that ends early, contradicts itself or is not understood, the
//! parser returns the reason under which the frame is dropped. It never reads the upper layer beyond the
//! length that the IP header announces, so Ethernet padding cannot pose as a header.

pub use crate::datagram::{Datagram, Fragment, Kind};
use crate::{
    barrier::Barrier,
    limits,
    net::{Address, Family},
    packet::{Packet, be16, be32, words},
    protocol,
    reason::Reason,
};

/// EtherTypes by name (IEEE 802 numbers).
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(crate) const VLAN: u16 = 0x8100;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(super) const SLOW: u16 = 0x8809;
    pub(super) const EAPOL: u16 = 0x888e;
    pub(crate) const SERVICE_VLAN: u16 = 0x88a8;
    pub(super) const LLDP: u16 = 0x88cc;
    /// A smaller value is a length (IEEE 802.3).
    pub(crate) const FIRST: u16 = 0x0600;
}

/// TCP flag bits (RFC 9293 section 3.1).
pub mod tcp_flag {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;
}

/// Flag sets of real connections, one bit per value of FIN, SYN, RST, ACK and URG; PSH, ECE and CWR may join
/// any set. Netfilter's connection tracking accepts the same sets.
const TCP_FLAG_SETS: u64 = {
    use tcp_flag::{ACK, FIN, RST, SYN, URG};
    1 << SYN
        | 1 << (SYN | URG)
        | 1 << (SYN | ACK)
        | 1 << RST
        | 1 << (RST | ACK)
        | 1 << (FIN | ACK)
        | 1 << (FIN | ACK | URG)
        | 1 << ACK
        | 1 << (ACK | URG)
};

/// Returns true if these flags occur in real connections.
#[inline(always)]
pub(crate) const fn tcp_flags_occur(flags: u8) -> bool {
    TCP_FLAG_SETS >> (flags & 0x37) & 1 != 0
}

/// The upper layer at the end of a header chain.
#[derive(Clone, Copy)]
struct Upper {
    protocol: u8,
    at: u32,
    fragment: Fragment,
}

/// The part of the image that the parser needs: the VLAN ids that belong to the host.
pub trait Link: Barrier {
    /// Returns true if frames with this VLAN id are judged like untagged ones. Not called for id 0, which
    /// always counts as untagged.
    fn serves_vlan(&self, id: u16) -> bool;
}

/// A frame after parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A datagram of IP. The policy decides.
    Datagram(Datagram),
    /// A frame of the link's own protocols, which passes for this reason. The decision may switch the protocol
    /// off.
    Pass(Reason),
    /// A broken or unknown frame, which is dropped for this reason.
    Drop(Reason),
}

impl From<Result<Datagram, Reason>> for Parsed {
    #[inline(always)]
    fn from(read: Result<Datagram, Reason>) -> Self {
        match read {
            Ok(datagram) => Self::Datagram(datagram),
            Err(reason) => Self::Drop(reason),
        }
    }
}

/// Parses a frame.
#[inline(always)]
pub fn frame<P: Packet + ?Sized, L: Link>(packet: &P, link: &L) -> Parsed {
    let Some(ethernet) = packet.window::<14>(0) else { return Parsed::Drop(Reason::Truncated) };
    let group_mac = ethernet[0] & 1 != 0;
    let bridge_group = be32::<0, 14>(ethernet) == 0x0180_c200;
    let mut kind = be16::<12, 14>(ethernet);
    let mut at = 14;
    let mut tags = 0;
    while kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN {
        if tags == limits::VLAN_TAGS {
            return Parsed::Drop(Reason::VlanLimit);
        }
        let Some(tag) = packet.window::<4>(at) else { return Parsed::Drop(Reason::Truncated) };
        let id = be16::<0, 4>(tag) & 0x0fff;
        if id != 0 && !link.serves_vlan(id) {
            return Parsed::Drop(Reason::VlanUnknown);
        }
        kind = be16::<2, 4>(tag);
        at = link.barrier(u64::from(at) + 4) as u32;
        tags += 1;
    }
    let at = link.barrier(at.into()) as u32;
    // A fresh view: else the verifier would explore the rest once for each number of tags.
    let packet = &packet.again();
    match kind {
        ethertype::IPV4 => ipv4(packet, at, group_mac).into(),
        ethertype::IPV6 => ipv6(packet, at, group_mac, link).into(),
        ethertype::ARP => match packet.window::<28>(at) {
            Some(_) => Parsed::Pass(Reason::Arp),
            None => Parsed::Drop(Reason::Truncated),
        },
        // Slow protocols (LACP) and LLDP are sent to the bridge group addresses only (IEEE 802.1Q table 8-1).
        ethertype::LLDP | ethertype::SLOW if bridge_group => Parsed::Pass(Reason::LinkControl),
        ethertype::EAPOL => Parsed::Pass(Reason::LinkControl),
        length if length < ethertype::FIRST && bridge_group => match packet.window::<3>(at) {
            // LLC of the spanning tree (IEEE 802.1D section 9).
            Some([0x42, 0x42, 0x03]) => Parsed::Pass(Reason::LinkControl),
            Some(_) => Parsed::Drop(Reason::EtherType),
            None => Parsed::Drop(Reason::Truncated),
        },
        _ => Parsed::Drop(Reason::EtherType),
    }
}

/// Returns the number of bytes from `at` to the end of a frame that is longer than any length field can say:
/// the kernel made such a frame of many TCP segments (BIG TCP). Returns `None` for a frame that may have come
/// over a wire in this form.
#[inline(always)]
fn beyond_any_length<P: Packet + ?Sized>(packet: &P, at: u32) -> Option<u32> {
    let bytes = packet.length().wrapping_sub(at);
    (packet.length() > at && bytes > u32::from(u16::MAX) && packet.may_hold_segments()).then_some(bytes)
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, at: u32, group_mac: bool) -> Result<Datagram, Reason> {
    let Some(header) = packet.window::<20>(at) else { return Err(Reason::Truncated) };
    let header_length = u32::from(header[0] & 0x0f) * 4;
    let total = match be16::<2, 20>(header) {
        // The kernel reads the length in the same way, see `iph_totlen`.
        0 if header[9] == protocol::TCP => beyond_any_length(packet, at).unwrap_or(0),
        total => total.into(),
    };
    if header[0] >> 4 != 4 || header_length < 20 || total < header_length {
        return Err(Reason::Malformed);
    }
    let end = at + total;
    if end > packet.length() {
        return Err(Reason::Truncated);
    }
    let upper_protocol = header[9];
    let position = be16::<6, 20>(header);
    let (offset, more) = ((position & 0x1fff) * 8, position & 0x2000 != 0);
    let fragment = if offset != 0 || more {
        Fragment { id: u32::from(be16::<4, 20>(header)), offset, more }
    } else {
        Fragment::WHOLE
    };
    let datagram = Datagram {
        family: Family::V4,
        kind: Kind::Other,
        protocol: upper_protocol,
        hop_limit: header[8],
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        group_mac,
        source: [be32::<12, 20>(header), 0, 0, 0],
        destination: [be32::<16, 20>(header), 0, 0, 0],
        source_port: 0,
        destination_port: 0,
        fragment,
        upper: at + header_length,
        end,
    };
    if header_length > 20 {
        // IGMP always carries a Router Alert option (RFC 3376 section 4); no other accepted packet has
        // options.
        let alert = packet.window::<4>(at + 20);
        if upper_protocol != protocol::IGMP
            || header_length != 24
            || !matches!(alert, Some([0x94, 0x04, 0x00, 0x00]))
        {
            return Err(Reason::IpOptions);
        }
    }
    upper(packet, datagram)
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized, M: Barrier + ?Sized>(
    packet: &P,
    at: u32,
    group_mac: bool,
    memory: &M,
) -> Result<Datagram, Reason> {
    let Some(header) = packet.window::<40>(at) else { return Err(Reason::Truncated) };
    if header[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let (first, start, payload) = match be16::<4, 40>(header) {
        0 => segments_v6(packet, header[6], at + 40)?,
        payload => (header[6], at + 40, payload.into()),
    };
    let end = at + 40 + payload;
    if end > packet.length() {
        return Err(Reason::Truncated);
    }
    let hop_limit = header[7];
    let source = words::<8, 12, 16, 20, 40>(header);
    let destination = words::<24, 28, 32, 36, 40>(header);
    let found = extensions(packet, first, start, end, memory)?;
    let datagram = Datagram {
        family: Family::V6,
        kind: Kind::Other,
        protocol: found.protocol,
        hop_limit,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        group_mac,
        source,
        destination,
        source_port: 0,
        destination_port: 0,
        fragment: found.fragment,
        upper: found.at,
        end,
    };
    upper(packet, datagram)
}

/// Reads the payload after an IPv6 header with payload length 0: only TCP segments that the kernel has merged
/// into one packet are accepted. The payload begins at `at`. Returns the next header, the offset of that
/// header, and the payload length.
///
/// Up to Linux 6.18 at least, the kernel puts a hop-by-hop header with the jumbo option (RFC 2675) in front
/// of TCP and removes it before the wire (`ipv6_hopopt_jumbo_remove`); a kernel may also omit the header, as
/// with IPv4. A jumbogram from the wire is refused: no Ethernet frame is that long.
///
/// # Errors
/// [`Reason::Malformed`] if the payload is empty, a jumbogram, or not TCP.
#[inline(always)]
fn segments_v6<P: Packet + ?Sized>(packet: &P, next: u8, at: u32) -> Result<(u8, u32, u32), Reason> {
    const HOP_BY_HOP: u8 = 0;
    /// First word of the header: TCP follows, eight bytes in total, jumbo option with four bytes of data.
    const JUMBO: u32 = (protocol::TCP as u32) << 24 | 0xc204;
    let Some(payload) = beyond_any_length(packet, at) else { return Err(Reason::Malformed) };
    match (next, packet.window::<8>(at)) {
        (protocol::TCP, _) => Ok((protocol::TCP, at, payload)),
        (HOP_BY_HOP, Some(jumbo)) if be32::<0, 8>(jumbo) == JUMBO && be32::<4, 8>(jumbo) == payload => {
            Ok((protocol::TCP, at + 8, payload))
        }
        _ => Err(Reason::Malformed),
    }
}

/// Walks the IPv6 extension headers (RFC 8200 section 4) up to the upper layer.
#[inline(always)]
fn extensions<P: Packet + ?Sized, M: Barrier + ?Sized>(
    packet: &P,
    first: u8,
    start: u32,
    end: u32,
    memory: &M,
) -> Result<Upper, Reason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    /// Flag above the fragment's id: more fragments follow.
    const MORE: u64 = 1 << 32;
    /// Flag above the fragment's id: a fragment header was seen.
    const SEEN: u64 = 1 << 33;

    let mut next = first;
    let mut at = start;
    let mut part = 0;
    let mut walked = 0;
    while walked <= limits::EXTENSION_HEADERS {
        let more = part & MORE != 0;
        match next {
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION => {}
            protocol => {
                let fragment = Fragment { id: part as u32, offset: 0, more };
                return Ok(Upper { protocol, at, fragment });
            }
        }
        if walked == limits::EXTENSION_HEADERS || at > limits::HEADER_REACH as u32 {
            return Err(Reason::ExtensionLimit);
        }
        // Hop-by-hop options stand first or not at all (RFC 8200 section 4.1).
        if next == HOP_BY_HOP && walked != 0 {
            return Err(Reason::ExtensionHeader);
        }
        if at + 8 > end {
            // RFC 7112 section 5: the first fragment holds the whole chain.
            return Err(if more { Reason::Fragmented } else { Reason::Truncated });
        }
        let Some(header) = packet.window::<8>(at) else { return Err(Reason::Truncated) };
        if next == FRAGMENT {
            if part & SEEN != 0 {
                return Err(Reason::Fragmented);
            }
            let position = be16::<2, 8>(header);
            let id = be32::<4, 8>(header);
            let (offset, more) = (position & 0xfff8, position & 1 != 0);
            next = header[0];
            at += 8;
            if offset != 0 {
                return Ok(Upper { protocol: next, at, fragment: Fragment { id, offset, more } });
            }
            // An atomic fragment is a whole packet (RFC 6946 section 4).
            part = if more { u64::from(id) | SEEN | MORE } else { SEEN };
        } else {
            // Source routes are refused: type 0 by RFC 5095, other types because segments are left to visit.
            if next == ROUTING && (header[3] != 0 || matches!(header[2], 0 | 2 | 4)) {
                return Err(Reason::ExtensionHeader);
            }
            next = header[0];
            at += (u32::from(header[1]) + 1) * 8;
        }
        part = memory.barrier(part);
        at = memory.barrier(at.into()) as u32;
        walked += 1;
    }
    Err(Reason::ExtensionLimit)
}

/// Checks the fragment, then reads the upper-layer fields that the decision needs.
#[inline(always)]
fn upper<P: Packet + ?Sized>(packet: &P, mut datagram: Datagram) -> Result<Datagram, Reason> {
    let Datagram { upper: at, end, .. } = datagram;
    if at > end {
        return Err(if datagram.fragment.is_part() { Reason::Fragmented } else { Reason::Truncated });
    }
    if at > limits::HEADER_REACH as u32 + 40 {
        return Err(Reason::ExtensionLimit);
    }
    let fragment = datagram.fragment;
    if fragment.is_part() {
        let length = end - at;
        let misaligned = fragment.more && (length & 7 != 0 || length == 0);
        let too_long = u32::from(fragment.offset) + length > 65_535;
        // A second fragment at offset 8 could rewrite the TCP flags (RFC 3128 section 3).
        let rewrites = fragment.offset == 8 && datagram.protocol == protocol::TCP;
        if misaligned || too_long || rewrites {
            return Err(Reason::Fragmented);
        }
        if fragment.offset != 0 {
            datagram.kind = Kind::Follower;
            return Ok(datagram);
        }
    }
    match (datagram.protocol, datagram.family) {
        (protocol::TCP, _) => tcp(packet, datagram),
        (protocol::UDP, _) => udp(packet, datagram),
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => icmp(packet, datagram),
        // Both protocols have at least eight bytes (RFC 3376 section 4, RFC 9568 section 5.1).
        (protocol::IGMP | protocol::VRRP, _) if at + 8 > end => Err(short(&datagram)),
        _ => Ok(datagram),
    }
}

/// Returns the reason for a packet that ends before the end of the upper-layer header.
#[inline(always)]
fn short(datagram: &Datagram) -> Reason {
    // RFC 1858 section 3.2: a first fragment too small for the header hides the ports.
    if datagram.fragment.is_part() { Reason::Fragmented } else { Reason::Truncated }
}

#[inline(always)]
fn tcp<P: Packet + ?Sized>(packet: &P, mut datagram: Datagram) -> Result<Datagram, Reason> {
    let at = datagram.upper;
    if at + 20 > datagram.end {
        return Err(short(&datagram));
    }
    let Some(header) = packet.window::<20>(at) else { return Err(Reason::Truncated) };
    let length = u32::from(header[12] >> 4) * 4;
    if length < 20 {
        return Err(Reason::Malformed);
    }
    if at + length > datagram.end {
        return Err(short(&datagram));
    }
    let flags = header[13];
    if !tcp_flags_occur(flags) {
        return Err(Reason::TcpFlags);
    }
    datagram.kind = Kind::Ports;
    datagram.tcp_flags = flags;
    datagram.source_port = be16::<0, 20>(header);
    datagram.destination_port = be16::<2, 20>(header);
    ports(datagram)
}

#[inline(always)]
fn udp<P: Packet + ?Sized>(packet: &P, mut datagram: Datagram) -> Result<Datagram, Reason> {
    let at = datagram.upper;
    if at + 8 > datagram.end {
        return Err(short(&datagram));
    }
    let Some(header) = packet.window::<8>(at) else { return Err(Reason::Truncated) };
    let length = u32::from(be16::<4, 8>(header));
    if length < 8 || (!datagram.fragment.is_part() && at + length > datagram.end) {
        return Err(Reason::Malformed);
    }
    datagram.kind = Kind::Ports;
    datagram.source_port = be16::<0, 8>(header);
    datagram.destination_port = be16::<2, 8>(header);
    ports(datagram)
}

#[inline(always)]
fn ports(datagram: Datagram) -> Result<Datagram, Reason> {
    if datagram.source_port == 0 || datagram.destination_port == 0 {
        return Err(Reason::PortZero);
    }
    Ok(datagram)
}

#[inline(always)]
fn icmp<P: Packet + ?Sized>(packet: &P, mut datagram: Datagram) -> Result<Datagram, Reason> {
    let at = datagram.upper;
    // No message that may pass is shorter; MLDv1 done messages and neighbour solicitations are longer.
    if at + 8 > datagram.end {
        return Err(short(&datagram));
    }
    let Some(header) = packet.window::<8>(at) else { return Err(Reason::Truncated) };
    datagram.kind = Kind::Icmp;
    datagram.icmp_type = header[0];
    datagram.icmp_code = header[1];
    let id = be16::<4, 8>(header);
    datagram.source_port = id;
    datagram.destination_port = id;
    Ok(datagram)
}

/// The flow that an ICMP error quotes, as seen by the sender of the quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Upper protocol of the quoted packet.
    pub protocol: u8,
    /// Source address of the quoted packet.
    pub source: Address,
    /// Destination address of the quoted packet.
    pub destination: Address,
    /// Source port, or the identifier of an echo request.
    pub source_port: u16,
    /// Destination port, or the identifier of an echo request.
    pub destination_port: u16,
}

/// Reads the packet that an ICMP error quotes, 8 bytes after the start of the error's own header.
///
/// # Errors
/// [`Reason::IcmpUnrelated`] if the quoted packet is cut short, is a later fragment, or has a protocol
/// without flows (RFC 5927 section 4.3 requires a check of the quoted ports).
#[inline(always)]
pub fn quoted<P: Packet + ?Sized, M: Barrier + ?Sized>(
    packet: &P,
    datagram: &Datagram,
    memory: &M,
) -> Result<Quoted, Reason> {
    let at = datagram.upper + 8;
    let (upper, source, destination) = match datagram.family {
        Family::V4 => {
            if at + 20 > datagram.end {
                return Err(Reason::IcmpUnrelated);
            }
            let Some(header) = packet.window::<20>(at) else { return Err(Reason::IcmpUnrelated) };
            let length = u32::from(header[0] & 0x0f) * 4;
            // Only the first fragment has ports. A quoted packet may have options (RFC 5508 REQ-3b).
            if header[0] >> 4 != 4 || length < 20 || be16::<6, 20>(header) & 0x1fff != 0 {
                return Err(Reason::IcmpUnrelated);
            }
            let upper = Upper { protocol: header[9], at: at + length, fragment: Fragment::WHOLE };
            (upper, [be32::<12, 20>(header), 0, 0, 0], [be32::<16, 20>(header), 0, 0, 0])
        }
        Family::V6 => {
            if at + 40 > datagram.end {
                return Err(Reason::IcmpUnrelated);
            }
            let Some(header) = packet.window::<40>(at) else { return Err(Reason::IcmpUnrelated) };
            if header[0] >> 4 != 6 {
                return Err(Reason::IcmpUnrelated);
            }
            let (source, destination) =
                (words::<8, 12, 16, 20, 40>(header), words::<24, 28, 32, 36, 40>(header));
            let Ok(upper) = extensions(packet, header[6], at + 40, datagram.end, memory) else {
                return Err(Reason::IcmpUnrelated);
            };
            if upper.fragment.offset != 0 {
                return Err(Reason::IcmpUnrelated);
            }
            (upper, source, destination)
        }
    };
    if upper.at + 8 > datagram.end || upper.at > 2 * limits::HEADER_REACH as u32 {
        return Err(Reason::IcmpUnrelated);
    }
    let Some(header) = packet.window::<8>(upper.at) else { return Err(Reason::IcmpUnrelated) };
    let (source_port, destination_port) = match (upper.protocol, datagram.family, header[0]) {
        (protocol::TCP | protocol::UDP, _, _) => (be16::<0, 8>(header), be16::<2, 8>(header)),
        // Echo requests: type 8 (RFC 792) and 128 (RFC 4443).
        (protocol::ICMP, Family::V4, 8) | (protocol::ICMPV6, Family::V6, 128) => {
            let id = be16::<4, 8>(header);
            (id, id)
        }
        _ => return Err(Reason::IcmpUnrelated),
    };
    Ok(Quoted { protocol: upper.protocol, source, destination, source_port, destination_port })
}
