//! The machines of the demo's site.
//!
//! The systems are spread such that every row has its source and its destination on different machines, that
//! every system which talks to its own kind has two machines, and that as many rows as possible have a pair
//! of machines that no lower row covers, so that their own counter moves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use super::matrix::{Matrix, Row};

/// The role of a machine in the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A POM server, on which pomguard runs.
    Pom,
    /// A machine that the site file lists and pomguard does not run on.
    Peer,
    /// A machine that the site file does not know.
    Stranger,
}

/// One machine, and so one network namespace.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) role: Role,
    /// Indices into [`Matrix::systems`].
    pub(super) systems: Vec<usize>,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    /// The prefixes under which the site file lists the machine, if not its own two addresses.
    pub(super) within: &'static [&'static str],
}

impl Machine {
    pub(super) fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// Length of the IPv4 prefix on the link, which makes all machines neighbours.
pub(super) const PREFIX_V4: u8 = 16;
/// Length of the IPv6 prefix on the link, which makes all machines neighbours.
pub(super) const PREFIX_V6: u8 = 48;

const DESKTOPS: &[&str] = &["10.20.50.0/24", "fd00:20:0:50::/64"];

/// Name, role, systems, third and fourth group of the address, and prefixes in the site file.
type Place = (&'static str, Role, &'static [&'static str], (u8, u8), &'static [&'static str]);

const PLACES: &[Place] = &[
    (
        "pom1", // the primary server: it is the primary EPM too
        Role::Pom,
        &[
            "EPM",
            "VPMS_Plugin",
            "Agent Manager",
            "Campaign Director",
            "Rule Engine",
            "ActiveMQ",
            "Kafka",
            "Zookeeper",
            "Advanced List Management Service",
            "Agent SDK Service",
            "Dashboard Service",
            "Multitenancy Service",
            "POMCache",
        ],
        (0, 11),
        &[],
    ),
    (
        "pom2",
        Role::Pom,
        &[
            "Campaign Manager",
            "Campaign Director",
            "Rule Engine",
            "ActiveMQ",
            "Kafka",
            "Zookeeper",
            "Advanced List Management Service",
            "Dashboard Service",
            "Multitenancy Service",
            "POMCache",
        ],
        (0, 12),
        &[],
    ),
    (
        "pom3",
        Role::Pom,
        &["Agent Manager", "Rule Engine", "Zookeeper", "Agent SDK Service", "POMCache"],
        (0, 13),
        &[],
    ),
    ("epm", Role::Peer, &["EPM"], (0, 21), &[]),
    ("mpp", Role::Peer, &["MPP"], (0, 22), &[]),
    ("appserver", Role::Peer, &["Application Server"], (0, 23), &[]),
    ("aes", Role::Peer, &["AES"], (0, 24), &[]),
    ("postgres", Role::Peer, &["Postgres"], (0, 31), &[]),
    ("oracle", Role::Peer, &["Oracle"], (0, 32), &[]),
    ("mssql", Role::Peer, &["MSSQL"], (0, 33), &[]),
    ("wfo", Role::Peer, &["WFO"], (0, 41), &[]),
    ("cms", Role::Peer, &["CMS Rt_socket"], (0, 42), &[]),
    ("aacc", Role::Peer, &["AACC"], (0, 43), &[]),
    ("oceana", Role::Peer, &["Oceana"], (0, 44), &[]),
    ("eventsdk", Role::Peer, &["EventSDK"], (0, 45), &[]),
    ("extsel", Role::Peer, &["External Selection"], (0, 46), &[]),
    ("jmx", Role::Peer, &["JMX Console"], (0, 47), &[]),
    ("desktop1", Role::Peer, &["Agent Desktop"], (50, 7), DESKTOPS),
    ("desktop2", Role::Peer, &["Agent Desktop"], (50, 250), DESKTOPS),
    ("nextdoor", Role::Stranger, &[], (51, 0), &[]), // the first address after the desktops' range
    ("outsider", Role::Stranger, &[], (99, 99), &[]),
];

/// Returns the machines of the demo. Fails if the matrix has a system or a row without a place.
pub(super) fn machines(matrix: &Matrix) -> Result<Vec<Machine>> {
    let machines: Vec<_> = PLACES.iter().map(|place| machine(matrix, place)).collect();
    for (system, named) in matrix.systems.iter().enumerate() {
        if !machines.iter().any(|machine| machine.systems.contains(&system)) {
            bail!("the demo's site has no place for the system {:?}: add one to layout.rs", named.name);
        }
    }
    for row in &matrix.rows {
        if pairs(&machines, row).next().is_none() {
            bail!("row {} has no two different machines in the demo's site: see layout.rs", row.number);
        }
    }
    Ok(machines)
}

/// Returns the (source, destination) machines of a row, except for pairs of a machine with itself: such
/// traffic stays on `lo`.
pub(super) fn pairs(machines: &[Machine], row: &Row) -> impl Iterator<Item = (usize, usize)> {
    let runs = |machine: &Machine, systems: &[usize]| machine.systems.iter().any(|it| systems.contains(it));
    machines.iter().enumerate().filter(move |(_, from)| runs(from, &row.source)).flat_map(
        move |(source, _)| {
            machines
                .iter()
                .enumerate()
                .filter(move |(target, to)| *target != source && runs(to, &row.destination))
                .map(move |(target, _)| (source, target))
        },
    )
}

fn machine(matrix: &Matrix, &(name, role, systems, (third, fourth), within): &Place) -> Machine {
    // The digits are the same in both families, so that a reader recognises the machine: 10.20.50.7 is
    // fd00:20:0:50::7.
    let digits = |number: u8| u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
    Machine {
        name,
        role,
        systems: systems.iter().filter_map(|system| matrix.system(system)).collect(),
        v4: Ipv4Addr::new(10, 20, third, fourth),
        v6: Ipv6Addr::new(0xfd00, 0x20, 0, digits(third), 0, 0, 0, digits(fourth)),
        within,
    }
}
