//! Policies of any size, as an operator would write them.

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use ipnet::IpNet;

use super::random::Random;

/// The guarded host.
pub(super) const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2))];
/// Its name in the site file.
pub(super) const NAME: &str = "server";
/// Ports that a large policy serves.
const PORTS: u16 = 20;
/// The first of them.
const FIRST_PORT: u16 = 20_000;
/// The port to which the host opens conversations, anywhere.
pub(super) const OUTBOUND_PORT: u16 = 5_432;

/// Tuples of the outbound row: one per IP version.
const OUTBOUND_TUPLES: usize = 2;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `IPv4`
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The guarded host's address.
    pub(super) const fn host(self) -> IpAddr {
        HOST[self as usize]
    }

    /// A random address that no policy here names by anything but chance.
    pub(super) fn address(self, random: &mut Random) -> IpAddr {
        let bits = random.bits();
        match self {
            // Unicast, and neither private nor loopback.
            Self::V4 => {
                Ipv4Addr::from((11 + (bits >> 32) as u32 % 89) << 24 | bits as u32 & 0x00ff_ffff).into()
            }
            Self::V6 => {
                // Short enough that a site file of 100,000 stays below its limit.
                let host = u128::from(random.bits() as u32);
                Ipv6Addr::from(u128::from(0x2a00 << 48 | bits >> 16) << 64 | host).into()
            }
        }
    }

    /// Prefix lengths of peers: mostly hosts, some networks.
    const fn lengths(self) -> [u8; 3] {
        match self {
            Self::V4 => [32, 28, 24],
            Self::V6 => [128, 64, 56],
        }
    }
}

/// Who may open what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuple {
    /// The peer.
    pub(super) peer: IpNet,
    /// The host's port.
    pub(super) port: u16,
}

/// One host's inbound rows, each tuple with a peer of its own; outbound one row, to anywhere.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) family: Family,
    pub(super) tuples: Vec<Tuple>,
    peers: HashSet<IpNet>,
}

impl Policy {
    /// So many tuples, the outbound ones among them, spread over twenty ports: the same ones in every run.
    pub(super) fn random(family: Family, tuples: usize) -> Result<Self> {
        let mut random = Random(tuples as u64);
        let mut policy = Self { family, tuples: Vec::with_capacity(tuples), peers: HashSet::new() };
        while policy.tuples.len() + OUTBOUND_TUPLES < tuples {
            let [host, small, large] = family.lengths();
            let length = match random.below(10) {
                0 => large,
                1 => small,
                _ => host,
            };
            let peer = IpNet::new(family.address(&mut random), length)?.trunc();
            if policy.peers.insert(peer) {
                let port = FIRST_PORT + policy.tuples.len() as u16 % PORTS;
                policy.tuples.push(Tuple { peer, port });
            }
        }
        Ok(policy)
    }

    /// The same policy without its last tuple.
    pub(super) fn without_last(&self) -> Self {
        let mut smaller = self.clone();
        smaller.tuples.pop();
        smaller
    }

    /// Lets one more peer in; at which port.
    pub(super) fn admit(&mut self, peer: IpNet) -> Option<u16> {
        let port = self.ports().next()?;
        self.peers.insert(peer);
        self.tuples.push(Tuple { peer, port });
        Some(port)
    }

    /// The ports that inbound rows name.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        FIRST_PORT..FIRST_PORT + self.tuples.len().min(usize::from(PORTS)) as u16
    }

    /// Whether a row names the port.
    pub(super) fn lists(&self, port: u16) -> bool {
        // "Anywhere" is the host itself too: the outbound row's port is listed.
        port == OUTBOUND_PORT || self.ports().any(|listed| listed == port)
    }

    /// Whether no peer covers the address.
    pub(super) fn is_stranger(&self, address: IpAddr) -> bool {
        !self.family.lengths().into_iter().any(|length| {
            IpNet::new(address, length).is_ok_and(|prefix| self.peers.contains(&prefix.trunc()))
        })
    }

    /// The site file.
    pub(super) fn site_file(&self) -> Result<String> {
        let mut text = format!(
            "matrix = \"pom-4.0\"\nzones = 1\n\n[[host]]\nname = \"{NAME}\"\naddresses = [\"{}\", \"{}\"]\nsystems = [\"Agent Desktop\"]\n",
            HOST[0], HOST[1]
        );
        for port in self.ports() {
            let peers = self.tuples.iter().filter(|tuple| tuple.port == port);
            let written = |peer: IpNet| {
                let host = peer.prefix_len() == peer.max_prefix_len();
                if host { format!("\"{}\"", peer.addr()) } else { format!("\"{peer}\"") }
            };
            let peers: Vec<String> = peers.map(|tuple| written(tuple.peer)).collect();
            writeln!(
                text,
                "\n[[allow]]\nname = \"service-{port}\"\nfrom = [{}]\nto = [\"{NAME}\"]\nports = \"{port}\"\nprotocol = \"tcp\"",
                peers.join(", ")
            )?;
        }
        writeln!(
            text,
            "\n[[allow]]\nname = \"anywhere\"\nfrom = [\"{NAME}\"]\nto = [\"0.0.0.0/0\", \"::/0\"]\nanywhere = true\nports = \"{OUTBOUND_PORT}\"\nprotocol = \"tcp\""
        )?;
        Ok(text)
    }
}
