//! Explains why a packet passes or not, from the policy alone.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Serialize;

use super::{
    Direction, Mode, Origin, Policy, Row, RowId,
    nearest::{Near, nearest},
    oracle::{Opening, judge},
    our_end::OurEnd,
};
use crate::input::{address, diagnostic::Fault};

/// Client port for questions that name none, from the usual ephemeral range.
const SOME_CLIENT_PORT: u16 = 50_000;

/// The answer to `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The packet.
    pub opening: Opening,
    /// True if the packet passes in the direction's mode.
    pub passes: bool,
    /// A remark about the address at this host's end; `None` if this host owns the address.
    pub end: Option<String>,
    /// The mode of the direction.
    pub mode: Mode,
    /// The row that is counted.
    pub row: Option<MatchedRow>,
    /// Every row that allows the packet.
    pub all: Vec<RowId>,
    /// If no row allows the packet: the rows in audit that name the port. Because of such rows the packet
    /// passes even in enforce.
    pub in_audit: Vec<RowId>,
    /// If no row allows the packet: the nearest rows.
    pub nearest: Vec<Near>,
}

/// The row that allows a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MatchedRow {
    /// Id of the row.
    pub id: RowId,
    /// Places that open the connection, as the row has them.
    pub source: Vec<Arc<str>>,
    /// Places that accept the connection.
    pub destination: Vec<Arc<str>>,
    /// Ports as printed or written.
    pub printed: String,
    /// Protocol as printed.
    pub protocol: String,
    /// Purpose of the row.
    pub purpose: String,
    /// The place where the row is written.
    pub origin: Origin,
    /// The prefix that contains the peer's address, the longest if there are several.
    pub prefix: String,
    /// The owner of the prefix.
    pub peer: String,
    /// The place where the prefix is written.
    pub peer_origin: Origin,
}

/// Returns the verdict of the policy about `opening`, with the reason.
pub fn explain(policy: &Policy, opening: &Opening) -> Explanation {
    let (end, restricted) = at_our_end(policy, opening);
    let policy = restricted.as_ref().unwrap_or(policy);
    let answer = judge(policy, opening);
    let mode = match opening.direction {
        Direction::Inbound => policy.inbound,
        Direction::Outbound => policy.outbound,
    };
    let first = answer.first.as_ref();
    let row = first.and_then(|id| policy.rows_in(opening.direction).find(|row| row.id == *id));
    let nearest = if row.is_some() { Vec::new() } else { nearest(policy, opening) };
    let passes = answer.passes() || mode != Mode::Enforce;
    let in_audit = if row.is_some() { Vec::new() } else { answer.in_audit };
    let row = row.and_then(|row| matched(row, opening));
    Explanation { opening: *opening, passes, end, mode, row, all: answer.all, in_audit, nearest }
}

/// Describes the address at this host's end if this host does not simply own the address. Also returns the
/// policy reduced to the rows that hold at that address, if these are not all rows.
fn at_our_end(policy: &Policy, opening: &Opening) -> (Option<String>, Option<Policy>) {
    let Opening { source, destination, .. } = *opening;
    let ours = if opening.direction == Direction::Inbound { destination } else { source };
    let end = policy.our_end(opening);
    let about = match end {
        OurEnd::Own => return (None, None),
        OurEnd::SpoofedSource => {
            format!("{source} is this host's own: from the network it is a spoofed source")
        }
        OurEnd::Group => format!("{ours} is no address of one host: no row matches"),
        OurEnd::NotHeld => {
            format!("{ours} is this host's, which does not hold it now: it does not send from there")
        }
        OurEnd::OfOther(name) => format!("{ours} belongs to {name}: no row of this host matches"),
        OurEnd::Nobodys => {
            let here = if policy.machine.held.contains(&ours) { "this machine has it, and " } else { "" };
            format!(
                "{here}the site file gives {ours} to nobody: only failsafe rows and timed exceptions hold there"
            )
        }
    };
    let rows = policy.rows.iter().filter(|row| end.holds(row)).cloned().collect();
    (Some(about), Some(Policy { rows, ..policy.clone() }))
}

fn matched(row: &Row, opening: &Opening) -> Option<MatchedRow> {
    let other = match opening.direction {
        Direction::Inbound => opening.source,
        Direction::Outbound => opening.destination,
    };
    let holding = row.peers.iter().filter(|peer| peer.prefix.contains(&other));
    let peer = holding.max_by_key(|peer| peer.prefix.prefix_len())?;
    Some(MatchedRow {
        id: row.id.clone(),
        source: row.source.clone(),
        destination: row.destination.clone(),
        printed: row.printed.clone(),
        protocol: row.protocol.clone(),
        purpose: row.purpose.clone(),
        origin: row.origin.clone(),
        prefix: peer.prefix.to_string(),
        peer: peer.name.to_string(),
        peer_origin: peer.origin.clone(),
    })
}

/// Parses `SRC[:PORT] DST:PORT/PROTO`. The direction follows from the end that is this host; if neither end is,
/// the question is about an inbound packet.
pub fn question(policy: &Policy, source: &str, destination: &str) -> Result<Opening, Fault> {
    let form = "write it as SRC[:PORT] DST:PORT/PROTO, such as 10.50.3.7 10.20.0.11:9970/tcp, IPv6 as [fd00::1]:9970/tcp";
    let wrong = |problem: &str| Fault::new(problem, form);
    let (target, protocol) = destination.rsplit_once('/').ok_or_else(|| wrong("the protocol is missing"))?;
    let protocol = match protocol {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "icmpv6" => 58,
        number => number.parse().map_err(|_| wrong("unknown protocol"))?,
    };
    let has_ports = protocol == 6 || protocol == 17;
    let (destination, to_port) = endpoint(target)?;
    let (source, from_port) = endpoint(source)?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(wrong("one address is IPv4, the other IPv6"));
    }
    let (destination_port, source_port) = match (has_ports, to_port) {
        (false, _) => (0, 0),
        (true, Some(port)) => (port, from_port.unwrap_or(SOME_CLIENT_PORT)),
        (true, None) => return Err(wrong("the destination port is missing")),
    };
    // A host that does not hold a floating address connects to that address as to any other host's.
    let direction = match (policy.is_own(source), policy.is_own(destination)) {
        (true, true) if policy.may_send(source) && !policy.may_send(destination) => Direction::Outbound,
        (true, false) => Direction::Outbound,
        (false, false) if policy.machine.held.contains(&source) => Direction::Outbound,
        (_, true) | (false, false) => Direction::Inbound,
    };
    Ok(Opening { direction, source, source_port, destination, destination_port, protocol })
}

fn endpoint(written: &str) -> Result<(IpAddr, Option<u16>), Fault> {
    if let Ok(socket) = written.parse::<SocketAddr>() {
        return Ok((address::address(&socket.ip().to_string())?, Some(socket.port())));
    }
    let bare = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(written);
    Ok((address::address(bare)?, None))
}
