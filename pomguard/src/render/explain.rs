//! The reason for which a packet passes or not.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use crate::policy::{Mode, explain::Explanation, oracle::Opening};

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
        other => format!("{source} {destination}/{other}"),
    }
}

/// Writes the policy's answer for people.
pub fn print(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    let opening = &explanation.opening;
    let verdict = match (&explanation.row, explanation.passes) {
        (Some(_), _) => "PASS",
        (None, true) => "PASS, though no row allows it",
        (None, false) => "DROP",
    };
    let mode = explanation.mode.name();
    writeln!(
        out,
        "{verdict} · {} {mode} · {} port {} to {} port {} protocol {}",
        opening.direction.name(),
        opening.source,
        opening.source_port,
        opening.destination,
        opening.destination_port,
        opening.protocol
    )?;
    if let Some(end) = &explanation.end {
        writeln!(out, "  address  {end}")?;
    }
    if let Some(row) = &explanation.row {
        let (source, destination) = (row.source.join(", "), row.destination.join(", "));
        writeln!(out, "  row      {} ({})", row.id, row.origin)?;
        writeln!(out, "  printed  {source} to {destination}, {} {}", row.printed, row.protocol)?;
        writeln!(out, "  purpose  {}", row.purpose)?;
        writeln!(out, "  matched  {} {} ({})", row.prefix, row.peer, row.peer_origin)?;
        if explanation.all.len() > 1 {
            let others: Vec<&str> = explanation.all.iter().skip(1).map(|id| id.0.as_str()).collect();
            writeln!(out, "  also     {}", others.join(", "))?;
        }
        return Ok(());
    }
    if explanation.passes {
        let direction = opening.direction.name();
        let rows: Vec<&str> = explanation.in_audit.iter().map(|id| id.0.as_str()).collect();
        let why = match (explanation.mode, rows.as_slice()) {
            (Mode::Track, _) => format!("because {direction} is only tracked"),
            (Mode::Audit, []) => format!("because {direction} is in audit"),
            (_, [row]) => format!("in audit because row {row} is in audit"),
            (_, rows) => format!("in audit because rows {} are in audit", rows.join(", ")),
        };
        writeln!(out, "  passes {why}; enforce would drop it")?;
    }
    if explanation.nearest.is_empty() {
        writeln!(out, "  no row comes near")?;
    }
    for near in &explanation.nearest {
        writeln!(out, "  near     {}: {}", near.row, near.differs)?;
    }
    Ok(())
}
