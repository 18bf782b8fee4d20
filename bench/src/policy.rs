//! Policies of any size, in the form that an operator would write.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use pomguard_workspace::{self as workspace, process};
use serde::Deserialize;

use super::{Setting, random::Random};

/// The guarded host.
pub(super) const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2))];
/// Name of the guarded host in the site file.
pub(super) const NAME: &str = "server";
/// The addresses of the guarded host in the POM site of the examples.
pub(super) const POM_HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 20, 0, 11)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x11))];
/// Name of the guarded host in the POM site of the examples, quoted.
const POM_NAME: &str = "\"pom1\"";
/// Path of the example site, from the workspace's root.
const POM_SITE: &str = "config/site.example.toml";
/// The number of ports that a large policy serves.
const PORTS: u16 = 20;
/// The first port that a large policy serves.
const FIRST_PORT: u16 = 20_000;
/// The port to which the host may open connections, anywhere.
pub(super) const OUTBOUND_PORT: u16 = 5_432;

/// The number of tuples of the outbound row: one per IP version.
const OUTBOUND_TUPLES: usize = 2;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Returns `IPv4` or `IPv6`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Returns a random address that a policy of this bench names only by chance.
    pub(super) fn address(self, random: &mut Random) -> IpAddr {
        let bits = random.bits();
        match self {
            // Unicast, neither private nor loopback.
            Self::V4 => {
                Ipv4Addr::from((11 + (bits >> 32) as u32 % 89) << 24 | bits as u32 & 0x00ff_ffff).into()
            }
            Self::V6 => {
                // Short enough that a site file with 100,000 addresses stays below its limit.
                let host = u128::from(random.bits() as u32);
                Ipv6Addr::from(u128::from(0x2a00 << 48 | bits >> 16) << 64 | host).into()
            }
        }
    }

    /// Returns true if the address belongs to this family.
    const fn has(self, address: IpAddr) -> bool {
        matches!(self, Self::V4) == address.is_ipv4()
    }

    /// Returns the prefix lengths of peers: mostly hosts, some networks.
    const fn lengths(self) -> [u8; 3] {
        match self {
            Self::V4 => [32, 28, 24],
            Self::V6 => [128, 64, 56],
        }
    }
}

/// A peer and a port of the host that the peer may open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuple {
    /// The peer.
    pub(super) peer: IpNet,
    /// The host's port.
    pub(super) port: u16,
}

/// The kind of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Random hosts and prefixes, with this number of tuples.
    Random(usize),
    /// The POM site of the examples, for its first server.
    Pom,
}

impl Scope {
    /// Returns the text to print after the number of tuples.
    pub(super) const fn says(self) -> &'static str {
        match self {
            Self::Random(_) => "",
            Self::Pom => " of the POM site",
        }
    }
}

/// The inbound rows of one host, and one outbound row to anywhere.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) family: Family,
    /// The guarded address.
    pub(super) host: IpAddr,
    pub(super) tuples: Vec<Tuple>,
    peers: HashSet<IpNet>,
    /// Ports that inbound rows name, for any peer.
    ports: BTreeSet<u16>,
    /// The site file, if it is not made from the tuples.
    written: Option<String>,
}

/// The output of `pomguard check --json`.
#[derive(Deserialize)]
struct Checked {
    inbound: Vec<CheckedRow>,
}

/// One row of the output.
#[derive(Deserialize)]
struct CheckedRow {
    ports: Vec<String>,
    protocol: String,
    peers: Vec<IpNet>,
    failsafe: bool,
}

impl CheckedRow {
    /// Expands the ranges to single ports.
    fn ports(&self) -> Result<Vec<u16>> {
        let mut all = Vec::new();
        for range in &self.ports {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            all.extend(first.parse::<u16>()?..=last.parse::<u16>()?);
        }
        Ok(all)
    }
}

impl Policy {
    /// Makes the policy of a scope, in a family.
    pub(super) fn of(setting: &Setting, family: Family, scope: Scope) -> Result<Self> {
        match scope {
            Scope::Random(tuples) => Self::random(family, tuples),
            Scope::Pom => Self::pom(setting, family),
        }
    }

    /// Reads the inbound TCP rows of the first server of the example POM site, and adds the bench's outbound
    /// row.
    fn pom(setting: &Setting, family: Family) -> Result<Self> {
        let path = workspace::root().join(POM_SITE);
        let site = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (rows, end) = site.rsplit_once("[end]").context("the example has no end")?;
        let site = format!("{}{}\n[end]{end}", rows.replace(POM_NAME, &format!("\"{NAME}\"")), outward()?);
        let folder = &setting.sandbox.files;
        let (config, file) = (folder.join("pom-check.toml"), folder.join("pom-site.toml"));
        fs::write(&file, &site).with_context(|| file.display().to_string())?;
        let text = "site = \"pom-site.toml\"\ninterfaces = [\"eth0\"]\n";
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let mut command = Command::new(&setting.binary);
        let checked =
            process::output(command.args(["check", "--json", "--host", NAME, "--config"]).arg(&config))?;
        let checked: Checked = serde_json::from_str(&checked).context("what `pomguard check` says")?;
        let mut policy = Self::empty(family, POM_HOST);
        policy.written = Some(site);
        let mut seen = HashSet::new();
        for row in checked.inbound.iter().filter(|row| row.protocol != "icmp") {
            let ports = row.ports()?;
            policy.ports.extend(&ports);
            policy.peers.extend(&row.peers);
            // A failsafe row is counted under a reason of its own.
            for &peer in row.peers.iter().filter(|peer| !row.failsafe && family.has(peer.addr())) {
                let fresh = ports.iter().filter(|&&port| seen.insert((peer, port)));
                policy.tuples.extend(fresh.map(|&port| Tuple { peer, port }));
            }
        }
        ensure!(!policy.tuples.is_empty(), "the example lets nobody in");
        Ok(policy)
    }

    fn empty(family: Family, host: [IpAddr; 2]) -> Self {
        Self {
            family,
            host: host[family as usize],
            tuples: Vec::new(),
            peers: HashSet::new(),
            ports: BTreeSet::new(),
            written: None,
        }
    }

    /// Makes a policy with this number of tuples, including the outbound row's, spread over twenty ports. The
    /// tuples are the same in every run.
    pub(super) fn random(family: Family, tuples: usize) -> Result<Self> {
        let mut random = Random(tuples as u64);
        let mut policy = Self::empty(family, HOST);
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
                policy.ports.insert(port);
                policy.tuples.push(Tuple { peer, port });
            }
        }
        Ok(policy)
    }

    /// Returns the number of tuples, including the outbound row's.
    pub(super) fn size(&self) -> usize {
        self.tuples.len() + OUTBOUND_TUPLES
    }

    /// Returns the same policy without its last tuple.
    pub(super) fn without_last(&self) -> Self {
        let mut smaller = self.clone();
        smaller.tuples.pop();
        smaller.ports = smaller.tuples.iter().map(|tuple| tuple.port).collect();
        smaller
    }

    /// Admits one more peer and returns the port.
    pub(super) fn admit(&mut self, peer: IpNet) -> Option<u16> {
        let port = self.ports().next()?;
        self.peers.insert(peer);
        self.tuples.push(Tuple { peer, port });
        Some(port)
    }

    /// Returns the ports that inbound rows name.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().copied()
    }

    /// Returns true if a row names the port.
    pub(super) fn lists(&self, port: u16) -> bool {
        // "Anywhere" includes the host itself, so the outbound row's port is listed.
        port == OUTBOUND_PORT || self.ports.contains(&port)
    }

    /// Returns true if no peer covers the address.
    pub(super) fn is_stranger(&self, address: IpAddr) -> bool {
        let mut prefixes = std::iter::successors(Some(IpNet::from(address)), IpNet::supernet);
        !prefixes.any(|prefix| self.peers.contains(&prefix))
    }

    /// Returns the content of the site file.
    pub(super) fn site_file(&self) -> Result<String> {
        if let Some(site) = &self.written {
            return Ok(site.clone());
        }
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
        text.push_str(&outward()?);
        Ok(text)
    }
}

/// Returns the outbound row.
fn outward() -> Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "\n[[allow]]\nname = \"anywhere\"\nfrom = [\"{NAME}\"]\nto = [\"0.0.0.0/0\", \"::/0\"]\nanywhere = true\nports = \"{OUTBOUND_PORT}\"\nprotocol = \"tcp\""
    )?;
    Ok(text)
}
