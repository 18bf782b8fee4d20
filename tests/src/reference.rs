//! The policy of the packet tests, and the addresses that they use.

use std::net::IpAddr;

use ipnet::IpNet;
use pomguard::policy::{
    Direction, FlowAges, Known, MachineAddresses, MatrixName, Mode, Origin, OwnAddresses, PacketSettings,
    Peer, Policy, PortRange, Rates, Row, RowId, Service,
};
use pomguard_common::protocol::{TCP, UDP};

/// The addresses that take part, of one address family.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The protected host.
    pub host: IpAddr,
    /// A known address that may log in (row A1).
    pub office: IpAddr,
    /// A known address that may ask for names (row A3).
    pub resolver: IpAddr,
    /// A known address that the host connects to (row E1).
    pub database: IpAddr,
    /// An unknown address.
    pub stranger: IpAddr,
    /// An address in no row's prefix that is not the host's.
    pub elsewhere: IpAddr,
}

impl Places {
    /// Returns the IPv4 addresses of the reference policy.
    #[must_use]
    pub fn v4() -> Self {
        Self::of(["10.9.0.2", "10.9.0.7", "10.9.1.7", "10.9.2.7", "198.51.100.9", "10.9.0.3"])
    }

    /// Returns the IPv6 addresses of the reference policy.
    #[must_use]
    pub fn v6() -> Self {
        Self::of(["fd00:9::2", "fd00:9::7", "fd00:9:1::7", "fd00:9:2::7", "2001:db8::9", "fd00:9::3"])
    }

    /// Returns the addresses of both families.
    #[must_use]
    pub fn both() -> [Self; 2] {
        [Self::v4(), Self::v6()]
    }

    #[expect(clippy::expect_used, reason = "the addresses are written here")]
    fn of(texts: [&str; 6]) -> Self {
        let [host, office, resolver, database, stranger, elsewhere] =
            texts.map(|text| text.parse().expect("an address"));
        Self { host, office, resolver, database, stranger, elsewhere }
    }

    /// Returns true if the addresses are IPv6 addresses.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.host.is_ipv6()
    }
}

/// Rates that no test reaches.
#[must_use]
pub const fn unlimited() -> Rates {
    let most = Rates::MOST;
    Rates { neighbours: most, echo_v6: most, icmp_errors: most, path_mtu: most }
}

/// Makes a row.
///
/// # Panics
/// If a peer is not a prefix.
#[must_use]
#[expect(clippy::expect_used, reason = "a test that writes a wrong prefix is broken")]
pub fn row(id: &str, direction: Direction, peers: &[&str], protocol: u8, ports: PortRange) -> Row {
    let origin = Origin { file: "reference".into(), line: 1 };
    let peer = |text: &&str| Peer {
        prefix: text.parse().expect("a prefix"),
        name: (*text).into(),
        origin: origin.clone(),
    };
    Row {
        id: RowId(id.to_owned()),
        direction,
        source: vec!["one side".into()],
        destination: vec!["the other".into()],
        printed: ports.to_string(),
        protocol: protocol.to_string(),
        peers: peers.iter().map(peer).collect(),
        client_ports: PortRange::ANY,
        services: vec![Service { protocol, ports }],
        mode: Mode::Enforce,
        failsafe: false,
        purpose: "A case.".to_owned(),
        origin,
    }
}

/// Returns the reference policy: A1 to A3 inbound, E1 and E2 outbound, everything else denied.
///
/// # Panics
/// Never.
#[must_use]
#[expect(clippy::expect_used, reason = "the prefixes are written here")]
pub fn policy() -> Policy {
    use Direction::{Inbound, Outbound};
    let one = PortRange::one;
    let known =
        ["10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24", "fd00:9::/64", "fd00:9:1::/64", "fd00:9:2::/64"];
    let known = known.map(|text| Known {
        prefix: text.parse::<IpNet>().expect("a prefix"),
        name: "a known system".into(),
    });
    Policy {
        host: "reference".to_owned(),
        matrix: MatrixName { id: "reference".to_owned(), title: "Reference".to_owned() },
        local: vec![Places::v4().host, Places::v6().host],
        shared: Vec::new(),
        own_addresses: OwnAddresses::Listed,
        machine: MachineAddresses::default(),
        inbound: Mode::Enforce,
        outbound: Mode::Enforce,
        rows: vec![
            row("A1", Inbound, &["10.9.0.0/24", "fd00:9::/64"], TCP, one(22)),
            row("A2", Inbound, &["0.0.0.0/0", "::/0"], TCP, one(443)),
            row("A3", Inbound, &["10.9.1.0/24", "fd00:9:1::/64"], UDP, one(53)),
            row("E1", Outbound, &["10.9.2.0/24", "fd00:9:2::/64"], TCP, one(5432)),
            row("E2", Outbound, &["0.0.0.0/0", "::/0"], UDP, one(53)),
        ],
        known: known.to_vec(),
        // Rates depend on time; tests of their own cover them.
        packets: PacketSettings { rates: unlimited(), ..PacketSettings::default() },
        flows: FlowAges::default(),
    }
}
