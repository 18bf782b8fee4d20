//! Shapes of packets that a host may answer although nobody should reach the service that answers: unusual
//! packets, with one oddity at a time and with several at once.
//!
//! A test sends each shape to find out if a stock Linux host answers.

use std::net::IpAddr;

use crate::{
    packet::{
        Packet, Part, eth, ether, extension,
        flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG},
    },
    random::Random,
};

mod beyond;

/// The addresses of the shapes, and the ports that nobody may reach.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// The sender.
    pub from: IpAddr,
    /// The host that is addressed.
    pub to: IpAddr,
    /// A port with a TCP and a UDP listener.
    pub open: u16,
    /// A port without a listener.
    pub closed: u16,
}

/// One shape: a name, and the frames of one attempt, all of which carry the mark.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Description of the oddity.
    pub name: String,
    /// The client port or echo identifier. An answer contains the mark.
    pub mark: u16,
    /// The frames in the order of sending.
    pub frames: Vec<Vec<u8>>,
}

/// Changes a packet.
type Dress = fn(Packet) -> Packet;

/// Changes of any packet at the link layer.
const LINK: &[(&str, Dress)] = &[
    ("a priority tag", |it| it.vlan(0)),
    ("a priority tag of priority 7, eligible to drop", |it| it.vlan(0xf000)),
    ("two priority tags", |it| it.vlan(0).vlan(0)),
    ("three priority tags", |it| it.vlan(0).vlan(0).vlan(0)),
    ("four priority tags", |it| it.vlan(0).vlan(0).vlan(0).vlan(0)),
    ("five priority tags", |it| it.vlan(0).vlan(0).vlan(0).vlan(0).vlan(0)),
    ("eight priority tags", |it| (0..8).fold(it, |it, _| it.vlan(0))),
    ("an 802.1ad priority tag", |it| it.tag(ether::SERVICE_VLAN, 0)),
    ("priority tags of both sorts", |it| it.vlan(0).tag(ether::SERVICE_VLAN, 0)),
    ("to the broadcast station", |it| it.to([0xff; 6])),
    ("to a group station of IPv4", |it| it.to([1, 0, 0x5e, 0, 0, 1])),
    ("to a group station of IPv6", |it| it.to([0x33, 0x33, 0, 0, 0, 1])),
    ("padded with zeroes", |it| it.pad(&[0; 40])),
    ("padded with what looks like a TCP header", |it| {
        it.pad(&[0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0])
    }),
    ("of every class", |it| it.class(0xff)),
    ("of the lowest class that sees congestion", |it| it.class(0x03)),
    ("with one hop left", |it| it.hops(1)),
    ("with 255 hops left", |it| it.hops(255)),
];

/// Contents of an IPv4 header.
const V4: &[(&str, Dress)] = &[
    ("a no-operation option", |it| it.ip_options(&[1, 1, 1, 1])),
    ("forty bytes of no-operation options", |it| it.ip_options(&[1; 40])),
    ("an end of options", |it| it.ip_options(&[0, 0, 0, 0])),
    ("a record route option", |it| it.ip_options(&[7, 7, 4, 0, 0, 0, 0])),
    ("a full record route option", |it| it.ip_options(&[7, 7, 8, 10, 77, 0, 9])),
    ("a timestamp option", |it| it.ip_options(&[68, 8, 5, 0, 0, 0, 0, 0])),
    ("a router alert option", |it| it.ip_options(&[0x94, 4, 0, 0])),
    ("a loose source route at its end", |it| it.ip_options(&[0x83, 7, 8, 10, 77, 0, 9])),
    ("a strict source route at its end", |it| it.ip_options(&[0x89, 7, 8, 10, 77, 0, 9])),
    ("a stream id option", |it| it.ip_options(&[0x88, 4, 0, 1])),
    ("a security option", |it| it.ip_options(&[0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    ("an option that nobody knows", |it| it.ip_options(&[0x9e, 4, 0, 0])),
    ("an experimental option", |it| it.ip_options(&[0xde, 4, 0, 0])),
    ("an atomic datagram's flag", |it| it.fragment_flags(0x4000)),
    ("the reserved flag", |it| it.fragment_flags(0x8000)),
    ("the reserved and the don't-fragment flag", |it| it.fragment_flags(0xc000)),
];

/// Extension headers between an IPv6 header and the upper layer.
const V6: &[(&str, Dress)] = &[
    ("hop-by-hop padding", |it| it.ext_header(extension::HOP_BY_HOP, &[1, 4])),
    ("a router alert", |it| it.ext_header(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0])),
    ("a hop-by-hop option to skip", |it| it.ext_header(extension::HOP_BY_HOP, &[0x1e, 4])),
    ("a hop-by-hop option to complain about", |it| it.ext_header(extension::HOP_BY_HOP, &[0x9e, 4])),
    ("a destination option to skip", |it| it.ext_header(extension::DESTINATION, &[0x1e, 4])),
    ("a destination option to complain about", |it| it.ext_header(extension::DESTINATION, &[0x9e, 4])),
    ("a tunnel limit", |it| it.ext_header(extension::DESTINATION, &[4, 1, 0])),
    ("hop-by-hop and destination padding", |it| {
        it.ext_header(extension::HOP_BY_HOP, &[1, 4]).ext_header(extension::DESTINATION, &[1, 4])
    }),
    ("long destination padding", |it| it.ext_header(extension::DESTINATION, &[1, 252])),
    ("a routing header of type 0 at its end", |it| it.ext_header(extension::ROUTING, &[0, 0])),
    ("a routing header of type 0 on its way", |it| it.ext_header(extension::ROUTING, &[0, 1])),
    ("a routing header of type 2 at its end", |it| it.ext_header(extension::ROUTING, &[2, 0])),
    ("a routing header of type 3 at its end", |it| it.ext_header(extension::ROUTING, &[3, 0])),
    ("a routing header of type 4 at its end", |it| it.ext_header(extension::ROUTING, &[4, 0])),
    ("a routing header of type 253 at its end", |it| it.ext_header(extension::ROUTING, &[253, 0])),
    ("a routing header of type 253 on its way", |it| it.ext_header(extension::ROUTING, &[253, 1])),
    ("an atomic fragment header", |it| it.fragment(77, 0, false)),
    ("an atomic fragment header before destination padding", |it| {
        it.fragment(77, 0, false).ext_header(extension::DESTINATION, &[1, 4])
    }),
    ("two atomic fragment headers", |it| it.fragment(77, 0, false).fragment(78, 0, false)),
    ("a flow label", |it| it.poke(Part::Network, 1, &[0x0f, 0xff, 0xff])),
];

/// Contents of a SYN.
const SYNS: &[(&str, Dress)] = &[
    ("that asks for congestion marks", |it| it.flags(SYN | ECE | CWR)),
    ("that pushes", |it| it.flags(SYN | PSH)),
    ("with urgent data", |it| it.flags(SYN | URG)),
    ("with every harmless flag", |it| it.flags(SYN | PSH | URG | ECE | CWR)),
    ("with data", |it| it.payload(&[7; 64])),
    ("with a segment size", |it| it.options(&[2, 4, 5, 0xb4])),
    ("with the options of Linux", |it| {
        it.options(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7])
    }),
    ("with forty bytes of no-operations", |it| it.options(&[1; 40])),
    ("with an option that nobody knows", |it| it.options(&[0xfd, 4, 0, 0])),
    ("with an option that ends beyond the header", |it| it.options(&[2, 40, 0, 0])),
    ("that asks for a fast open cookie", |it| it.options(&[34, 2, 1, 1])),
    ("that speaks multipath", |it| it.options(&[30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8])),
];

/// Ways to fragment one datagram: a name, the offsets of the cuts, and the order of sending.
const CUTS: &[(&str, &[u16], &[usize])] = &[
    ("in two pieces", &[24], &[0, 1]),
    ("in two pieces, the last one first", &[24], &[1, 0]),
    ("in three pieces", &[24, 40], &[0, 1, 2]),
    ("in three pieces, backwards", &[24, 40], &[2, 1, 0]),
    ("in three pieces, the first one last", &[24, 40], &[1, 2, 0]),
    ("in two pieces, the first one twice", &[24], &[0, 0, 1]),
    ("in two pieces, the last one twice", &[24], &[1, 1, 0]),
    ("in two pieces, the first one of 8 bytes", &[8], &[0, 1]),
    ("in two pieces, the first one of 16 bytes", &[16], &[0, 1]),
    ("in nine pieces of 8 bytes", &[8, 16, 24, 32, 40, 48, 56, 64], &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ("in nine pieces of 8 bytes, shuffled", &[8, 16, 24, 32, 40, 48, 56, 64], &[5, 0, 7, 2, 8, 1, 6, 3, 4]),
];

/// Makes shapes, each with a mark of its own.
#[derive(Debug)]
struct Making {
    doors: Doors,
    mark: u16,
    shapes: Vec<Shape>,
}

impl Making {
    fn add(&mut self, name: String, make: impl FnOnce(Packet, u16) -> Vec<Packet>) {
        self.mark += 1;
        let packets = make(eth().ip(self.doors.from, self.doors.to), self.mark);
        let frames = packets.iter().map(Packet::build).collect();
        self.shapes.push(Shape { name, mark: self.mark, frames });
    }
}

/// The plainest packets to a port.
const KNOCKS: [&str; 5] =
    ["a SYN", "a SYN to a closed port", "UDP", "UDP to a closed port", "an echo request"];

/// Puts the upper layer of a knock on an IP header.
fn knock(number: usize, doors: &Doors, ip: Packet, mark: u16) -> Packet {
    match number {
        0 => ip.tcp(mark, doors.open),
        1 => ip.tcp(mark, doors.closed),
        2 => ip.udp(mark, doors.open).payload(b"anybody at home? please say something; it is cold out here."),
        3 => ip.udp(mark, doors.closed).payload(b"anybody at home?"),
        _ => ip.icmp(if doors.to.is_ipv4() { 8 } else { 128 }, 0).rest(u32::from(mark) << 16),
    }
}

/// Returns every shape with one oddity each, then `more` shapes with several. The first mark is `mark` + 1.
#[must_use]
pub fn shapes(doors: Doors, mark: u16, random: &mut Random, more: usize) -> Vec<Shape> {
    let v4 = doors.to.is_ipv4();
    // Echo over IPv6 is answered on purpose (RFC 4890).
    let knocks = &KNOCKS[..if v4 { 5 } else { 4 }];
    let own = if v4 { V4 } else { V6 };
    let mut making = Making { doors, mark, shapes: Vec::new() };
    for (number, name) in knocks.iter().enumerate() {
        making.add((*name).to_owned(), |ip, mark| vec![knock(number, &doors, ip, mark)]);
        for (oddity, dress) in own.iter().chain(LINK) {
            making.add(format!("{name}, {oddity}"), |ip, mark| vec![knock(number, &doors, dress(ip), mark)]);
        }
    }
    if !v4 {
        for headers in 1..=64 {
            making.add(format!("a SYN behind {headers} destination headers"), |ip, mark| {
                let ip = (0..headers).fold(ip, |ip, _| ip.ext_header(extension::DESTINATION, &[1, 4]));
                vec![ip.tcp(mark, doors.open)]
            });
        }
    }
    for (oddity, dress) in SYNS {
        making.add(format!("a SYN {oddity}"), |ip, mark| vec![dress(ip.tcp(mark, doors.open))]);
    }
    for reserved in 1..8_u8 {
        making.add(format!("a SYN with the reserved bits {reserved:03b}"), |ip, mark| {
            vec![reserved_bits(ip.tcp(mark, doors.open), reserved)]
        });
    }
    for flags in (0..64).filter(|flags| flags & RST == 0) {
        for (state, port) in [("a listening", doors.open), ("a closed", doors.closed)] {
            making.add(format!("the flags {flags:06b} to {state} port"), |ip, mark| {
                vec![ip.tcp(mark, port).flags(flags)]
            });
        }
    }
    for well_known in [20, 22, 53, 80, 123, 443, 5_432] {
        making.add(format!("an ACK from port {well_known}"), |ip, _| {
            vec![ip.tcp(well_known, doors.closed).flags(ACK)]
        });
        if let Some(last) = making.shapes.last_mut() {
            last.mark = well_known;
        }
    }
    for (pieces, places, order) in CUTS {
        for (number, name) in knocks.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
            making.add(format!("{name} {pieces}"), |ip, mark| {
                pieces_of(&knock(number, &doors, ip, mark).payload(&[7; 64]), mark, places, order)
            });
            making.add(format!("{name} {pieces}, each behind a priority tag"), |ip, mark| {
                let all = pieces_of(&knock(number, &doors, ip, mark).payload(&[7; 64]), mark, places, order);
                all.into_iter().map(|piece| piece.vlan(0)).collect()
            });
        }
    }
    for number in [0, 6, 99, 115, 132, 136, 253, 255] {
        making.add(format!("a packet of protocol {number}"), |ip, mark| {
            vec![ip.protocol(number).payload(&[&mark.to_be_bytes()[..], &[7; 30]].concat())]
        });
    }
    if v4 {
        for kind in [13, 15, 17] {
            making.add(format!("an ICMP question of type {kind}"), |ip, mark| {
                vec![ip.icmp(kind, 0).rest(u32::from(mark) << 16).payload(&[0; 12])]
            });
        }
    }
    for _ in 0..more {
        let (number, cut) = (random.below(knocks.len()), random.once_in(4));
        let mut dresses = Vec::new();
        for _ in 0..random.of(&[2, 2, 3, 4]) {
            let from = if random.once_in(2) { own } else { LINK };
            dresses.push(from[random.below(from.len())]);
        }
        let odd: Vec<&str> = dresses.iter().map(|(oddity, _)| *oddity).collect();
        let (pieces, places, order) = CUTS[random.below(CUTS.len())];
        let name = format!("{}, {}{}", knocks[number], odd.join(", "), if cut { pieces } else { "" });
        making.add(name, |ip, mark| {
            let dressed = dresses.iter().fold(ip, |ip, (_, dress)| dress(ip));
            let whole = knock(number, &doors, dressed, mark);
            if cut { pieces_of(&whole.payload(&[7; 64]), mark, places, order) } else { vec![whole] }
        });
    }
    beyond::add(&mut making);
    making.shapes
}

fn pieces_of(whole: &Packet, id: u16, places: &[u16], order: &[usize]) -> Vec<Packet> {
    let pieces = whole.cut(u32::from(id), places);
    order.iter().filter_map(|number| pieces.get(*number).cloned()).collect()
}

/// Sets the bits between data offset and flags, and corrects the checksum.
fn reserved_bits(packet: Packet, bits: u8) -> Packet {
    let frame = packet.build();
    let at = frame.len() - 20;
    let before = u32::from(u16::from_be_bytes([frame[at + 16], frame[at + 17]]));
    // RFC 1624: subtracts the added word from the ones' complement sum.
    let added = u32::from(bits) << 9;
    let sum = before + (!added & 0xffff);
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    packet.poke(Part::Upper, 12, &[0x50 | bits << 1]).poke(Part::Upper, 16, &sum.to_be_bytes())
}

/// The loop over all sets of six flags includes no flags at all and the flags that end connections.
const _: () = assert!(FIN | SYN | RST | PSH | ACK | URG == 63);
