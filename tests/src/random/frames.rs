//! Packets of every shape, and frames that are almost such packets.

use std::net::Ipv6Addr;

use pomguard::policy::{Direction, PortRange, Row};
use pomguard_common::protocol::{ICMP, ICMPV6, TCP, UDP};

use super::{Random, addresses, inside, port};
use crate::{
    packet::{Packet, Part, eth, ether, extension},
    reference,
};

/// Returns a packet that may open a flow: mostly valid, and always of the upper protocols that the rows name.
fn valid(random: &mut Random, direction: Direction) -> Packet {
    let v6 = random.once_in(2);
    let (from, to) = addresses(random, direction, v6);
    let packet = dressed(random, eth().ip(from, to), v6);
    let packet = carrying(random, packet, v6);
    if random.once_in(10) { packet.mirrored() } else { packet }
}

/// Returns a packet that a row of the policy allows, in the row's direction or as an answer.
fn allowed(random: &mut Random, row: &Row, direction: Direction) -> Option<Packet> {
    let peer = row.peers.get(random.below(row.peers.len().max(1)))?.prefix;
    let peer = inside(random, peer);
    let service = row.services.get(random.below(row.services.len().max(1)))?;
    let places = if peer.is_ipv6() { reference::Places::v6() } else { reference::Places::v4() };
    let within = |random: &mut Random, ports: PortRange| {
        ports.first.max(1)
            + random.below(usize::from(ports.last - ports.first.max(1).min(ports.last)) + 1) as u16
    };
    let (client, port) = (within(random, row.client_ports), within(random, service.ports));
    let (from, to) = match row.direction {
        Direction::Inbound => (peer, places.host),
        Direction::Outbound => (places.host, peer),
    };
    let answer = direction != row.direction;
    let packet = if random.once_in(4) {
        dressed(random, eth().ip(from, to), peer.is_ipv6())
    } else {
        eth().ip(from, to)
    };
    let packet = match service.protocol {
        TCP if answer => packet.tcp(client, port).flags(random.of(&[18, 16, 24, 17, 4])),
        TCP => packet.tcp(client, port).flags(random.of(&[2, 2, 16, 24, 17, 4, 20])),
        UDP => packet.udp(client, port),
        ICMP | ICMPV6 => {
            let (request, reply) = if peer.is_ipv6() { (128, 129) } else { (8, 0) };
            packet.icmp(if answer { reply } else { request }, 0).rest(random.of(&[1, 2, 3]) << 16)
        }
        other => packet.protocol(other),
    };
    let length = random.of(&[0, 0, 8, 16, 64]);
    let packet = packet.payload(&random.bytes(length));
    Some(if answer { packet.mirrored() } else { packet })
}

/// Adds hop limit, extension headers, options, and sometimes the position in a fragmented datagram.
fn dressed(random: &mut Random, packet: Packet, v6: bool) -> Packet {
    let mut packet = packet.hops(random.of(&[64, 64, 1, 255]));
    if v6 && random.once_in(40) {
        for _ in 0..random.of(&[15, 16, 17, 30]) {
            packet = packet.ext_header(extension::DESTINATION, &[1, 4]);
        }
    } else if v6 && random.once_in(6) {
        for _ in 0..random.of(&[1, 1, 2, 3]) {
            let kind = random.of(&[
                extension::DESTINATION,
                extension::DESTINATION,
                extension::HOP_BY_HOP,
                extension::ROUTING,
            ]);
            let length = random.of(&[6, 6, 14, 30, 254]);
            let mut body = random.bytes(length);
            if kind == extension::ROUTING {
                body[..2].copy_from_slice(&[random.of(&[0, 2, 3, 4]), random.of(&[0, 0, 1])]);
            }
            packet = packet.ext_header(kind, &body);
        }
    }
    if random.once_in(8) {
        let (id, offset) = (random.of(&[1, 2, 3]), random.of(&[0, 0, 8, 16, 24, 1_480, 65_528]));
        packet = packet.fragment(id, offset, random.once_in(2));
    }
    if !v6 && random.once_in(16) {
        let length = random.below(40);
        packet = packet.options(&random.bytes(length));
    }
    packet
}

/// Adds an upper layer of any kind.
fn carrying(random: &mut Random, packet: Packet, v6: bool) -> Packet {
    let length = random.of(&[0, 0, 8, 16, 64]);
    let payload = random.bytes(length);
    match random.below(16) {
        0..6 => {
            let flags = random.of(&[2, 2, 2, 18, 16, 24, 17, 4, 20, 0, 3, 0x3f, 0xc2, random.0 as u8]);
            packet.tcp(port(random), port(random)).flags(flags).payload(&payload)
        }
        6..11 => packet.udp(port(random), port(random)).payload(&payload),
        11 | 12 => {
            let kind = if v6 {
                random.of(&[128, 128, 129, 130, 133, 134, 135, 136, 137, 143, 148, 151, 100, random.0 as u8])
            } else {
                random.of(&[8, 8, 0, 5, 13, random.0 as u8])
            };
            packet.icmp(kind, 0).rest(random.of(&[1, 2, 3]) << 16).payload(&payload)
        }
        13 | 14 => {
            let kind = if v6 { random.of(&[1, 2, 3, 4]) } else { random.of(&[3, 5, 11, 12]) };
            let quoted = match random.below(3) {
                0 => valid(random, Direction::Inbound).quoted(),
                _ => valid(random, Direction::Outbound).quoted(),
            };
            let kept = if random.once_in(4) { random.below(quoted.len() + 1) } else { quoted.len() };
            packet.icmp(kind, 0).rest(random.of(&[1_280, 1_500, 1_279, 0])).payload(&quoted[..kept])
        }
        _ => packet.protocol(random.of(&[2, 4, 41, 47, 50, 51, 59, 112, 132, 135, 255])).payload(&payload),
    }
}

/// Returns a packet of a service of the link.
fn of_the_link(random: &mut Random, direction: Direction) -> Packet {
    let inbound = direction == Direction::Inbound;
    let v4 = |text: [u8; 4], to: [u8; 4]| eth().ipv4(text.into(), to.into());
    let router = if inbound { [10, 9, 0, 7] } else { [10, 9, 0, 2] };
    let near: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    let group = |last| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last);
    let alert = |packet: Packet| packet.ext_header(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]);
    let (server, client) = if inbound { (67, 68) } else { (68, 67) };
    match random.below(5) {
        0 => v4(router, [224, 0, 0, 18]).hops(random.of(&[255, 254])).protocol(112).payload(&[0; 8]),
        1 => v4(router, [224, 0, 0, 1]).options(&[0x94, 4, 0, 0]).hops(1).protocol(2).payload(&[0; 8]),
        2 => {
            let kind = random.of(&[130, 131, 132, 143]);
            alert(eth().ipv6(near, group(0x16))).hops(random.of(&[1, 2])).icmp(kind, 0).payload(&[0; 16])
        }
        3 => v4(router, [255; 4]).udp(server, client).payload(&[0; 16]),
        _ => eth().ipv6(near, group(0x12)).hops(255).protocol(112).payload(&[0; 8]),
    }
}

/// Returns a packet without Ethernet header that the host may have sent to a group, or almost such a packet.
fn to_a_group_and_bare(random: &mut Random) -> Vec<u8> {
    let v6 = random.once_in(2);
    let (from, to) = addresses(random, Direction::Outbound, v6);
    let groups = if v6 { ["ff02::fb", "ff05::1:3"] } else { ["239.1.2.3", "255.255.255.255"] };
    let to = if random.once_in(8) { to } else { random.of(&groups).parse().unwrap_or(to) };
    let mut frame = eth().ip(from, to).udp(port(random), port(random)).payload(&[7; 16]).bare().build();
    if random.once_in(3) {
        let at = random.below(if v6 { 40 } else { 20 });
        frame[at] = random.of(&[0, 1, 3, 6, 8, 0x45, 0x60, 0x81, 0xff, random.0 as u8]);
    }
    if random.once_in(8) {
        frame.truncate(random.of(&[20, 24, 39, 40, 44]));
    }
    frame
}

/// Related packets: flows, fragmented datagrams, and ICMP errors about both.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The source of all choices.
    pub random: Random,
    /// Half of the packets are about these rows.
    rows: Vec<Row>,
    recent: Vec<(Direction, Packet)>,
    fragmented: Vec<(Direction, Packet, u32)>,
}

impl Stream {
    /// Creates the stream of a seed.
    #[must_use]
    pub const fn new(random: Random) -> Self {
        Self { random, rows: Vec::new(), recent: Vec::new(), fragmented: Vec::new() }
    }

    /// Makes half of the following packets be about these rows.
    pub fn aim(&mut self, rows: &[Row]) {
        self.rows = rows.to_vec();
    }

    /// Returns the next frame of a direction.
    pub fn frame(&mut self, direction: Direction) -> Vec<u8> {
        if direction == Direction::Inbound && self.random.once_in(24) {
            return to_a_group_and_bare(&mut self.random);
        }
        let packet = self.packet(direction);
        bent(&mut self.random, packet)
    }

    fn packet(&mut self, direction: Direction) -> Packet {
        let random = &mut self.random;
        let sort = random.below(16);
        if sort < 4 && !self.recent.is_empty() {
            let (was, packet) = self.recent[random.below(self.recent.len())].clone();
            if was != direction {
                let answer = packet.clone().answer();
                if sort > 0 {
                    return answer.flags(random.of(&[18, 16, 16, 17, 4, 2]));
                }
                let kind = if answer.is_v6() { random.of(&[1, 2, 3, 4]) } else { random.of(&[3, 5, 11, 12]) };
                return answer.icmp(kind, 0).rest(random.of(&[1_280, 1_279])).payload(&packet.quoted());
            }
            return packet;
        }
        if sort == 4 && !self.fragmented.is_empty() {
            let (was, packet, id) = self.fragmented[random.below(self.fragmented.len())].clone();
            if was == direction {
                return packet.fragment(id, random.of(&[8, 24, 32]), random.once_in(2));
            }
        }
        if sort == 5 {
            return of_the_link(random, direction);
        }
        let row = self.rows.get(random.below(2 * self.rows.len().max(1)));
        let packet = row.and_then(|row| allowed(random, row, direction));
        let packet = packet.unwrap_or_else(|| valid(random, direction));
        if sort == 6 && !packet.is_fragment() {
            let (whole, id) = (packet.payload(&[7; 16]), random.word() as u32);
            self.fragmented.insert(0, (direction, whole.clone(), id));
            self.fragmented.truncate(4);
            return whole.fragment(id, 0, true);
        }
        self.recent.insert(0, (direction, packet.clone()));
        self.recent.truncate(8);
        packet
    }
}

/// Builds the frame of a packet, sometimes with tags, and in one of three cases changed, cut, padded or
/// overwritten.
fn bent(random: &mut Random, mut packet: Packet) -> Vec<u8> {
    if random.once_in(8) {
        for _ in 0..random.of(&[1, 1, 2, 4, 5]) {
            let kind = random.of(&[ether::VLAN, ether::VLAN, ether::SERVICE_VLAN]);
            packet = packet.tag(kind, random.of(&[0, 0, 0, 0x2000, 5, 77, 6]));
        }
    }
    if random.once_in(12) {
        packet = packet.to(random.of(&[
            [0xff; 6],
            [1, 0, 0x5e, 0, 0, 18],
            [0x33, 0x33, 0, 0, 0, 1],
            [1, 0x80, 0xc2, 0, 0, 0],
        ]));
    }
    if !random.once_in(3) {
        return packet.build();
    }
    packet = match random.below(8) {
        0 => packet.announcing(random.of(&[0, 8, 19, 20, 27, 40, 60, 1_500, 65_535])),
        1 => packet.ether_type(random.of(&[0x0800, 0x86dd, 0x0806, 0x88cc, 0x8809, 0x888e, 38, 0x88b5])),
        2 | 3 => {
            let byte = random.word() as u8;
            packet.poke(Part::Network, random.below(48), &[byte])
        }
        4 => {
            let byte = random.word() as u8;
            packet.poke(Part::Upper, random.below(24), &[byte])
        }
        5 => {
            let length = random.below(40);
            packet.pad(&random.bytes(length))
        }
        _ => packet,
    };
    let mut frame = packet.build();
    if random.once_in(4) {
        let kept = random.below(frame.len() + 1);
        frame.truncate(kept);
    }
    for _ in 0..random.of(&[0, 0, 0, 1, 3]) {
        let at = random.below(frame.len().max(1));
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
    }
    frame
}
