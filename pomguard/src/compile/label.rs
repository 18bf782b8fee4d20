//! Labels of the counter slots, for readers that have only the maps.

use std::collections::BTreeMap;

use pomguard_common::{counter::RowLabel, protocol, text::FixedText};

use super::{
    ports::has_ports,
    slots::{SlotTable, label_id},
};
use crate::policy::{Policy, PortRange, Row};

/// Returns the labels of the rows in force, by slot.
pub fn labels(policy: &Policy, slots: &SlotTable) -> Vec<(u16, RowLabel)> {
    let mut labels = BTreeMap::new();
    for row in &policy.rows {
        if let Some(slot) = slots.of(&row.id, row.direction) {
            labels.entry(slot).or_insert_with(|| label(row));
        }
    }
    labels.into_iter().collect()
}

pub(super) fn label(row: &Row) -> RowLabel {
    RowLabel {
        id: FixedText::new(&label_id(&row.id)),
        source: FixedText::new(&row.source.join(", ")),
        destination: FixedText::new(&row.destination.join(", ")),
        ports: FixedText::new(&ports(row)),
        direction: row.direction as u8,
        live: 1,
        failsafe: row.failsafe.into(),
        reserved: 0,
    }
}

/// Formats the ports as enforced, with the protocol: `9995-9997 tcp`, `53 tcp/udp`, `icmp`.
fn ports(row: &Row) -> String {
    let mut by_protocol: BTreeMap<u8, Vec<PortRange>> = BTreeMap::new();
    for service in &row.services {
        let ranges = by_protocol.entry(service.protocol).or_default();
        if has_ports(service.protocol) {
            ranges.push(service.ports);
        }
    }
    let mut groups: Vec<(Vec<PortRange>, String)> = Vec::new();
    for (number, ranges) in by_protocol {
        match groups.iter_mut().find(|(same, _)| *same == ranges) {
            Some((_, names)) => *names = format!("{names}/{}", name(number)),
            None => groups.push((ranges, name(number))),
        }
    }
    let group = |(ranges, names): (Vec<PortRange>, String)| {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        if ranges.is_empty() { names } else { format!("{} {names}", ranges.join(", ")) }
    };
    groups.into_iter().map(group).collect::<Vec<_>>().join("; ")
}

fn name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        _ => format!("protocol {number}"),
    }
}
