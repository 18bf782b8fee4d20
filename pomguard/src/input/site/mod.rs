//! `site.toml`: the addresses and systems of all machines. Every server of the site has the same file.

use std::{net::IpAddr, path::Path, sync::Arc};

use ipnet::IpNet;

use super::{
    address::Prefixes,
    diagnostic::{Diagnostics, Fault},
    files::Files,
    matrix::Matrix,
    ports::PortSpec,
    sources::Source,
    text::{At, Text},
};
use crate::model::{Mode, Origin, PortRange};

mod allow;
mod read;

pub(crate) use read::plain_name;

/// The contents of the site file.
#[derive(Clone, Debug)]
pub struct Site {
    /// The file's name, as written.
    pub file: Arc<str>,
    /// Name and text of the file.
    pub source: Source,
    /// True if the file ends with its `[end]` mark, so that a truncated copy would have been noticed.
    pub end_marked: bool,
    /// Number of zones of the product; at least one.
    pub zones: u16,
    /// Servers that run pomguard.
    pub hosts: Vec<Host>,
    /// Addresses that one of several hosts holds.
    pub floating: Vec<Floating>,
    /// Machines that do not run pomguard.
    pub peers: Vec<PeerGroup>,
    /// Changes to matrix rows.
    pub overrides: Vec<Override>,
    /// Rows of the site itself.
    pub allows: Vec<Allow>,
}

/// `[[host]]`: a server that runs pomguard.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name of the host.
    pub name: At<String>,
    /// Addresses of the host. A prefix means all addresses in it that the file gives to no other machine.
    pub addresses: Vec<At<IpNet>>,
    /// Systems that the host runs, by their names in the matrix.
    pub systems: Vec<At<String>>,
}

impl Host {
    /// Returns true if the address belongs to the host. Floating addresses do not count.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|at| at.value.contains(&address))
    }
}

/// `[[floating]]`: addresses that one of several hosts holds.
#[derive(Clone, Debug)]
pub struct Floating {
    /// The addresses.
    pub addresses: Vec<At<IpAddr>>,
    /// Names of the hosts that may hold them.
    pub hosts: Vec<At<String>>,
}

impl Floating {
    /// Returns true if this host may hold the addresses.
    #[must_use]
    pub fn names(&self, host: &Host) -> bool {
        self.hosts.iter().any(|at| at.value == host.name.value)
    }
}

/// `[[peer]]`: machines that pomguard does not run on.
#[derive(Clone, Debug)]
pub struct PeerGroup {
    /// Name for `from` and `to`, if any.
    pub name: Option<At<String>>,
    /// Systems that the machines run, by their names in the matrix.
    pub systems: Vec<At<String>>,
    /// Addresses of the machines; a range becomes several prefixes.
    pub addresses: Vec<At<Prefixes>>,
}

impl PeerGroup {
    /// Returns the name of the entry for people: its name, or its systems.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => name.value.clone(),
            None => self.systems.iter().map(|system| system.value.as_str()).collect::<Vec<_>>().join(", "),
        }
    }
}

/// `[[row]]`: a change to a matrix row.
#[derive(Clone, Debug)]
pub struct Override {
    /// Number of the row.
    pub row: At<u32>,
    /// Replacement ports, as written and as read.
    pub ports: Option<At<(String, Vec<PortSpec>)>>,
    /// On or off.
    pub enabled: Option<At<bool>>,
    /// Audit or enforce.
    pub mode: Option<At<Mode>>,
    /// True if the site may change a row that the matrix fixes.
    pub force: bool,
    /// The place in the file.
    pub origin: Origin,
}

/// An entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An address, a prefix or a range.
    Addresses(Prefixes),
    /// Every machine that runs this system.
    System(String),
    /// The host with this name.
    Host(String),
    /// The peer entry with this name.
    Peer(String),
    /// Every host.
    EveryHost,
}

/// An entry of `from` or `to`, as written and as read.
#[derive(Clone, Debug)]
pub struct WrittenPlace {
    /// The text.
    pub written: Arc<str>,
    /// The meaning.
    pub place: Place,
    /// The place in the file.
    pub origin: Origin,
}

/// `[[allow]]`: a row of the site itself.
#[derive(Clone, Debug)]
pub struct Allow {
    /// Name, the second part of the row id: `site/<name>`.
    pub name: At<String>,
    /// Places that open the connection.
    pub from: Vec<WrittenPlace>,
    /// Places that accept the connection.
    pub to: Vec<WrittenPlace>,
    /// Ports as written; empty for protocols without ports.
    pub printed: String,
    /// Destination ports; [`PortRange::ANY`] alone for protocols without ports.
    pub ports: Vec<PortRange>,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
    /// Protocol as written.
    pub protocol: String,
    /// Client ports.
    pub source_ports: PortRange,
    /// True if the row holds in every mode of its generation.
    pub failsafe: bool,
    /// Audit or enforce.
    pub mode: Mode,
    /// Purpose of the row.
    pub purpose: String,
    /// The place in the file.
    pub origin: Origin,
}

impl Site {
    /// Returns the floating addresses of a host.
    pub fn floating_of<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a At<IpAddr>> {
        self.floating.iter().filter(|it| it.names(host)).flat_map(|it| &it.addresses)
    }

    /// Returns the meaning of a name of the site (a host, a peer entry, a system of the matrix, all hosts) or
    /// of an address, as in `from` and `to` of an [`Allow`].
    ///
    /// # Errors
    /// If the address is wrong or no such name exists. The error then suggests the name that was probably
    /// meant.
    pub fn place(&self, matrix: &Matrix, written: &str) -> Result<Place, Fault> {
        let hosts = self.hosts.iter().map(|host| (&host.name.value, Place::Host as fn(String) -> Place));
        let peers = self.peers.iter().filter_map(|group| group.name.as_ref());
        let peers = peers.map(|name| (&name.value, Place::Peer as fn(String) -> Place));
        let names = hosts.chain(peers).map(|(name, place)| (name.clone(), place(name.clone()))).collect();
        allow::place(written, false, &names, matrix)
    }
}

/// Reads a site file and the matrix that it names.
pub(super) fn load(files: &mut Files, path: &Path) -> Result<(Site, Matrix), Diagnostics> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let text = Text::load(files, path)?;
    read::read(&text, |name| Matrix::named(name, folder, files))
}

/// Parses a text in memory; `name` stands for the file in messages, `folder` is the folder of its matrix.
pub fn parse(name: &str, text: &str, folder: &Path) -> Result<(Site, Matrix), Diagnostics> {
    let text = Text::check(name.into(), text.as_bytes().to_vec())?;
    read::read(&text, |name| Matrix::named(name, folder, &mut Files::reported()))
}

/// Parses a text in memory with a given matrix, and ignores the matrix that the text names.
pub(super) fn parse_with(name: &str, text: &str, matrix: Matrix) -> Result<(Site, Matrix), Diagnostics> {
    let text = Text::check(name.into(), text.as_bytes().to_vec())?;
    read::read(&text, |_| Ok(matrix))
}

#[cfg(test)]
mod tests;
