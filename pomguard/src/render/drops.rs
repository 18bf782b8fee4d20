//! The drops as text, at most 80 columns wide.

use std::io::{self, Write};

use crate::{
    observe::{
        drops::report::{DropsReport, Item, owner},
        passes::Pass,
        printable::printable,
        snapshot::Disposition,
    },
    policy::Direction,
    render::quantity::{age, grouped, timestamp},
};

/// The number of lines of one peer or prefix, and of strangers' prefixes, that are shown without `all`.
const SHOWN: usize = 10;

/// Writes a report. `all` shows every line.
pub fn print(report: &DropsReport, all: bool, out: &mut impl Write) -> io::Result<()> {
    let (known, strangers) = (report.packets(true), report.packets(false));
    let since = if report.since == 0 { "all that is kept".to_owned() } else { timestamp(report.since) };
    writeln!(out, "known systems: {} packets denied; strangers: {}", grouped(known), grouped(strangers))?;
    writeln!(out, "counted since: {since}")?;
    if report.drops.iter().any(|item| item.verdict == Disposition::Audit) {
        writeln!(out, "audit: these packets passed, and enforce would drop them")?;
    }
    if report.drops.iter().any(|item| item.verdict == Disposition::Pass) {
        writeln!(out, "pass: these left, and no outbound row lists them")?;
    }
    let mut groups: Vec<&[Item]> =
        report.drops.chunk_by(|one, next| one.known == next.known && owner(one) == owner(next)).collect();
    let strangers = groups.partition_point(|group| group.first().is_some_and(|item| item.known));
    let hidden: Vec<&[Item]> = if all || groups.len() - strangers <= SHOWN {
        Vec::new()
    } else {
        groups.split_off(strangers + SHOWN)
    };
    for group in groups {
        print_group(report, group, all, out)?;
    }
    if !hidden.is_empty() {
        let packets: u64 = hidden.iter().flat_map(|group| group.iter()).map(|item| item.packets).sum();
        writeln!(out)?;
        writeln!(
            out,
            "and {} more prefixes of strangers: {} packets (--all)",
            hidden.len(),
            grouped(packets)
        )?;
    }
    if !report.drops.is_empty() {
        writeln!(out)?;
        writeln!(out, "`pomguard explain --drop ID` says why, `pomguard suggest` writes missing rows")?;
    }
    for (at, rest) in report.rest.iter().enumerate() {
        if at == 0 {
            writeln!(out)?;
            writeln!(out, "counted without a peer: the table had no room for these")?;
        }
        let whose = if rest.known { "known systems" } else { "strangers" };
        writeln!(
            out,
            "  {:<3}  {:<13}  {:<20}  {:<5}  {:>13}",
            short(rest.direction),
            whose,
            rest.reason,
            rest.verdict.name(),
            grouped(rest.packets)
        )?;
    }
    Ok(())
}

fn print_group(report: &DropsReport, group: &[Item], all: bool, out: &mut impl Write) -> io::Result<()> {
    let Some(first) = group.first() else { return Ok(()) };
    writeln!(out)?;
    let wider = report.wider(first);
    if let Some(prefix) = wider {
        writeln!(out, "prefix {prefix} of strangers")?;
        writeln!(out, "  strangers are counted by prefix: these lines stand for {prefix}, and the")?;
        writeln!(out, "  packets can be of any address in it")?;
    } else {
        writeln!(out, "{}", head(first))?;
    }
    let shown = if all || group.len() <= SHOWN { group.len() } else { SHOWN };
    for item in group.iter().take(shown) {
        let ago = age(report.at.saturating_sub(item.last));
        let vlan = item.vlan.map_or_else(String::new, |vlan| format!("  VLAN {vlan}"));
        let row = item.row.as_ref().map_or_else(String::new, |row| format!(" {}", printable(&row.0)));
        let line = format!(
            "  {}  {:<3}  {:<14}  {:<17}  {:<5} {:>11}  {:>8} ago",
            item.id,
            short(item.direction),
            item.service,
            item.reason,
            item.verdict.name(),
            grouped(item.packets),
            ago
        );
        writeln!(out, "{line}")?;
        if wider.is_some() {
            writeln!(out, "             the first packet came from {}", item.peer)?;
        }
        if !vlan.is_empty() {
            writeln!(out, "             {}", vlan.trim())?;
        }
        if !row.is_empty() {
            writeln!(out, "             named by row{row} for other peers")?;
        }
    }
    let hidden = &group[shown..];
    if !hidden.is_empty() {
        let packets: u64 = hidden.iter().map(|item| item.packets).sum();
        writeln!(out, "             and {} more ports: {} packets (--all)", hidden.len(), grouped(packets))?;
    }
    Ok(())
}

/// Writes one line for each peer and port, and one for each part of the rest, in the order of the report.
pub fn print_lines(report: &DropsReport, out: &mut impl Write) -> io::Result<()> {
    for item in &report.drops {
        let line = format!(
            "{} {:<3} {:<12} {:<17} {:<5} {:>6}  {}",
            item.id,
            short(item.direction),
            item.service,
            item.reason,
            item.verdict.name(),
            grouped(item.packets),
            // The id leads to the rest.
            whose(report, item)
        );
        writeln!(out, "{}", cut(&line))?;
    }
    for rest in &report.rest {
        let whose = if rest.known { "known systems" } else { "strangers" };
        writeln!(
            out,
            "     {:<3} {:<12} {:<17} {:<5} {:>6}  {whose}, no room",
            short(rest.direction),
            "-",
            rest.reason,
            rest.verdict.name(),
            grouped(rest.packets)
        )?;
    }
    Ok(())
}

/// Returns the peer of a line, or the prefix that the line stands for.
fn whose(report: &DropsReport, item: &Item) -> String {
    match (report.wider(item), &item.system) {
        (Some(prefix), _) => format!("prefix {prefix}"),
        (None, Some(name)) => format!("{} {}", item.peer, printable(name)),
        (None, None) => item.peer.clone(),
    }
}

/// Returns the line of packets that passed, in the columns of [`print_lines`].
#[must_use]
pub fn pass_line(pass: &Pass) -> String {
    let line = format!(
        "     {:<3} {:<12} {:<17} {:<5} {:>6}  {}",
        short(pass.direction),
        pass.ports.as_deref().unwrap_or("-"),
        pass.row.as_ref().map_or(pass.reason.as_str(), |row| row.0.as_str()),
        Disposition::Pass.name(),
        grouped(pass.packets),
        printable(pass.peer.as_deref().unwrap_or_default())
    );
    cut(line.trim_end())
}

/// Columns of a line.
const WIDTH: usize = 80;

/// Returns a line cut at [`WIDTH`].
fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    line.chars().take(WIDTH - 1).chain(['…']).collect()
}

/// Returns the heading of a group: the system or the stranger.
fn head(item: &Item) -> String {
    let name = item.system.as_deref().map_or_else(String::new, |name| format!("{}  ", printable(name)));
    match &item.prefix {
        Some(prefix) if item.system.is_none() => format!("stranger {prefix}, first {}", item.peer),
        _ if item.known || item.system.is_some() => format!("{name}{}", item.peer),
        _ => format!("stranger {}", item.peer),
    }
}

const fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}
