//! Finds the rows nearest to a packet that no row allows, and describes the differences.

use std::net::IpAddr;

use serde::Serialize;

use super::{Direction, Policy, PortRange, Row, RowId, Service, oracle::Opening};

/// Most rows that are named; more would hide the row that matters.
const NAMED: usize = 3;

/// A row that almost allows a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Near {
    /// The row.
    pub row: RowId,
    /// The difference, one sentence.
    pub differs: String,
}

/// Returns the rows nearest to `opening`, fewest differences first. Rows that differ both in address and in
/// port are not near.
pub fn nearest(policy: &Policy, opening: &Opening) -> Vec<Near> {
    let mut near: Vec<(usize, u32, Near)> =
        policy.rows_in(opening.direction).filter_map(|row| compare(policy, row, opening)).collect();
    near.sort_by_key(|&(differences, distance, _)| (differences, distance));
    near.into_iter().map(|(_, _, near)| near).take(NAMED).collect()
}

fn compare(policy: &Policy, row: &Row, opening: &Opening) -> Option<(usize, u32, Near)> {
    let (other, others) = match opening.direction {
        Direction::Inbound => (opening.source, &row.source),
        Direction::Outbound => (opening.destination, &row.destination),
    };
    let service = row.services.iter().min_by_key(|service| distance(service, opening))?;
    let (to_port, from_port) = (opening.destination_port, opening.source_port);
    let address_fits = row.peers.iter().any(|peer| peer.prefix.contains(&other));
    let protocol_fits = service.protocol == opening.protocol;
    let port_fits = service.ports.contains(to_port);
    let client_fits = row.client_ports.contains(from_port);
    let near = if address_fits { protocol_fits || port_fits } else { protocol_fits && port_fits };
    if !near {
        return None;
    }
    let preposition = match opening.direction {
        Direction::Inbound => "from",
        Direction::Outbound => "to",
    };
    let mut differs = Vec::new();
    if !address_fits {
        let systems = others.join(", ");
        let whose = owner(policy, other);
        let empty = if row.peers.is_empty() { ", which has no address in the site" } else { "" };
        let port = service_name(service, to_port);
        differs.push(format!("{port} is allowed {preposition} {systems}{empty}; {other} {whose}"));
    }
    if !port_fits {
        let ranges: Vec<String> = row.services.iter().map(|service| service.ports.to_string()).collect();
        differs.push(format!("{other} is allowed at ports {}, not {to_port}", ranges.join(", ")));
    }
    if !protocol_fits {
        differs.push(format!("the row is for protocol {}, not {}", service.protocol, opening.protocol));
    }
    if !client_fits {
        differs.push(format!("client ports are {}, not {from_port}", row.client_ports));
    }
    let far = distance(service, opening);
    Some((differs.len(), far, Near { row: row.id.clone(), differs: differs.join("; ") }))
}

fn service_name(service: &Service, port: u16) -> String {
    if service.ports == PortRange::ANY {
        format!("protocol {}", service.protocol)
    } else {
        format!("port {port}")
    }
}

/// Returns the owner of the address according to the site file.
fn owner(policy: &Policy, address: IpAddr) -> String {
    let known = policy.known.iter().filter(|known| known.prefix.contains(&address));
    match known.max_by_key(|known| known.prefix.prefix_len()) {
        Some(known) => format!("is {}", known.name),
        None => "is not in the site file".to_owned(),
    }
}

/// Returns the number of ports between the packet and the service; a large number for another protocol.
fn distance(service: &Service, opening: &Opening) -> u32 {
    let port = opening.destination_port;
    let off = if service.ports.contains(port) {
        0
    } else {
        u32::from(service.ports.first.abs_diff(port).min(service.ports.last.abs_diff(port)))
    };
    off + if service.protocol == opening.protocol { 0 } else { 1 << 16 }
}
