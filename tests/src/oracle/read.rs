//! Parses a frame, byte slice by byte slice, as the RFCs draw the headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pomguard::policy::PacketSettings;
use pomguard_common::{
    image::Family,
    parse::{Datagram, Fragment, Kind},
    reason::Reason,
};

/// An IP packet.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    pub(super) protocol: u8,
    /// True if the frame is addressed to a broadcast or multicast MAC address.
    pub(super) to_group_station: bool,
    /// The position in a datagram, if the packet is a fragment.
    pub(super) piece: Option<Piece>,
    /// Number of bytes of the frame before the upper layer, and the end of the upper layer.
    pub(super) before: usize,
    pub(super) end: usize,
    pub(super) body: Body,
}

/// The upper layer of a packet.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Tcp(Segment),
    Udp {
        from: u16,
        to: u16,
    },
    /// ICMP of the packet's own family, with the bytes after the checksum.
    Icmp {
        kind: u8,
        code: u8,
        id: u16,
        rest: Vec<u8>,
    },
    /// A later fragment, which has no upper header.
    Later,
    Other,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) syn: bool,
    pub(super) ack: bool,
    /// All flags, as in the header.
    pub(super) flags: u8,
}

impl Segment {
    pub(super) const fn fin(self) -> bool {
        self.flags & 1 != 0
    }

    pub(super) const fn rst(self) -> bool {
        self.flags & 4 != 0
    }
}

impl Seen {
    /// Returns the packet in the form that the programs use.
    pub(super) fn datagram(&self) -> Datagram {
        let mut datagram = Datagram {
            family: if self.source.is_ipv4() { Family::V4 } else { Family::V6 },
            kind: Kind::Other,
            protocol: self.protocol,
            hop_limit: self.hops,
            tcp_flags: 0,
            icmp_type: 0,
            icmp_code: 0,
            group_mac: self.to_group_station,
            source: words(self.source),
            destination: words(self.destination),
            source_port: 0,
            destination_port: 0,
            fragment: self.piece.map_or(Fragment::WHOLE, |piece| Fragment {
                id: piece.id,
                offset: piece.offset as u16,
                more: piece.more,
            }),
            upper: self.before as u32,
            end: self.end as u32,
        };
        match &self.body {
            Body::Tcp(segment) => {
                datagram.kind = Kind::Ports;
                datagram.tcp_flags = segment.flags;
                (datagram.source_port, datagram.destination_port) = (segment.from, segment.to);
            }
            Body::Udp { from, to } => {
                datagram.kind = Kind::Ports;
                (datagram.source_port, datagram.destination_port) = (*from, *to);
            }
            Body::Icmp { kind, code, id, .. } => {
                datagram.kind = Kind::Icmp;
                (datagram.icmp_type, datagram.icmp_code) = (*kind, *code);
                (datagram.source_port, datagram.destination_port) = (*id, *id);
            }
            Body::Later => datagram.kind = Kind::Follower,
            Body::Other => {}
        }
        datagram
    }
}

/// Returns an address as four words. IPv4 uses the first.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [v4.into(), 0, 0, 0],
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

/// The largest number of extension headers that are walked (docs/packets.md).
const HEADERS: usize = 16;
/// The largest offset in the frame, in bytes, at which an extension header may begin (docs/packets.md).
const REACH: usize = 2_048;
/// The largest number of VLAN tags (docs/packets.md).
const TAGS: usize = 4;
/// The largest value of a length field. Only the kernel makes longer frames (docs/packets.md).
const LONGEST: usize = 65_535;

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// Parses a frame. Returns the reason if the frame itself decides its disposition.
pub(super) fn frame(packets: &PacketSettings, frame: &[u8]) -> Result<Seen, Reason> {
    let Some((link, mut rest)) = frame.split_at_checked(14) else { return Err(Reason::Truncated) };
    let bridges = link.starts_with(&[0x01, 0x80, 0xc2, 0x00]);
    let mut kind = number(&link[12..14]);
    for tag in 0.. {
        if kind != 0x8100 && kind != 0x88a8 {
            break;
        }
        if tag == TAGS {
            return Err(Reason::VlanLimit);
        }
        let Some((tag, inner)) = rest.split_at_checked(4) else { return Err(Reason::Truncated) };
        let vlan = number(&tag[..2]) as u16 % 4_096;
        if vlan > 0 && !packets.vlans.contains(&vlan) {
            return Err(Reason::VlanUnknown);
        }
        (kind, rest) = (number(&tag[2..]), inner);
    }
    let before = frame.len() - rest.len();
    let control = if packets.link_control { Reason::LinkControl } else { Reason::EtherType };
    let mut seen = match kind {
        0x0800 => ipv4(rest, before)?,
        0x86dd => ipv6(rest, before)?,
        0x0806 if rest.len() < 28 => return Err(Reason::Truncated),
        0x0806 => return Err(Reason::Arp),
        0x888e => return Err(control),
        0x88cc | 0x8809 if bridges => return Err(control),
        0..=1535 if bridges && rest.len() < 3 => return Err(Reason::Truncated),
        0..=1535 if bridges && rest.starts_with(&[0x42, 0x42, 3]) => return Err(control),
        _ => return Err(Reason::EtherType),
    };
    seen.to_group_station = link[0] % 2 == 1;
    Ok(seen)
}

/// The fields of the IP header and its extension headers, before the upper layer is parsed.
struct Ip<'a> {
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    protocol: u8,
    piece: Option<Piece>,
    before: usize,
    upper: &'a [u8],
}

/// A position in a fragmented datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) id: u32,
    pub(super) offset: usize,
    pub(super) more: bool,
}

fn ipv4(bytes: &[u8], before: usize) -> Result<Seen, Reason> {
    if bytes.len() < 20 {
        return Err(Reason::Truncated);
    }
    let header = usize::from(bytes[0] % 16) * 4;
    let total = match number(&bytes[2..4]) {
        0 if bytes.len() > LONGEST && bytes[9] == 6 => bytes.len(),
        total => total,
    };
    if bytes[0] / 16 != 4 || header < 20 || total < header {
        return Err(Reason::Malformed);
    }
    let Some(packet) = bytes.get(..total) else { return Err(Reason::Truncated) };
    let protocol = packet[9];
    // The Router Alert of IGMP is the only option in use.
    if header > 20 && (protocol != 2 || packet[20..header] != [0x94, 4, 0, 0]) {
        return Err(Reason::IpOptions);
    }
    let place = number(&packet[6..8]);
    let (offset, more) = (place % 8_192 * 8, place & 0x2000 > 0);
    let piece = (offset > 0 || more).then(|| Piece { id: number(&packet[4..6]) as u32, offset, more });
    upper(&Ip {
        source: quad(&packet[12..16]).into(),
        destination: quad(&packet[16..20]).into(),
        hops: packet[8],
        protocol,
        piece,
        before: before + header,
        upper: &packet[header..],
    })
}

fn ipv6(bytes: &[u8], before: usize) -> Result<Seen, Reason> {
    if bytes.len() < 40 {
        return Err(Reason::Truncated);
    }
    let (payload, rest) = (number(&bytes[4..6]), &bytes[40..]);
    if bytes[0] / 16 != 6 {
        return Err(Reason::Malformed);
    }
    let (first, body) = match (payload, bytes[6]) {
        // TCP segments that the kernel holds in one packet, with or without its jumbo option.
        (0, 6) if rest.len() > LONGEST => (6, rest),
        (0, 0) if rest.len() > LONGEST && rest[..4] == [6, 0, 0xc2, 4] => {
            if number(&rest[4..8]) != rest.len() {
                return Err(Reason::Malformed);
            }
            (6, &rest[8..])
        }
        (0, _) => return Err(Reason::Malformed),
        (payload, first) => (first, rest.get(..payload).ok_or(Reason::Truncated)?),
    };
    let walked = if payload == 0 { rest.len() - body.len() } else { 0 };
    let chain = walk(first, body, before + 40 + walked)?;
    // The programs do not look for an upper header far into the frame.
    if chain.before > REACH + 40 {
        return Err(Reason::ExtensionLimit);
    }
    upper(&Ip {
        source: eight(&bytes[8..24]).into(),
        destination: eight(&bytes[24..40]).into(),
        hops: bytes[7],
        protocol: chain.protocol,
        piece: chain.piece,
        before: chain.before,
        upper: chain.upper,
    })
}

struct Chain<'a> {
    protocol: u8,
    piece: Option<Piece>,
    before: usize,
    upper: &'a [u8],
}

/// Walks the extension headers. `before` is the number of bytes of the frame before `rest`.
fn walk(first: u8, mut rest: &[u8], mut before: usize) -> Result<Chain<'_>, Reason> {
    let (mut next, mut piece, mut atomic) = (first, None::<Piece>, false);
    for step in 0.. {
        if !matches!(next, 0 | 43 | 44 | 60) {
            break;
        }
        if step == HEADERS || before > REACH {
            return Err(Reason::ExtensionLimit);
        }
        if next == 0 && step > 0 {
            return Err(Reason::ExtensionHeader);
        }
        let short = if piece.is_some() { Reason::Fragmented } else { Reason::Truncated };
        if rest.len() < 8 {
            return Err(short);
        }
        let length = match next {
            44 if piece.is_some() || atomic => return Err(Reason::Fragmented),
            44 => {
                let (place, id) = (number(&rest[2..4]), number(&rest[4..8]) as u32);
                let (offset, more) = (place / 8 * 8, place % 2 == 1);
                if offset > 0 {
                    let piece = Some(Piece { id, offset, more });
                    let before = before + 8;
                    return Ok(Chain { protocol: rest[0], piece, before, upper: &rest[8..] });
                }
                if more {
                    piece = Some(Piece { id, offset, more });
                } else {
                    atomic = true;
                }
                8
            }
            43 if rest[3] > 0 || [0, 2, 4].contains(&rest[2]) => return Err(Reason::ExtensionHeader),
            _ => 8 + 8 * usize::from(rest[1]),
        };
        next = rest[0];
        before += length;
        let walked_out = length > rest.len();
        rest = rest.get(length..).unwrap_or_default();
        if walked_out {
            // At the end of the packet the next header is missing. The limits come first.
            let walks_on = matches!(next, 0 | 43 | 44 | 60);
            if walks_on && (step + 1 == HEADERS || before > REACH) {
                return Err(Reason::ExtensionLimit);
            }
            if walks_on && next == 0 {
                return Err(Reason::ExtensionHeader);
            }
            return Err(if piece.is_some() { Reason::Fragmented } else { Reason::Truncated });
        }
    }
    Ok(Chain { protocol: next, piece, before, upper: rest })
}

fn upper(ip: &Ip<'_>) -> Result<Seen, Reason> {
    let bytes = ip.upper;
    let mut seen = Seen {
        source: ip.source,
        destination: ip.destination,
        hops: ip.hops,
        protocol: ip.protocol,
        to_group_station: false,
        piece: ip.piece,
        before: ip.before,
        end: ip.before + bytes.len(),
        body: Body::Other,
    };
    if let Some(Piece { offset, more, .. }) = ip.piece {
        let uneven = more && (bytes.is_empty() || !bytes.len().is_multiple_of(8));
        if uneven || offset + bytes.len() > 65_535 || offset == 8 && ip.protocol == 6 {
            return Err(Reason::Fragmented);
        }
        if offset > 0 {
            seen.body = Body::Later;
            return Ok(seen);
        }
    }
    let short = if ip.piece.is_some() { Reason::Fragmented } else { Reason::Truncated };
    seen.body = match (ip.protocol, ip.source) {
        (6, _) => Body::Tcp(tcp(bytes, short)?),
        (17 | 2 | 112, _) | (1, IpAddr::V4(_)) | (58, IpAddr::V6(_)) if bytes.len() < 8 => return Err(short),
        (17, _) => {
            let length = number(&bytes[4..6]);
            if length < 8 || ip.piece.is_none() && length > bytes.len() {
                return Err(Reason::Malformed);
            }
            let (from, to) = ports(bytes)?;
            Body::Udp { from, to }
        }
        (1, IpAddr::V4(_)) | (58, IpAddr::V6(_)) => Body::Icmp {
            kind: bytes[0],
            code: bytes[1],
            id: number(&bytes[4..6]) as u16,
            rest: bytes[4..].to_vec(),
        },
        _ => Body::Other,
    };
    Ok(seen)
}

fn tcp(bytes: &[u8], short: Reason) -> Result<Segment, Reason> {
    if bytes.len() < 20 {
        return Err(short);
    }
    match usize::from(bytes[12] / 16) * 4 {
        length if length < 20 => return Err(Reason::Malformed),
        length if length > bytes.len() => return Err(short),
        _ => {}
    }
    let bit = |number: u8| bytes[13] >> number & 1 == 1;
    let (fin, syn, rst, ack, urg) = (bit(0), bit(1), bit(2), bit(4), bit(5));
    // The combinations that TCP endpoints send: open, accept, reset, close, continue; urgent data only where
    // data is possible.
    let real = match (syn, rst, fin, ack) {
        (true, false, false, false) | (false, false, _, true) => true,
        (true, false, false, true) | (false, true, false, _) => !urg,
        _ => false,
    };
    if !real {
        return Err(Reason::TcpFlags);
    }
    let (from, to) = ports(bytes)?;
    Ok(Segment { from, to, syn, ack, flags: bytes[13] })
}

fn ports(bytes: &[u8]) -> Result<(u16, u16), Reason> {
    match (number(&bytes[..2]) as u16, number(&bytes[2..4]) as u16) {
        (0, _) | (_, 0) => Err(Reason::PortZero),
        both => Ok(both),
    }
}

/// The packet that an ICMP error quotes: source, destination, and ports or echo identifier.
pub(super) struct Quote {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) from: u16,
    pub(super) to: u16,
}

/// Parses a quoted packet as far as the quote goes. `before` is the number of bytes of the frame before the
/// quote.
pub(super) fn quote(bytes: &[u8], v6: bool, before: usize) -> Option<Quote> {
    let (source, destination, protocol, upper): (IpAddr, IpAddr, u8, &[u8]) = if v6 {
        let body = bytes.get(40..)?;
        let chain = (bytes[0] / 16 == 6).then(|| walk(bytes[6], body, before + 40).ok())??;
        if chain.piece.is_some_and(|piece| piece.offset > 0) {
            return None;
        }
        (eight(&bytes[8..24]).into(), eight(&bytes[24..40]).into(), chain.protocol, chain.upper)
    } else {
        let header = usize::from(bytes.first()? % 16) * 4;
        if bytes.len() < 20
            || bytes[0] / 16 != 4
            || header < 20
            || !number(&bytes[6..8]).is_multiple_of(8_192)
        {
            return None;
        }
        (quad(&bytes[12..16]).into(), quad(&bytes[16..20]).into(), bytes[9], bytes.get(header..)?)
    };
    let upper = upper.get(..8)?;
    let echo = number(&upper[4..6]) as u16;
    let (from, to) = match (protocol, v6, upper[0]) {
        (6 | 17, ..) => (number(&upper[..2]) as u16, number(&upper[2..4]) as u16),
        (1, false, 8) | (58, true, 128) => (echo, echo),
        _ => return None,
    };
    Some(Quote { source, destination, protocol, from, to })
}

fn quad(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from(number(bytes) as u32)
}

fn eight(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(bytes.iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte)))
}
