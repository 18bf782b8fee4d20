//! Why a packet passes or not.

use std::io::{self, Write};

use crate::policy::{Mode, explain::Explanation};

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
        let why = if explanation.mode == Mode::Track { "only tracked" } else { "in audit" };
        writeln!(out, "  passes because {} is {why}; enforce would drop it", opening.direction.name())?;
    }
    if explanation.nearest.is_empty() {
        writeln!(out, "  no row comes near")?;
    }
    for near in &explanation.nearest {
        writeln!(out, "  near     {}: {}", near.row, near.differs)?;
    }
    Ok(())
}
