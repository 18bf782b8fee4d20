//! Explains why a packet passes or not, from the policy alone.

use std::sync::Arc;

use serde::Serialize;

use super::{
    Direction, Mode, Origin, Policy, Row, RowId,
    nearest::{Near, nearest},
    oracle::{Opening, judge},
    our_end::OurEnd,
    precedence::{self, Alongside, Ruling},
};

/// The answer to `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The packet.
    pub opening: Opening,
    /// True if the packet passes in the direction's mode.
    pub passes: bool,
    /// The verdict by the whole precedence, with the reason.
    pub ruling: Ruling,
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

/// Returns the verdict of the policy about `opening`, with the reason and the rows that matter.
#[must_use]
pub fn explain(policy: &Policy, alongside: &Alongside, opening: &Opening) -> Explanation {
    let ruling = precedence::judge(policy, alongside, opening);
    let (end, restricted) = at_our_end(policy, opening);
    let here = restricted.as_ref().unwrap_or(policy);
    let answer = judge(here, opening);
    let rows = here.rows_in(opening.direction).chain(&alongside.exceptions);
    let row = ruling.row.as_ref().and_then(|id| rows.into_iter().find(|row| row.id == *id));
    let denied = ruling.is_denial();
    Explanation {
        opening: *opening,
        passes: ruling.passes(),
        end,
        mode: policy.mode(opening.direction),
        row: row.and_then(|row| matched(row, opening)),
        all: if row.is_some() { answer.all } else { Vec::new() },
        in_audit: if denied { answer.in_audit } else { Vec::new() },
        nearest: if denied { nearest(here, opening) } else { Vec::new() },
        ruling,
    }
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
