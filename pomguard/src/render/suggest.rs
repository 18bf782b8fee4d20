//! Rows that would allow denied connections, as text for `site.toml`.
//!
//! A row names single addresses and only the ports that were seen, so that the row allows nothing that was
//! not seen: of a stranger's prefix only the first address is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use pomguard_common::{Direction, reason::Reason};

use super::quantity::{packets, timestamp};
use crate::{
    observe::{
        drops::{reason, report::Item},
        printable::printable,
        snapshot::Disposition,
    },
    policy::{Policy, PortRange, oracle::Opening},
};

/// A suggested row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuggestedRow {
    /// The system that the row is for; `None` for a stranger.
    pub system: Option<String>,
    /// Text for the site file: the evidence as comments, then the row.
    pub text: String,
    /// The drops that the row would let pass.
    pub items: Vec<Item>,
}

/// Suggested rows, and the packets for which no row can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggestion {
    /// The rows, one system after the other.
    pub rows: Vec<SuggestedRow>,
    /// Packets that no row of the site can allow, by reason.
    pub left: BTreeMap<&'static str, u64>,
}

impl Suggestion {
    /// Returns the rows as text for the site file, with a heading for each system.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut system: Option<Option<&str>> = None;
        for row in &self.rows {
            if system != Some(row.system.as_deref()) {
                system = Some(row.system.as_deref());
                let whose = row.system.as_deref().map_or("strangers".into(), printable);
                // Writing to a String cannot fail.
                let _ = writeln!(text, "\n# ---- {whose}");
            }
            text.push_str(&row.text);
        }
        text
    }
}

/// The connections of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    address: IpAddr,
    direction: Direction,
    protocol: u8,
}

/// Returns true if these packets were denied for lack of a row, and the row can be determined.
fn row_helps(item: &Item) -> bool {
    match reason(item.key) {
        Reason::Port
        | Reason::PortKnown
        | Reason::Source
        | Reason::SourceKnown
        | Reason::ClientPort
        | Reason::Destination => item.port.is_none_or(|port| port != 0),
        Reason::Protocol | Reason::ProtocolKnown => {
            !matches!(item.protocol, Some(0 | 43 | 44 | 59 | 60 | 255))
        }
        // Of ICMP, a row allows only echo requests.
        Reason::IcmpType => is_echo(item),
        _ => false,
    }
}

fn is_echo(item: &Item) -> bool {
    matches!((item.protocol, item.key.port()), (Some(1), 0x0800) | (Some(58), 0x8000))
}

/// Writes rows for denied connections. `taken` are the names of the rows that the site has.
#[must_use]
pub fn suggest(items: &[Item], policy: &Policy, taken: &BTreeSet<String>) -> Suggestion {
    let mut suggestion = Suggestion::default();
    let mut subjects: Vec<(Subject, Vec<&Item>)> = Vec::new();
    for item in items.iter().filter(|item| item.verdict != Disposition::Pass) {
        let address = match item.peer.parse::<IpAddr>() {
            Ok(address) if row_helps(item) => address,
            _ => {
                *suggestion.left.entry(item.reason).or_default() += item.packets;
                continue;
            }
        };
        let protocol = item.protocol.unwrap_or_default();
        let subject = Subject { address, direction: item.direction, protocol };
        match subjects.iter_mut().find(|(known, _)| *known == subject) {
            Some((_, items)) => items.push(item),
            None => subjects.push((subject, vec![item])),
        }
    }
    let mut names = taken.clone();
    for (subject, items) in &subjects {
        let Some(first) = items.first() else { continue };
        let mut text = String::new();
        write_row(*subject, items, policy, &mut names, &mut text);
        let items = items.iter().map(|&item| item.clone()).collect();
        suggestion.rows.push(SuggestedRow { system: first.system.clone(), text, items });
    }
    suggestion
}

fn write_row(
    subject: Subject,
    items: &[&Item],
    policy: &Policy,
    names: &mut BTreeSet<String>,
    text: &mut String,
) {
    let Subject { address, direction, protocol } = subject;
    let way = match direction {
        Direction::Inbound => "from",
        Direction::Outbound => "to",
    };
    let protocol_name = match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        number => number.to_string(),
    };
    let plain = address.to_string().replace(':', "-");
    let base = format!("seen-{protocol_name}-{way}-{}", plain.trim_matches('-'));
    let free = |name: &String| !names.contains(name);
    let name = std::iter::once(base.clone())
        .chain((2..u32::MAX).map(|number| format!("{base}-{number}")))
        .find(free)
        .unwrap_or(base);
    // Writing to a String cannot fail.
    let _ = writeln!(text);
    for item in items {
        let row = item
            .row
            .as_ref()
            .map_or_else(String::new, |row| format!(", row {} is for others", printable(&row.0)));
        let _ = writeln!(
            text,
            "# {} {}: {}, {}{row}\n#   first {}, last {}",
            item.service,
            item.verdict.name(),
            packets(item.packets),
            item.reason,
            timestamp(item.first),
            timestamp(item.last)
        );
        if let Some(prefix) = item.prefix.as_ref().filter(|_| !item.known) {
            let _ = writeln!(text, "#   counted for all of {prefix}; only the first address is known");
        }
    }
    if protocol != 6 && direction == Direction::Inbound {
        let _ = writeln!(
            text,
            "# Anybody can send {} packets under this address: make sure that\n# the machine does.",
            protocol_name.to_uppercase()
        );
    }
    let (from, to) = match direction {
        Direction::Inbound => (address.to_string(), policy.host.clone()),
        Direction::Outbound => (policy.host.clone(), address.to_string()),
    };
    let _ = writeln!(text, "[[allow]]\nname = \"{name}\"\nfrom = [\"{from}\"]\nto = [\"{to}\"]");
    let ports = ranges(items.iter().filter_map(|item| item.port));
    if !ports.is_empty() {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "ports = \"{}\"", ports.join(", "));
    }
    let _ = match protocol_name.parse::<u8>() {
        Ok(number) => writeln!(text, "protocol = {number}"),
        Err(_) => writeln!(text, "protocol = \"{protocol_name}\""),
    };
    let _ = writeln!(text, "purpose = \"Seen by `pomguard suggest`: say what it is for.\"");
    names.insert(name);
}

/// Returns ranges that contain exactly these ports.
fn ranges(ports: impl Iterator<Item = u16>) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = Vec::new();
    for port in ports.collect::<BTreeSet<u16>>() {
        match ranges.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(port) => last.last = port,
            _ => ranges.push(PortRange::one(port)),
        }
    }
    ranges
}

/// Returns a site file with rows added, before the end mark if the file has one.
#[must_use]
pub fn with_rows(site: &str, rows: &str) -> String {
    let end = site
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .filter(|line| line.trim_start().starts_with("[end]"));
    match end.and_then(|line| site.rfind(line)) {
        Some(at) => format!("{}\n{rows}\n{}", &site[..at], &site[at..]),
        None => format!("{site}\n{rows}"),
    }
}

/// Returns the packet that a row has to allow, as a question to the policy. `local` is an address of this
/// host.
#[must_use]
pub fn opening(item: &Item, local: IpAddr) -> Option<Opening> {
    let address = item.peer.parse::<IpAddr>().ok().filter(|_| row_helps(item))?;
    let (port, other) = (item.port.unwrap_or_default(), item.other_port.unwrap_or_default());
    let (source, destination) = match item.direction {
        Direction::Inbound => (address, local),
        Direction::Outbound => (local, address),
    };
    Some(Opening {
        direction: item.direction,
        source,
        source_port: other,
        destination,
        destination_port: port,
        protocol: item.protocol?,
    })
}

#[cfg(test)]
pub(super) mod tests;
