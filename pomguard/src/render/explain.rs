//! The reason for which a packet passes or not.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use pomguard_common::reason::Reason;

use super::{
    quantity::{duration, grouped},
    text::wrapped,
};
use crate::{
    observe::{
        drops::{reason, report::Item},
        printable::printable,
    },
    policy::{
        Mode, Policy, explain::Explanation, oracle::Opening, own::Owner, precedence::Ruling,
        question::AnswerGroup,
    },
};

/// Returns a packet in the form that `explain` takes: `10.50.3.7:50000 10.20.0.11:9970/tcp`.
#[must_use]
pub fn described(opening: &Opening) -> String {
    let Opening { source, source_port, destination, destination_port, .. } = *opening;
    match opening.protocol {
        protocol @ (6 | 17) => format!(
            "{} {}/{}",
            SocketAddr::new(source, source_port),
            SocketAddr::new(destination, destination_port),
            if protocol == 6 { "tcp" } else { "udp" }
        ),
        1 => format!("{source} {destination}/icmp"),
        58 => format!("{source} {destination}/icmpv6"),
        other => format!("{source} {destination}/{other}"),
    }
}

/// Writes the policy's answer for people.
pub fn print(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    let (opening, ruling) = (&explanation.opening, &explanation.ruling);
    let (direction, mode) = (opening.direction.name(), explanation.mode.name());
    writeln!(out, "{} · {direction} {mode} · {}", verdict(ruling), described(opening))?;
    writeln!(out, "  reason   {}", ruling.reason.name())?;
    for line in wrapped(ruling.reason.help(), WIDTH - INDENT.len()) {
        writeln!(out, "{INDENT}{line}")?;
    }
    if let Some(end) = &explanation.end {
        labelled("address", end, out)?;
    }
    if let Some(row) = &explanation.row {
        let (source, destination) = (row.source.join(", "), row.destination.join(", "));
        writeln!(out, "  row      {} ({})", row.id, row.origin)?;
        labelled("printed", &format!("{source} to {destination}, {} {}", row.printed, row.protocol), out)?;
        labelled("purpose", &row.purpose, out)?;
        labelled("matched", &format!("{} {} ({})", row.prefix, row.peer, row.peer_origin), out)?;
        if explanation.all.len() > 1 {
            let others: Vec<&str> = explanation.all.iter().skip(1).map(|id| id.0.as_str()).collect();
            labelled("also", &others.join(", "), out)?;
        }
        return Ok(());
    }
    if !ruling.is_denial() && ruling.reason != Reason::Untracked {
        return Ok(());
    }
    if explanation.passes {
        let rows: Vec<&str> = explanation.in_audit.iter().map(|id| id.0.as_str()).collect();
        let why = match (explanation.mode, rows.as_slice()) {
            (Mode::Track, _) => format!("because {direction} is only tracked"),
            (Mode::Audit, []) => format!("because {direction} is in audit"),
            (_, []) => "because of a bypass, or because the other direction is in audit".to_owned(),
            (_, [row]) => format!("in audit because row {row} is in audit"),
            (_, rows) => format!("in audit because rows {} are in audit", rows.join(", ")),
        };
        writeln!(out, "  passes {why}; enforce would drop it")?;
    }
    if explanation.nearest.is_empty() {
        writeln!(out, "  no row comes near")?;
    }
    for near in &explanation.nearest {
        labelled("near", &format!("{}: {}", near.row, near.differs), out)?;
    }
    Ok(())
}

/// Columns of a line.
const WIDTH: usize = 80;
/// The beginning of a line that goes on.
const INDENT: &str = "           ";

/// Writes a line with a label, and more lines if the text is long.
fn labelled(label: &str, text: &str, out: &mut impl Write) -> io::Result<()> {
    for (at, line) in wrapped(text, WIDTH - INDENT.len()).iter().enumerate() {
        match at {
            0 => writeln!(out, "  {label:<9}{line}")?,
            _ => writeln!(out, "{INDENT}{line}")?,
        }
    }
    Ok(())
}

const fn verdict(ruling: &Ruling) -> &'static str {
    match (ruling.passes(), ruling.audited) {
        (true, true) => "PASS in audit",
        (true, false) => "PASS",
        (false, _) => "DROP",
    }
}

/// The most ranges of addresses that a line names.
const RANGES: usize = 3;

/// Writes one line for packets with the same answer.
pub fn group(group: &AnswerGroup, policy: &Policy, out: &mut impl Write) -> io::Result<()> {
    let AnswerGroup { ruling, opening, sources, destinations } = group;
    let service = match opening.protocol {
        6 => format!(" {}/tcp", opening.destination_port),
        17 => format!(" {}/udp", opening.destination_port),
        1 => " icmp".to_owned(),
        58 => " icmpv6".to_owned(),
        number => format!(" protocol {number}"),
    };
    let row = ruling.row.as_ref().map_or_else(String::new, |row| format!(" {row}"));
    let text = format!(
        "{} {}{row}: {} to {}{service}",
        verdict(ruling),
        ruling.reason.name(),
        ranges(sources, policy),
        ranges(destinations, policy)
    );
    for (at, line) in wrapped(&text, WIDTH - 2).iter().enumerate() {
        writeln!(out, "{}{line}", if at == 0 { "" } else { "  " })?;
    }
    Ok(())
}

/// Returns the first ranges in words, with the owner if there is one range alone.
fn ranges(parts: &[(IpAddr, IpAddr)], policy: &Policy) -> String {
    let one = |(first, last): &(IpAddr, IpAddr)| {
        if first == last {
            return first.to_string();
        }
        let mut nets: Vec<IpNet> = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Ipv4Subnets::new(*first, *last, 0).take(2).map(IpNet::from).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                Ipv6Subnets::new(*first, *last, 0).take(2).map(IpNet::from).collect()
            }
            _ => Vec::new(),
        };
        match (nets.pop(), nets.is_empty()) {
            (Some(net), true) => net.to_string(),
            _ => format!("{first}-{last}"),
        }
    };
    let mut text: Vec<String> = parts.iter().take(RANGES).map(one).collect();
    if parts.len() > RANGES {
        text.push(format!("{} more ranges", parts.len() - RANGES));
    }
    if let [(first, last)] = parts
        && first == last
        && let Owner::Other(name) = policy.owner(*first)
    {
        return format!("{} ({})", text.join(", "), printable(name));
    }
    text.join(", ")
}

/// Writes a line of `drops` that is the question.
pub fn recorded(item: &Item, now: u64, out: &mut impl Write) -> io::Result<()> {
    let whose = item.system.as_deref().map_or_else(String::new, |name| format!(" ({})", printable(name)));
    let text = format!(
        "{} {} {}{whose} {}, {} packets of {}, the last {} ago",
        item.verdict.name(),
        item.direction.name(),
        item.peer,
        item.service,
        grouped(item.packets),
        item.reason,
        duration(now.saturating_sub(item.last))
    );
    labelled("recorded", &text, out)
}

/// Writes why a recorded packet is no question to the rows.
pub fn no_opening(item: &Item, out: &mut impl Write) -> io::Result<()> {
    let help = reason(item.key).help();
    labelled(
        "reason",
        &format!("{}: {help} Such a packet opens no connection, so no row is about it.", item.reason),
        out,
    )
}
