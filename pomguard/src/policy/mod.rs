//! The rules that this host enforces: names resolved to addresses, rows chosen, conflicts found.
//!
//! Pure: no kernel, no root. `resolve` makes a [`Policy`] out of the input files; `compile` turns the policy
//! into the bytes of the maps; `oracle` answers the same questions in a slow and obvious way, and shares no
//! code with the datapath.

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
pub mod our_end;
pub mod own;
pub mod precedence;
pub mod question;
mod resolve;
pub mod services;
pub mod setting;

pub use crate::model::{FlowAges, Mode, Origin, OwnAddresses, PacketSettings, PortRange, Rates, RowId};
pub use own::MachineAddresses;
pub use resolve::{Effective, addresses_of, effective, resolve};

/// An IP protocol, and the ports in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination ports, both ends included; [`PortRange::ANY`] for protocols without ports.
    pub ports: PortRange,
}

/// One peer of a row: a prefix and its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// The prefix; a range in the site file becomes several prefixes.
    pub prefix: IpNet,
    /// The system, host or literal as written: `Agent Desktop`, `pom2`, `10.9.0.0/24`. Shared with the row's
    /// names: a large site has a hundred thousand peers.
    pub name: Arc<str>,
    /// The place where the address is written.
    pub origin: Origin,
}

/// A row as it applies to this host in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Stable id.
    pub id: RowId,
    /// Inbound: this host runs the destination. Outbound: this host runs the source.
    pub direction: Direction,
    /// Systems (or hosts, or literals) on the side that opens the connection.
    pub source: Vec<Arc<str>>,
    /// Systems (or hosts, or literals) on the side that accepts the connection.
    pub destination: Vec<Arc<str>>,
    /// Destination ports as printed or written, for people.
    pub printed: String,
    /// Transport and application protocol as printed, for people: `TLS`, `HTTP/HTTPS`.
    pub protocol: String,
    /// The peer's addresses. If empty, the row allows nothing (and is reported).
    pub peers: Vec<Peer>,
    /// Client ports, both ends included.
    pub client_ports: PortRange,
    /// The services that the row allows.
    pub services: Vec<Service>,
    /// Enforce or audit. In audit, packets of other peers to these services are counted as would-be drops, and
    /// pass.
    pub mode: Mode,
    /// True if the row holds in every mode of its generation; such rows are checked first.
    pub failsafe: bool,
    /// Purpose of the row, one sentence.
    pub purpose: String,
    /// The place where the row is written.
    pub origin: Origin,
}

impl Row {
    /// Returns true if both rows mean the same. The places where they are written do not count.
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
    /// Name of the host, or systems of the peer, joined by a comma.
    pub name: Arc<str>,
}

/// The matrix of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixName {
    /// Short name: `pom-4.0`.
    pub id: String,
    /// Title of the document.
    pub title: String,
}

/// Everything that this host enforces. Sorted and comparable; two equal policies compile to equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Name of this host in the site file.
    pub host: String,
    /// The matrix.
    pub matrix: MatrixName,
    /// This host's own addresses, as the site file lists them.
    pub local: Vec<IpAddr>,
    /// Own prefixes, and floating addresses. Packets to them are for this host; this host sends only from the
    /// addresses that it holds.
    pub shared: Vec<IpNet>,
    /// The setting that decides which addresses of the machine count as own.
    pub own_addresses: OwnAddresses,
    /// Addresses that this machine has now.
    pub machine: MachineAddresses,
    /// Mode for inbound packets that no row allows: [`Mode::Audit`] or [`Mode::Enforce`].
    pub inbound: Mode,
    /// Mode for outbound packets that no row allows.
    pub outbound: Mode,
    /// Rows that apply here: failsafe rows first, then matrix rows in print order, then the site's own in file
    /// order. If several rows allow the same tuple, the first one is counted.
    pub rows: Vec<Row>,
    /// Every address of the site except this host's own.
    pub known: Vec<Known>,
    /// Dispositions and limits of packet classes, as `pomguard.toml` sets them.
    pub packets: PacketSettings,
    /// Ages of flows, as `pomguard.toml` sets them.
    pub flows: FlowAges,
}

impl Policy {
    /// Returns true if both policies mean the same. The places where their parts are written do not count.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self {
            host,
            matrix,
            local,
            shared,
            own_addresses,
            // The current addresses are followed as they come and go, without a change of policy.
            machine: _,
            inbound,
            outbound,
            rows,
            known,
            packets,
            flows,
        } = self;
        (host, matrix, local, shared, own_addresses, inbound, outbound, known, packets, flows)
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
                &other.flows,
            )
            && rows.len() == other.rows.len()
            && rows.iter().zip(&other.rows).all(|(row, other)| row.is_same(other))
    }

    /// Returns the mode for packets of a direction that no row allows.
    #[must_use]
    pub const fn mode(&self, direction: Direction) -> Mode {
        match direction {
            Direction::Inbound => self.inbound,
            Direction::Outbound => self.outbound,
        }
    }

    /// Returns the rows of one direction, in counting order.
    pub fn rows_in(&self, direction: Direction) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.direction == direction)
    }

    /// Returns the number of tuples of each row: prefixes times port ranges.
    pub fn tuples(&self) -> BTreeMap<(RowId, Direction), usize> {
        self.rows
            .iter()
            .map(|row| ((row.id.clone(), row.direction), row.peers.len() * row.services.len()))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
