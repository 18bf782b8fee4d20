//! Answers questions about the policy in a slow and obvious way.
//!
//! Shares no matching code with any other module: plain loops over the rows and plain arithmetic on addresses,
//! so that a fault of the compiler or the datapath cannot also occur here.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Direction, Mode, Policy, Row, RowId};

/// A packet that opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Opening {
    /// Direction as this host sees it.
    pub direction: Direction,
    /// Address that opens the flow.
    pub source: IpAddr,
    /// Client port; 0 for protocols without ports.
    pub source_port: u16,
    /// Address that the flow is opened to.
    pub destination: IpAddr,
    /// Service port; 0 for protocols without ports.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// The rows that allow a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The row that is counted; `None` if no row allows the packet.
    pub first: Option<RowId>,
    /// Every row that allows the packet, in counting order.
    pub all: Vec<RowId>,
    /// Every row in audit that names the port, in counting order. If there is one, a packet that no row allows
    /// is a would-be drop, also in enforce.
    pub in_audit: Vec<RowId>,
}

impl Answer {
    /// Returns true if the packet may pass when the direction is in enforce.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.first.is_some() || !self.in_audit.is_empty()
    }
}

/// Returns the rows that allow `opening`, at an address at which every row holds.
pub fn judge(policy: &Policy, opening: &Opening) -> Answer {
    judge_by(&policy.rows, opening)
}

/// Returns those of `rows` that allow `opening`.
pub fn judge_by<'a>(rows: impl IntoIterator<Item = &'a Row>, opening: &Opening) -> Answer {
    let other = match opening.direction {
        Direction::Inbound => opening.source,
        Direction::Outbound => opening.destination,
    };
    let (mut all, mut in_audit) = (Vec::new(), Vec::new());
    for row in rows {
        if row.direction != opening.direction {
            continue;
        }
        let mut peer_fits = false;
        for peer in &row.peers {
            if lies_in(other, peer.prefix.addr(), u32::from(peer.prefix.prefix_len())) {
                peer_fits = true;
            }
        }
        let client_fits =
            opening.source_port >= row.client_ports.first && opening.source_port <= row.client_ports.last;
        let mut service_fits = false;
        for service in &row.services {
            if service.protocol == opening.protocol
                && opening.destination_port >= service.ports.first
                && opening.destination_port <= service.ports.last
            {
                service_fits = true;
            }
        }
        if service_fits && row.mode == Mode::Audit {
            in_audit.push(row.id.clone());
        }
        if peer_fits && client_fits && service_fits {
            all.push(row.id.clone());
        }
    }
    Answer { first: all.first().cloned(), all, in_audit }
}

/// Returns true if `address` is one of the 2^(width - length) addresses from `base` up.
fn lies_in(address: IpAddr, base: IpAddr, length: u32) -> bool {
    let (address, base, width): (u128, u128, u32) = match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => (u32::from(address).into(), u32::from(base).into(), 32),
        (IpAddr::V6(address), IpAddr::V6(base)) => (address.into(), base.into(), 128),
        _ => return false,
    };
    if length == 0 {
        return true;
    }
    let count_less_one: u128 = (1_u128 << (width - length)) - 1;
    address >= base && address - base <= count_less_one
}
