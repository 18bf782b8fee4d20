//! The fates of live flows, for people.

use std::io::{self, Write};

use super::quantity::grouped;
use crate::policy::impact::{Fate, Group, Impact};

/// The number of groups of a fate that are written; JSON has all groups.
const SHOWN: usize = 8;

/// Returns a line about the flows between two machines for one service: `inbound 10.9.0.7 to 10.20.0.11
/// 22/tcp, 3 flows`.
fn described(group: &Group) -> String {
    let Group { direction, source, destination, port, protocol, flows, .. } = group;
    let service = match protocol {
        6 => format!("{port}/tcp"),
        17 => format!("{port}/udp"),
        other => format!("protocol {other}"),
    };
    let flows = if *flows == 1 { "1 flow".to_owned() } else { format!("{} flows", grouped(*flows as u64)) };
    format!("{} {source} to {destination} {service}, {flows}", direction.name())
}

/// Returns the numbers of all three fates, in one line.
#[must_use]
pub fn numbers(impact: &Impact) -> String {
    let number = |fate: Fate| format!("{} {}", grouped(impact.count(fate) as u64), fate.name());
    Fate::ALL.map(number).join(", ")
}

/// Returns the groups that are cut, each as a line.
#[must_use]
pub fn cut(impact: &Impact) -> Vec<String> {
    let groups: Vec<&Group> = impact.groups.iter().filter(|group| group.fate == Fate::CutNow).collect();
    let mut lines: Vec<String> = groups.iter().take(SHOWN).map(|group| described(group)).collect();
    if groups.len() > SHOWN {
        lines.push(format!(
            "and {} more groups (`pomguard status --json` has them all)",
            groups.len() - SHOWN
        ));
    }
    lines
}

/// Returns lines about the groups that lose something, the worst first.
#[must_use]
pub fn losers(impact: &Impact) -> Vec<String> {
    let mut lines = Vec::new();
    for fate in [Fate::CutNow, Fate::UntilReconnect] {
        let groups: Vec<&Group> = impact.groups.iter().filter(|group| group.fate == fate).collect();
        lines.extend(groups.iter().take(SHOWN).map(|group| format!("{}: {}", fate.name(), described(group))));
        if groups.len() > SHOWN {
            lines.push(format!(
                "{}: {} more groups (--json has them all)",
                fate.name(),
                groups.len() - SHOWN
            ));
        }
    }
    lines
}

/// Writes the numbers, and the groups that lose something.
pub fn print(impact: &Impact, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "live flows: {}", numbers(impact))?;
    for line in losers(impact) {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}
