//! Numbers that a seed determines, policies with a few rows, and addresses around those of the rows.

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
    reference,
};

mod frames;

pub use self::frames::Stream;

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
