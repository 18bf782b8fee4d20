//! Numbers that a seed determines, policies with a few rows, and packets of every shape.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use pomguard::policy::{
    Direction, Mode, OwnAddresses, PacketSettings, Policy, PortRange, Row, RowId, Service,
    own::{Addresses, Present},
};
use pomguard_common::{
    limits,
    protocol::{ICMP, ICMPV6, TCP, UDP},
};

use crate::{
    operator_state::{self, OperatorState, Suspension},
    packet::{Packet, Part, eth, ether, extension},
    reference,
};

/// Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Returns the next number.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Returns a number below `bound`.
    pub const fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound as u64) as usize
    }

    /// Returns true once in `times` calls on average.
    pub const fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns one of the choices.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Returns `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.word() as u8).collect()
    }
}

/// A time in seconds that no scenario reaches.
pub const LATE: u32 = 100_000;

/// Ports that occur in rows and in packets.
const PORTS: [u16; 12] = [1, 22, 53, 67, 68, 443, 546, 547, 5_432, 9_995, 9_997, 40_000];

/// Prefixes that the site file may give to the host: floating addresses and own prefixes, alone, inside and around
/// the prefixes of others.
const SHARED: [&str; 6] =
    ["10.9.2.8/32", "198.51.100.8/31", "10.9.5.0/24", "fd00:9:2::8/128", "fd00:9:2::/48", "2001:db8::/64"];
/// Addresses that the machine may have in addition to the listed ones.
const MORE: [&str; 8] = [
    "10.9.2.8",
    "198.51.100.9",
    "10.9.5.5",
    "10.9.0.3",
    "fd00:9:2::8",
    "2001:db8::9",
    "fd00:9:2:5::5",
    "fd00:9::3",
];
/// Addresses of packets, besides the host's.
const V4: [&str; 15] = [
    "10.9.0.7",
    "10.9.0.2",
    "10.9.1.7",
    "10.9.2.7",
    "10.9.2.8",
    "10.9.2.255",
    "198.51.100.9",
    "0.0.0.0",
    "127.0.0.1",
    "224.0.0.18",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.0",
    "10.9.0.3",
    "10.9.5.5",
];
const V6: [&str; 15] = [
    "fd00:9::7",
    "fd00:9::2",
    "fd00:9:1::7",
    "fd00:9:2::7",
    "fd00:9:2::8",
    "fd00:9:2:0:ffff::",
    "2001:db8::9",
    "::",
    "::1",
    "ff02::12",
    "ff02::1",
    "fe80::7",
    "::ffff:10.9.0.7",
    "fd00:9::3",
    "fd00:9:2:5::5",
];
const PREFIXES: [&str; 14] = [
    "0.0.0.0/0",
    "10.9.0.0/24",
    "10.9.0.0/16",
    "10.9.1.7/32",
    "10.9.2.0/24",
    "10.9.2.8/29",
    "198.51.100.8/31",
    "::/0",
    "fd00:9::/64",
    "fd00:9::/32",
    "fd00:9:1::7/128",
    "fd00:9:2::/64",
    "fd00:9:2::8/125",
    "2001:db8::8/127",
];

/// Returns a policy of the reference host with up to fifteen rows of any kind.
pub fn policy(random: &mut Random) -> Policy {
    let rows = random.below(16);
    let rows = (0..rows).map(|number| {
        let id = RowId(format!("test/{number}"));
        let mut row = row(random, id, &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 5]);
        row.failsafe = random.once_in(8);
        if !row.failsafe && random.once_in(6) {
            row.mode = Mode::Audit;
        }
        row
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| !row.failsafe);
    let enforce = !random.once_in(4);
    let own = own(random);
    let on = |random: &mut Random| !random.once_in(4);
    Policy {
        inbound: if enforce { Mode::Enforce } else { Mode::Audit },
        outbound: if enforce { Mode::Enforce } else { random.of(&[Mode::Track, Mode::Audit, Mode::Enforce]) },
        rows,
        packets: PacketSettings {
            vrrp: on(random),
            link_control: on(random),
            group_membership: on(random),
            dhcp: on(random),
            echo_v6: on(random),
            redirects: random.once_in(4),
            vlans: if random.once_in(2) { vec![5, 77] } else { Vec::new() },
            // A rate depends on time, which passes only in the kernel. Tests of their own cover rates.
            rates: reference::unlimited(),
        },
        ..own
    }
}

/// Returns the reference policy, on a machine with some of [`MORE`] and a site file that gives some of them to the host.
fn own(random: &mut Random) -> Policy {
    let mut policy = reference::policy();
    if random.once_in(2) {
        return policy;
    }
    for text in SHARED {
        if random.once_in(3)
            && let Ok(prefix) = text.parse()
        {
            policy.shared.push(prefix);
        }
    }
    policy.own_addresses = random.of(&[OwnAddresses::Listed, OwnAddresses::Machine]);
    let mut addresses = Addresses::default();
    for text in MORE {
        if random.once_in(2)
            && let Ok(address) = text.parse()
        {
            addresses.guarded.push(Present { address, interface: "eth0".into() });
        }
    }
    policy.on(&addresses)
}

/// Returns a row of any kind, whose numbers of peers and services are among the given ones.
fn row(random: &mut Random, id: RowId, peers: &[usize], services: &[usize]) -> Row {
    let peers: Vec<&str> = (0..random.of(peers)).map(|_| random.of(&PREFIXES)).collect();
    let direction = random.of(&Direction::ALL);
    let protocol = random.of(&[TCP, TCP, TCP, UDP, UDP, UDP, ICMP, ICMPV6, 112, 132]);
    let mut row = Row { id, ..reference::row("", direction, &peers, protocol, PortRange::ANY) };
    if matches!(protocol, TCP | UDP) {
        row.client_ports = random.of(&[
            PortRange::ANY,
            PortRange { first: 1_024, last: 65_535 },
            PortRange { first: 53, last: 53 },
        ]);
        row.services = (0..random.of(services))
            .map(|_| {
                let first = random.of(&PORTS);
                let last = first.saturating_add(random.of(&[0, 0, 2, 500]));
                Service { protocol, ports: PortRange { first, last } }
            })
            .collect();
    }
    row
}

/// Returns a state that an operator might put alongside a policy, or in its place: up to four rows, suspension and
/// grace period, each of which ends soon or late.
pub fn held(random: &mut Random, control_state: &Policy) -> OperatorState {
    // Lines of the table that the policy's own failsafe rows leave: enough for six rows of two by two.
    let own = control_state.rows.iter().filter(|row| row.failsafe);
    let taken: usize = own.map(|row| row.peers.len() * row.services.len()).sum();
    let room = taken + 24 <= limits::OVERRIDES;
    let rows = if room { random.below(5) } else { 0 };
    let ends = |random: &mut Random| random.of(&[60, LATE]);
    let rows = (0..rows).map(|number| {
        let row = row(random, operator_state::id(number), &[1, 2], &[1, 2]);
        (Row { failsafe: random.once_in(3), ..row }, ends(random))
    });
    let rows = rows.collect();
    let elsewhere = if room { random.below(3) } else { 0 };
    let elsewhere = (0..elsewhere).map(|number| {
        let row = row(random, operator_state::id(8 + number), &[1, 2], &[1, 2]);
        Row { failsafe: true, ..row }
    });
    let elsewhere = elsewhere.collect();
    let suspension =
        random.once_in(4).then(|| (random.of(&[Suspension::Lockdown, Suspension::Bypass]), ends(random)));
    let grace = random.once_in(4).then(|| ends(random));
    let holders = random.once_in(2).then(|| ends(random));
    OperatorState {
        suspension,
        grace,
        holders,
        rows,
        elsewhere,
        no_policy: random.once_in(8),
        generic: random.once_in(2),
    }
}

/// Returns a policy that an operator might put in force after `before`: other rows or modes, or fewer rows
/// and others in audit.
pub fn successor(random: &mut Random, before: &Policy) -> Policy {
    if random.once_in(2) {
        return Policy { packets: before.packets.clone(), ..policy(random) };
    }
    let mut after = before.clone();
    after.rows.retain(|_| !random.once_in(3));
    for row in after.rows.iter_mut().filter(|row| !row.failsafe) {
        row.mode = if random.once_in(6) { Mode::Audit } else { Mode::Enforce };
    }
    after
}

pub(crate) fn port(random: &mut Random) -> u16 {
    match random.below(16) {
        0 => random.word() as u16,
        1 => 0,
        2 => random.of(&PORTS).wrapping_add(1),
        _ => random.of(&PORTS),
    }
}

pub(crate) fn addresses(random: &mut Random, direction: Direction, v6: bool) -> (IpAddr, IpAddr) {
    let places = if v6 { reference::Places::v6() } else { reference::Places::v4() };
    let texts = if v6 { &V6 } else { &V4 };
    let more = if random.once_in(6) { random.of(&MORE).parse().ok() } else { None };
    let more = more.filter(|address: &IpAddr| address.is_ipv6() == v6);
    let mut other = || match random.below(32) {
        1 if v6 => wrapped(random),
        0 if v6 => Ipv6Addr::from(u128::from(random.word()) << 64 | u128::from(random.word())).into(),
        0 => Ipv4Addr::from(random.word() as u32).into(),
        // The first half are valid source addresses.
        2..24 => random.of(&texts[..7]).parse().unwrap_or(places.stranger),
        _ => random.of(&texts[..]).parse().unwrap_or(places.stranger),
    };
    let (host, peer) = (more.unwrap_or(places.host), other());
    let (mut from, mut to) = match direction {
        Direction::Inbound => (peer, host),
        Direction::Outbound => (host, peer),
    };
    if random.once_in(12) {
        to = random.of(&texts[..]).parse().unwrap_or(to);
    }
    if random.once_in(12) {
        from = random.of(&texts[..]).parse().unwrap_or(from);
    }
    (from, to)
}

/// Returns an IPv6 address around an IPv4 address that is global, almost global or not global: 6to4, NAT64,
/// or neither.
fn wrapped(random: &mut Random) -> IpAddr {
    let edges = [
        [0, 1, 2, 3],
        [1, 0, 0, 0],
        [9, 255, 0, 1],
        [10, 0, 0, 1],
        [11, 0, 0, 0],
        [126, 0, 0, 1],
        [127, 0, 0, 1],
        [128, 0, 0, 1],
        [169, 253, 0, 1],
        [169, 254, 0, 1],
        [169, 255, 0, 1],
        [172, 15, 0, 1],
        [172, 16, 0, 1],
        [172, 31, 0, 1],
        [172, 32, 0, 1],
        [192, 167, 0, 1],
        [192, 168, 0, 1],
        [192, 169, 0, 1],
        [223, 0, 0, 1],
        [224, 0, 0, 1],
        [254, 0, 0, 1],
        [255, 0, 0, 1],
    ];
    let [a, b, c, d] = random.of(&edges);
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match random.below(8) {
        0..3 => Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        3..6 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        6 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 1, 0, high, low),
        _ => Ipv6Addr::new(0x2003, high, low, 0, 0, 0, 0, 1),
    }
    .into()
}

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

/// Returns an address inside a prefix.
pub(crate) fn inside(random: &mut Random, prefix: IpNet) -> IpAddr {
    let host_bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    match prefix.network() {
        IpAddr::V4(network) => {
            let mask = 1_u32.checked_shl(host_bits).map_or(u32::MAX, |bit| bit - 1);
            Ipv4Addr::from(u32::from(network) | random.word() as u32 & mask).into()
        }
        IpAddr::V6(network) => {
            let mask = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1);
            let bits = u128::from(random.word()) << 64 | u128::from(random.word());
            Ipv6Addr::from(u128::from(network) | bits & mask).into()
        }
    }
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
