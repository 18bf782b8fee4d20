//! Failsafe rows as lines of the override table, where they hold alongside the rows of the image.

use pomguard_common::{
    Direction,
    control::Override,
    counter::RowLabel,
    image::{Address, Family},
    limits,
};

use super::{
    error::CompileError,
    label::label,
    ports::has_ports,
    prefix::{left_aligned, mask},
    slots::SlotTable,
};
use crate::policy::{Peer, Policy, PortRange, Row, Service};

/// Returns the overrides of a policy's failsafe rows: one per peer prefix and port range. Each holds for every
/// slot, until [`crate::kernel::install`] binds the override to the slot of its generation.
///
/// # Errors
/// [`CompileError::Overrides`] if there are more than the table has lines, [`CompileError::Slot`] if the slots
/// belong to another policy.
pub fn overrides(policy: &Policy, slots: &SlotTable) -> Result<Vec<Override>, CompileError> {
    let mut found: Vec<Override> = Vec::new();
    let failsafe = || policy.rows.iter().filter(|row| row.failsafe);
    let needed = failsafe().map(|row| row.peers.len().saturating_mul(row.services.len()));
    let needed = needed.fold(0, usize::saturating_add);
    if needed > limits::OVERRIDES {
        return Err(CompileError::Overrides { found: needed });
    }
    for row in failsafe() {
        let slot = slots.of(&row.id, row.direction);
        let slot = slot.ok_or_else(|| CompileError::Slot { row: row.id.0.clone() })?;
        for peer in &row.peers {
            found.extend(row.services.iter().map(|service| override_rule(row, peer, service, slot)));
        }
    }
    Ok(found)
}

/// Returns the label and the lines of a timed exception: a row that holds until `expires` alongside every
/// policy. The caller must still assign the counter slot.
#[must_use]
pub fn lines_of(row: &Row, expires: u32) -> (RowLabel, Vec<Override>) {
    let line = |peer, service| Override { expires, ..override_rule(row, peer, service, 0) };
    let lines = row.peers.iter().flat_map(|peer| row.services.iter().map(move |service| line(peer, service)));
    (label(row), lines.collect())
}

fn override_rule(row: &Row, peer: &Peer, service: &Service, slot: u16) -> Override {
    let length = peer.prefix.prefix_len();
    let family = if peer.prefix.addr().is_ipv4() { Family::V4 } else { Family::V6 };
    let (ports, client) = if has_ports(service.protocol) {
        (service.ports, row.client_ports)
    } else {
        (PortRange::one(service.protocol.into()), PortRange::ANY)
    };
    let outbound = if row.direction == Direction::Outbound { Override::OUTBOUND } else { 0 };
    Override {
        peer: words(left_aligned(peer.prefix.addr()) & mask(length)),
        mask: words(mask(length)),
        ports: range(ports),
        client_ports: range(client),
        row: slot,
        protocol: service.protocol,
        marks: family as u8 | outbound,
        slots: Override::EVERY_SLOT,
        ..Override::FREE
    }
}

fn range(ports: PortRange) -> u32 {
    u32::from(ports.first) | u32::from(ports.last) << 16
}

/// Splits an address into four words, most significant first.
fn words(bits: u128) -> Address {
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}
