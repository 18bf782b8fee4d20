//! The image must give the same answers as the oracle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use pomguard_common::{
    Direction,
    image::{self, Class, Line, Miss, MissReason, RowMatch, Tuple},
};

use super::{Clock, CompileError, Image, SlotTable, compile};
use crate::policy::{
    FlowAges, Known, MachineAddresses, MatrixName, Mode, Origin, OwnAddresses, PacketSettings, Peer, Policy,
    PortRange, Row, RowId, Service,
    oracle::{self, Opening},
};

mod folding;
mod layout;
mod limits;
mod random;
mod scale;
mod site;
mod slots;

const CLOCK: Clock = Clock { ticks_per_1000s: 4_000, offset: 0 };
const TCP: u8 = 6;

fn net(written: &str) -> IpNet {
    written.parse().expect("a prefix")
}

fn peer(prefix: IpNet) -> Peer {
    Peer { prefix, name: prefix.to_string().into(), origin: Origin { file: "test".into(), line: 1 } }
}

fn service(protocol: u8, first: u16, last: u16) -> Service {
    Service { protocol, ports: PortRange { first, last } }
}

fn row(id: &str, direction: Direction, peers: &[IpNet], services: &[Service]) -> Row {
    Row {
        id: RowId(id.to_owned()),
        direction,
        source: vec!["Agent Desktop".into()],
        destination: vec!["Agent Manager".into()],
        printed: "as printed".to_owned(),
        protocol: "TCP".to_owned(),
        peers: peers.iter().copied().map(peer).collect(),
        client_ports: PortRange::ANY,
        services: services.to_vec(),
        mode: Mode::Enforce,
        failsafe: false,
        purpose: String::new(),
        origin: Origin { file: "test".into(), line: 1 },
    }
}

/// Returns an inbound TCP row.
fn tcp(id: &str, peers: &[&str], first: u16, last: u16) -> Row {
    let peers: Vec<IpNet> = peers.iter().map(|at| net(at)).collect();
    row(id, Direction::Inbound, &peers, &[service(TCP, first, last)])
}

fn policy(rows: Vec<Row>) -> Policy {
    Policy {
        host: "pom1".to_owned(),
        matrix: MatrixName { id: "test-1".to_owned(), title: String::new() },
        local: vec![IpAddr::from([10, 20, 0, 11])],
        shared: Vec::new(),
        own_addresses: OwnAddresses::Listed,
        machine: MachineAddresses::default(),
        inbound: Mode::Enforce,
        outbound: Mode::Track,
        rows,
        known: Vec::new(),
        packets: PacketSettings::default(),
        flows: FlowAges::default(),
    }
}

fn known(prefixes: &[&str]) -> Vec<Known> {
    prefixes.iter().map(|at| Known { prefix: net(at), name: (*at).into() }).collect()
}

fn slots(policy: &Policy) -> SlotTable {
    SlotTable::assign(&[], policy).expect("room for the rows")
}

fn attempt(policy: &Policy) -> Result<Image, CompileError> {
    compile(policy, &slots(policy), CLOCK, 1)
}

fn compiled(policy: &Policy) -> Image {
    attempt(policy).unwrap_or_else(|error| panic!("{error}"))
}

fn open(image: &Image) -> image::Image<'_, [Line]> {
    image::Image::open(image.lines()).expect("an image of this version")
}

fn words(address: IpAddr) -> (image::Family, image::Address) {
    match address {
        IpAddr::V4(address) => (image::Family::V4, [address.into(), 0, 0, 0]),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            (image::Family::V6, [96, 64, 32, 0].map(|shift| (bits >> shift) as u32))
        }
    }
}

fn class(image: &Image, address: IpAddr) -> Class {
    let (family, address) = words(address);
    open(image).class(family, &address)
}

/// Returns an opening between `other` and this host.
fn opening(direction: Direction, other: IpAddr, protocol: u8, port: u16, client: u16) -> Opening {
    let here = match other {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 20, 0, 11)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let (source, destination) = match direction {
        Direction::Inbound => (other, here),
        Direction::Outbound => (here, other),
    };
    Opening { direction, source, source_port: client, destination, destination_port: port, protocol }
}

fn row_match(image: &Image, opening: &Opening) -> Result<RowMatch, Miss> {
    let other = match opening.direction {
        Direction::Inbound => opening.source,
        Direction::Outbound => opening.destination,
    };
    let ports = matches!(opening.protocol, 6 | 17);
    let tuple = Tuple {
        direction: opening.direction,
        protocol: opening.protocol,
        port: if ports { opening.destination_port } else { opening.protocol.into() },
        client_port: if ports { opening.source_port } else { 0 },
    };
    open(image).row_match(class(image, other), &tuple)
}

/// Returns a miss with this reason and this audit state of the port.
fn refused(miss_reason: MissReason, audit: bool) -> Result<RowMatch, Miss> {
    Err(Miss { miss_reason, audit })
}

/// Describes the difference between the answers of the image and the oracle, if any.
fn difference(policy: &Policy, image: &Image, slots: &SlotTable, opening: &Opening) -> Option<String> {
    let answer = oracle::judge(policy, opening);
    let found = row_match(image, opening);
    let first = answer.first.as_ref().and_then(|id| slots.of(id, opening.direction));
    let failsafe = |id: &RowId| {
        policy.rows_in(opening.direction).find(|row| row.id == *id).is_some_and(|row| row.failsafe)
    };
    let agrees = match (&found, &answer.first) {
        (Ok(row_match), Some(id)) => Some(row_match.row) == first && row_match.failsafe == failsafe(id),
        (Err(Miss { miss_reason: MissReason::Broken, .. }), _) => false,
        (Err(miss), None) => miss.audit == answer.passes(),
        _ => false,
    };
    (!agrees).then(|| format!("{opening:?}: image {found:?}, policy {answer:?} (slot {first:?})"))
}

/// A policy, and the slots and the image made from that policy.
struct Case {
    policy: Policy,
    slots: SlotTable,
    image: Image,
}

impl Case {
    fn new(policy: Policy) -> Self {
        let slots = slots(&policy);
        let image = compile(&policy, &slots, CLOCK, 1).unwrap_or_else(|error| panic!("{error}"));
        Self { policy, slots, image }
    }

    fn agrees(&self, opening: &Opening) {
        assert_eq!(difference(&self.policy, &self.image, &self.slots, opening), None);
    }
}

/// Returns the first and last address, computed in a simple way.
fn ends(prefix: IpNet) -> (u128, u128, bool) {
    match prefix {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into(), true),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into(), false),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
}

/// Returns the edges of a prefix: first, last, one before, one behind, and one address inside.
fn edges(prefix: IpNet) -> Vec<IpAddr> {
    let (first, last, v4) = ends(prefix);
    let middle = first + (last - first) / 2;
    [first.wrapping_sub(1), first, first + u128::from(last > first), middle, last, last.wrapping_add(1)]
        .into_iter()
        .map(|number| address(number, v4))
        .collect()
}

/// Returns true if a known prefix covers the address, by comparing numbers.
fn is_known(policy: &Policy, address: IpAddr) -> bool {
    policy.known.iter().any(|known| {
        let (first, last, v4) = ends(known.prefix);
        let number = match address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => address.into(),
        };
        v4 == address.is_ipv4() && first <= number && number <= last
    })
}
