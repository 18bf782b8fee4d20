//! The recent counts of the traffic that a plan takes away.

use std::io::{self, Write};

use pomguard_common::Direction;

use super::{listed, some};
use crate::{
    observe::{
        printable::printable,
        recent::{RECENT, Recent, RecentRow, Unenforced},
    },
    policy::{Mode, diff::Kind},
    render::quantity::{duration, grouped, timestamp},
};

/// Writes the counts. Writes nothing if no counter belongs to the change.
pub(super) fn print(
    recent: &Recent,
    mode: impl Fn(Direction) -> Mode,
    out: &mut impl Write,
) -> io::Result<()> {
    let Recent { at, counting_since, looked_at, rows, unenforced } = recent;
    if *looked_at > 0 {
        writeln!(
            out,
            "{} of {} rows that would go, allow less or go from audit to enforce were hit in the last {}",
            grouped(rows.len() as u64),
            grouped(*looked_at as u64),
            duration(RECENT)
        )?;
        some(rows, out, |row| described(row, *at))?;
        for direction in Direction::ALL.into_iter().filter(|&direction| mode(direction) != Mode::Enforce) {
            if rows.iter().any(|row| row.direction == direction) {
                writeln!(
                    out,
                    "  {} is in {} with these files: what its rows no longer allow is counted there, and passes",
                    direction.name(),
                    mode(direction).name()
                )?;
            }
        }
    }
    for direction in unenforced {
        print_unenforced(direction, out)?;
    }
    if *looked_at > 0 || !unenforced.is_empty() {
        writeln!(
            out,
            "  counted since {} ({}) by row and by reason, not by address: packets of flows that would \
             go on are in this number",
            timestamp(*counting_since),
            duration(at.saturating_sub(*counting_since))
        )?;
    }
    Ok(())
}

fn described(row: &RecentRow, now: u64) -> String {
    let becomes = match (row.kind, row.promoted) {
        (kind @ (Kind::Removed | Kind::Narrowed | Kind::Moved), false) => kind.name().to_owned(),
        (kind @ (Kind::Narrowed | Kind::Moved), true) => format!("{} and put in enforce", kind.name()),
        _ => "put in enforce, goes on to allow these".to_owned(),
    };
    let elsewhere = if loses(row) && !row.newly_denied { "; other rows may allow the same" } else { "" };
    format!(
        "{} {}, {} -> {}, {}: {}, {}, last hit {} ago; {becomes}{elsewhere}",
        printable(&row.id.0),
        row.direction.name(),
        printable(&row.source),
        printable(&row.destination),
        printable(&row.ports),
        several(row.packets, "packet"),
        several(row.connections, "connection"),
        duration(now.saturating_sub(row.last_hit)),
    )
}

const fn loses(row: &RecentRow) -> bool {
    matches!(row.kind, Kind::Removed | Kind::Narrowed | Kind::Moved)
}

fn print_unenforced(of: &Unenforced, out: &mut impl Write) -> io::Result<()> {
    let reasons: Vec<String> = of
        .reasons
        .iter()
        .map(|reason| format!("{} {}", printable(&reason.name), grouped(reason.packets)))
        .collect();
    let reasons = listed(&reasons).map(|reasons| format!(": {reasons}")).unwrap_or_default();
    writeln!(
        out,
        "{} passed {} so far that enforce would have dropped{reasons}",
        several(of.packets, "packet"),
        of.direction.name()
    )
}

fn several(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
