//! What this host is to enforce: names resolved to addresses, rows chosen, conflicts found.
//!
//! Pure: no kernel, no root. `resolve` makes a [`Policy`] out of the input
//! files; `compile` turns it into the bytes of the maps; `oracle` answers the same questions
//! slowly and obviously, and shares no code with the data path.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
pub use pomguard_common::Direction;
use serde::{Deserialize, Serialize};

pub mod area;
pub mod collision;
pub mod conflict;
pub mod diff;
pub mod explain;
pub mod impact;
pub mod machine;
pub mod nearest;
pub mod oracle;
pub mod own;
mod resolve;
pub mod setting;

pub use crate::model::{Mode, Origin, OwnAddresses, PacketSettings, PortRange, Rates, RowId};
pub use own::MachineAddresses;
pub use resolve::{Effective, addresses_of, effective, resolve};

/// An IP protocol together with what may be chosen inside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination ports, both ends included; [`PortRange::ANY`] for protocols without ports.
    pub ports: PortRange,
}

/// One peer of a row: an address range and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// The prefix; a range in the site file became several.
    pub prefix: IpNet,
    /// The system, host or literal it was written as: `Agent Desktop`, `pom2`, `10.9.0.0/24`. Shared with the
    /// row's names: a large site has a hundred thousand.
    pub name: Arc<str>,
    /// Where the address was written.
    pub origin: Origin,
}

/// A row as it applies to this host in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Stable id.
    pub id: RowId,
    /// Inbound: this host runs the destination. Outbound: it runs the source.
    pub direction: Direction,
    /// Systems (or hosts, or literals) on the side that opens the connection.
    pub source: Vec<Arc<str>>,
    /// Those on the side that is opened to.
    pub destination: Vec<Arc<str>>,
    /// Destination ports as printed or written, for people.
    pub printed: String,
    /// Transport and application protocol as printed, for people: `TLS`, `HTTP/HTTPS`.
    pub protocol: String,
    /// The other side's addresses. Empty: the row grants nothing (and is reported).
    pub peers: Vec<Peer>,
    /// Ports the opening side may use, both ends included.
    pub client_ports: PortRange,
    /// What may be opened to.
    pub services: Vec<Service>,
    /// Enforce, or audit: who else opens to its services is counted as a would-be drop, and passes.
    pub mode: Mode,
    /// Holds in every mode and generation, checked before all else.
    pub failsafe: bool,
    /// What it is for, one sentence.
    pub purpose: String,
    /// Where it was written.
    pub origin: Origin,
}

impl Row {
    /// Returns true if both come to the same, wherever they were written.
    fn is_same(&self, other: &Self) -> bool {
        let peers = |row: &Self| -> Vec<Peer> {
            let peers = row.peers.iter().cloned();
            peers.map(|peer| Peer { origin: self.origin.clone(), ..peer }).collect()
        };
        let without = |row: &Self| Self { peers: Vec::new(), origin: self.origin.clone(), ..row.clone() };
        peers(self) == peers(other) && without(self) == without(other)
    }
}

/// An address that the site file names, whether or not a row uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Known {
    /// The prefix.
    pub prefix: IpNet,
    /// The host's name, or the systems of the peer, joined by a comma.
    pub name: Arc<str>,
}

/// The matrix a policy was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixName {
    /// `pom-4.0`.
    pub id: String,
    /// As the document calls itself.
    pub title: String,
}

/// Everything this host enforces. Sorted and comparable; two equal policies compile to equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// This host's name in the site file.
    pub host: String,
    /// The matrix.
    pub matrix: MatrixName,
    /// This host's own addresses, as the site file lists them.
    pub local: Vec<IpAddr>,
    /// Own prefixes, and floating addresses: packets to them are for this host, which sends from those that it
    /// holds.
    pub shared: Vec<IpNet>,
    /// Which addresses of the machine count as own.
    pub own_addresses: OwnAddresses,
    /// Addresses that this machine has now.
    pub machine: MachineAddresses,
    /// What inbound packets that no row allows come to: [`Mode::Audit`] or [`Mode::Enforce`].
    pub inbound: Mode,
    /// What outbound packets that no row allows come to.
    pub outbound: Mode,
    /// Rows that apply here: failsafe first, then in print order, then the site's own in file order.
    /// Where several allow the same tuple, the first one is counted.
    pub rows: Vec<Row>,
    /// Every address of the site except this host's own.
    pub known: Vec<Known>,
    /// Dispositions and limits of packet classes, as `pomguard.toml` sets them.
    pub packets: PacketSettings,
}

impl Policy {
    /// Returns true if both come to the same, wherever their parts were written.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self {
            host,
            matrix,
            local,
            shared,
            own_addresses,
            // The addresses of the moment are followed as they come and go, without a change of policy.
            machine: _,
            inbound,
            outbound,
            rows,
            known,
            packets,
        } = self;
        (host, matrix, local, shared, own_addresses, inbound, outbound, known, packets)
            == (
                &other.host,
                &other.matrix,
                &other.local,
                &other.shared,
                &other.own_addresses,
                &other.inbound,
                &other.outbound,
                &other.known,
                &other.packets,
            )
            && rows.len() == other.rows.len()
            && rows.iter().zip(&other.rows).all(|(row, other)| row.is_same(other))
    }

    /// What packets of a direction come to that no row allows.
    #[must_use]
    pub const fn mode(&self, direction: Direction) -> Mode {
        match direction {
            Direction::Inbound => self.inbound,
            Direction::Outbound => self.outbound,
        }
    }

    /// Rows of one direction, in counting order.
    pub fn rows_in(&self, direction: Direction) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.direction == direction)
    }

    /// Tuples that the rows come to, per row: prefixes times port ranges.
    pub fn tuples(&self) -> BTreeMap<(RowId, Direction), usize> {
        self.rows
            .iter()
            .map(|row| ((row.id.clone(), row.direction), row.peers.len() * row.services.len()))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
