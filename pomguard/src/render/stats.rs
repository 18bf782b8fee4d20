//! `pomguard stats`: the counters for people, and the changes between two readings.

mod attention;
mod watch;

use std::io::{self, Write};

use pomguard_common::{Direction, reason::Reason};

use self::attention::print_attention;
pub use self::watch::print_watch;
use super::{
    grid::{Column, Grid, Tone},
    quantity::{age, bytes, duration, grouped, share, timestamp},
};
use crate::{
    observe::{
        printable::printable,
        snapshot::{CountedSince, Disposition, ReasonStats, RowStats, Snapshot},
    },
    policy::Mode,
};

/// StatsView for printing.
#[derive(Clone, Copy, Debug)]
pub struct StatsView {
    /// Columns of the terminal; `None` for unlimited width, with one line per row (for grep and files).
    pub width: Option<u16>,
    /// True for colours and weights. They are never the only sign of anything.
    pub colour: bool,
    /// Seconds since 1970, for ages.
    pub now: u64,
    /// The part to print.
    pub part: Part,
    /// True if only rows with packets are printed.
    pub hit: bool,
}

/// The part of the counters to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    #[default]
    All,
    /// Only the rows.
    Rows,
    /// Only the reasons.
    Reasons,
}

/// Prints one reading: conditions that need attention, identity, reasons (what was denied comes first), rows,
/// totals, capacity.
pub fn print_stats(snapshot: &Snapshot, out: &mut impl Write, options: StatsView) -> io::Result<()> {
    let all = options.part == Part::All;
    if all {
        print_attention(snapshot, out, options)?;
        print_identity(snapshot, out, options)?;
        writeln!(out)?;
    }
    if options.part != Part::Rows {
        out.write_all(reasons(snapshot, options).as_bytes())?;
    }
    if all {
        writeln!(out)?;
    }
    if options.part != Part::Reasons {
        out.write_all(rows(snapshot, options).as_bytes())?;
    }
    if all {
        writeln!(out)?;
        out.write_all(totals(snapshot, options).as_bytes())?;
        writeln!(out)?;
        print_room(snapshot, out, options)?;
    }
    Ok(())
}

fn print_identity(snapshot: &Snapshot, out: &mut impl Write, options: StatsView) -> io::Result<()> {
    let age = |then: u64| duration(options.now.saturating_sub(then));
    let image: String = snapshot.image.chars().take(12).collect();
    let mut parts = vec![
        printable(&snapshot.host).into_owned(),
        printable(&snapshot.matrix).into_owned(),
        format!("generation {}, {} old", snapshot.generation, age(snapshot.installed_at)),
        format!("image {}", printable(&image)),
        format!("inbound {}", mode_words(snapshot.inbound)),
        format!("outbound {}", mode_words(snapshot.outbound)),
    ];
    parts.extend(snapshot.attach.iter().map(|on| {
        let (name, xdp, tc) = (printable(&on.interface), printable(&on.xdp), printable(&on.tc));
        format!("{name}: XDP {xdp}, TC {tc}, {} packets in", grouped(on.seen))
    }));
    let (words, at) = match snapshot.since {
        None => ("counting since", snapshot.counting_since),
        Some(CountedSince { at, anew: false }) => ("COUNTED ONLY SINCE", at),
        Some(CountedSince { at, anew: true }) => {
            ("the counters began anew (a reboot): COUNTED ONLY SINCE", at)
        }
    };
    parts.push(format!("{words} {} ({})", timestamp(at), age(at)));
    for line in fold(parts.iter().map(String::as_str), " · ", options.width.or(Some(100))) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn mode_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Track => "TRACK (all may leave)",
        Mode::Audit => "AUDIT (nothing is dropped)",
        Mode::Enforce => "ENFORCE",
    }
}

/// Joins `parts` into lines no wider than `width`; a part is never split.
fn fold<'a>(parts: impl Iterator<Item = &'a str>, joint: &str, width: Option<u16>) -> Vec<String> {
    let width = width.map_or(usize::MAX, usize::from);
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + joint.chars().count() + part.chars().count() <= width => {
                line.push_str(joint);
                line.push_str(part);
            }
            _ => lines.push(part.to_owned()),
        }
    }
    lines
}

const fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

/// Returns the special state of a row in one word; empty for an ordinary row.
fn row_state(row: &RowStats) -> &'static str {
    if !row.live {
        "left"
    } else if row.failsafe {
        "failsafe"
    } else if row.mode == Mode::Audit {
        "audit"
    } else {
        ""
    }
}

fn rows(snapshot: &Snapshot, options: StatsView) -> String {
    if snapshot.rows.is_empty() {
        return "No rows: nothing is allowed by the matrix here.\n".to_owned();
    }
    let mut grid = Grid::new([
        Column::text("row").wraps_from(14),
        Column::text("dir").rank(60),
        Column::text("state").rank(32),
        Column::text("peer").wraps_from(12).rank(41),
        Column::text("here").wraps_from(12).rank(15),
        Column::text("ports").wraps_from(11),
        Column::number("packets"),
        Column::number("bytes").rank(20),
        Column::number("connections").rank(10),
        Column::text("last").rank(30),
    ]);
    let is_hit = |row: &&RowStats| row.packets > 0 || row.connections > 0;
    if options.hit && !snapshot.rows.iter().any(|row| is_hit(&row)) {
        return "No row was hit.\n".to_owned();
    }
    for row in snapshot.rows.iter().filter(|row| !options.hit || is_hit(row)) {
        let hit = is_hit(&row);
        let figure = |text: String| if hit { text } else { "-".to_owned() };
        let last_hit = row.last_hit.filter(|_| hit);
        // This host's side of the row is the less important one.
        let (peer, here) = match row.direction {
            Direction::Inbound => (&row.source, &row.destination),
            Direction::Outbound => (&row.destination, &row.source),
        };
        grid.row(
            if hit && row.live { Tone::Plain } else { Tone::Faint },
            [
                row.id.0.clone(),
                short(row.direction).to_owned(),
                row_state(row).to_owned(),
                peer.clone(),
                here.clone(),
                row.ports.clone(),
                figure(grouped(row.packets)),
                figure(bytes(row.bytes)),
                figure(grouped(row.connections)),
                last_hit.map_or("-".to_owned(), |at| age(options.now.saturating_sub(at))),
            ],
        );
    }
    grid.text(options.width, options.colour)
}

/// Returns the reasons: drops first, and the frequent before the rare.
fn in_reading_order(reasons: &[ReasonStats]) -> Vec<&ReasonStats> {
    let mut sorted: Vec<_> = reasons.iter().filter(|reason| reason.packets > 0).collect();
    let rank = |outcome: Disposition| match outcome {
        Disposition::Drop => 0,
        Disposition::Audit => 1,
        Disposition::Pass => 2,
    };
    sorted.sort_by_key(|reason| {
        (reason.direction, rank(reason.verdict), std::cmp::Reverse(reason.packets), &reason.name)
    });
    sorted
}

fn reason_tone(stats: &ReasonStats) -> Tone {
    match (stats.verdict, stats.reason()) {
        (Disposition::Drop, Some(reason)) if reason.concerns_known_system() => Tone::Alarm,
        (Disposition::Drop | Disposition::Audit, _) => Tone::Warning,
        (Disposition::Pass, _) => Tone::Plain,
    }
}

fn reasons(snapshot: &Snapshot, options: StatsView) -> String {
    let sorted = in_reading_order(&snapshot.reasons);
    if sorted.is_empty() {
        return "No packets yet.\n".to_owned();
    }
    let mut grid = Grid::new([
        Column::text("dir").rank(60),
        Column::text("verdict"),
        Column::text("reason"),
        Column::number("packets"),
        Column::number("bytes").rank(20),
        Column::text("last").rank(30),
        Column::text("meaning").wraps_from(26).rank(10),
    ]);
    for stats in sorted {
        grid.row(
            reason_tone(stats),
            [
                short(stats.direction).to_owned(),
                stats.verdict.name().to_uppercase(),
                stats.name.clone(),
                grouped(stats.packets),
                bytes(stats.bytes),
                stats.last.map_or_else(String::new, |at| age(options.now.saturating_sub(at))),
                stats.reason().map(Reason::help).unwrap_or_default().to_owned(),
            ],
        );
    }
    grid.text(options.width, options.colour)
}

fn totals(snapshot: &Snapshot, options: StatsView) -> String {
    let mut grid = Grid::new([
        Column::text("total"),
        Column::number("seen"),
        Column::text(""),
        Column::number("passed"),
        Column::text(""),
        Column::number("dropped"),
        Column::number("of passed: audit").rank(10),
        Column::text("balance"),
    ]);
    for total in &snapshot.totals {
        let mismatch = total.accounting_mismatch();
        let (tone, balance) = match mismatch {
            0 => (Tone::Plain, "ok".to_owned()),
            // The counters of different CPUs are read one after the other.
            _ => (Tone::Warning, format!("OFF BY {mismatch}")),
        };
        grid.row(
            tone,
            [
                total.direction.name().to_owned(),
                grouped(total.seen),
                "=".to_owned(),
                grouped(total.passed),
                "+".to_owned(),
                grouped(total.dropped),
                grouped(total.audited),
                balance,
            ],
        );
    }
    grid.text(options.width, options.colour)
}

fn print_room(snapshot: &Snapshot, out: &mut impl Write, options: StatsView) -> io::Result<()> {
    let flows = snapshot.flows;
    let filled =
        |used: u64, limit: u64| format!("{} of {} ({})", grouped(used), grouped(limit), share(used, limit));
    let mut parts = vec![
        format!("flows {}", filled(flows.entries, flows.capacity)),
        format!("{} opened", grouped(flows.opened)),
        format!("{} evicted", grouped(flows.evicted)),
    ];
    parts.extend(
        snapshot.capacity.iter().map(|c| format!("{} {}", printable(&c.name), filled(c.used, c.limit))),
    );
    for line in fold(parts.iter().map(String::as_str), " · ", options.width.or(Some(100))) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
