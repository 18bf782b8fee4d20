//! `site.toml`: which addresses run which systems, the same file on every server of the site.

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

/// The whole file.
#[derive(Clone, Debug)]
pub struct Site {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Its text.
    pub source: Source,
    /// Whether the file ends with its `[end]` mark, so that a copy cut short would have been noticed.
    pub end_marked: bool,
    /// Zones of the product; at least one.
    pub zones: u16,
    /// Servers that run pomguard.
    pub hosts: Vec<Host>,
    /// Addresses that one of several hosts holds.
    pub floating: Vec<Floating>,
    /// Machines that do not.
    pub peers: Vec<PeerGroup>,
    /// Changes to matrix rows.
    pub overrides: Vec<Override>,
    /// The site's own rows.
    pub allows: Vec<Allow>,
}

/// `[[host]]`: a server that runs pomguard.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: At<String>,
    /// Its addresses. A prefix means all addresses in it that the file gives to nobody else.
    pub addresses: Vec<At<IpNet>>,
    /// The systems that it runs, by the matrix's names.
    pub systems: Vec<At<String>>,
}

impl Host {
    /// Returns true if the address is one of the host's, floating ones aside.
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
    /// A name for `from` and `to`, if it has one.
    pub name: Option<At<String>>,
    /// The systems that they run, by the matrix's names.
    pub systems: Vec<At<String>>,
    /// Where they are; a range is several prefixes.
    pub addresses: Vec<At<Prefixes>>,
}

impl PeerGroup {
    /// What people call it: its name, or its systems.
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
    /// The row's number.
    pub row: At<u32>,
    /// Other ports, as written and as read.
    pub ports: Option<At<(String, Vec<PortSpec>)>>,
    /// On or off.
    pub enabled: Option<At<bool>>,
    /// Watched or enforced.
    pub mode: Option<At<Mode>>,
    /// Whether a row may be changed that the matrix holds fixed.
    pub force: bool,
    /// Where it stands.
    pub origin: Origin,
}

/// An entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An address, a prefix or a range.
    Addresses(Prefixes),
    /// Every machine that runs this system.
    System(String),
    /// The host of this name.
    Host(String),
    /// The peer entry of this name.
    Peer(String),
    /// Every host.
    EveryHost,
}

/// An entry of `from` or `to` and how it was written.
#[derive(Clone, Debug)]
pub struct WrittenPlace {
    /// As written.
    pub written: Arc<str>,
    /// What it means.
    pub place: Place,
    /// Where it stands.
    pub origin: Origin,
}

/// `[[allow]]`: a row of the site's own.
#[derive(Clone, Debug)]
pub struct Allow {
    /// The second part of its id: `site/<name>`.
    pub name: At<String>,
    /// Who opens.
    pub from: Vec<WrittenPlace>,
    /// To whom.
    pub to: Vec<WrittenPlace>,
    /// As written; empty for protocols without ports.
    pub printed: String,
    /// Destination ports; [`PortRange::ANY`] alone for protocols without ports.
    pub ports: Vec<PortRange>,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
    /// As written.
    pub protocol: String,
    /// Ports that the opening side may use.
    pub source_ports: PortRange,
    /// Whether it holds in every mode and generation.
    pub failsafe: bool,
    /// Watched or enforced.
    pub mode: Mode,
    /// What it is for.
    pub purpose: String,
    /// Where it stands.
    pub origin: Origin,
}

impl Site {
    /// The floating addresses of a host.
    pub fn floating_of<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a At<IpAddr>> {
        self.floating.iter().filter(|it| it.names(host)).flat_map(|it| &it.addresses)
    }

    /// What a name of the site (a host, a peer entry, a system of the matrix, all hosts) or an address stands
    /// for, as in `from` and `to` of an [`Allow`].
    ///
    /// # Errors
    /// When there is no such name, with the one that was probably meant, or the address is wrong.
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

/// Reads a text in memory; `name` stands for the file in messages, `folder` is where its matrix may be.
pub fn parse(name: &str, text: &str, folder: &Path) -> Result<(Site, Matrix), Diagnostics> {
    let text = Text::check(name.into(), text.as_bytes().to_vec())?;
    read::read(&text, |name| Matrix::named(name, folder, &mut Files::reported()))
}

/// The same over a matrix that is at hand, whatever the text calls it.
pub(super) fn parse_with(name: &str, text: &str, matrix: Matrix) -> Result<(Site, Matrix), Diagnostics> {
    let text = Text::check(name.into(), text.as_bytes().to_vec())?;
    read::read(&text, |_| Ok(matrix))
}

#[cfg(test)]
mod tests;
