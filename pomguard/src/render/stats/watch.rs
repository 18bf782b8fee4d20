//! The changes between two readings, per second.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::Duration,
};

use super::{StatsView, fold, in_reading_order, mode_words, print_attention, reason_tone, short};
use crate::{
    observe::{
        printable::printable,
        snapshot::{ReasonStats, RowStats, Snapshot, Totals},
    },
    render::{
        grid::{Column, Grid, Tone},
        quantity::{bytes, grouped, per_second, share},
    },
};

/// The most rows shown: a screen holds this many next to the rest.
const BUSIEST: usize = 20;

/// Prints the rates between `before` and `now`, `elapsed` apart: the busiest rows, every reason
/// that occurred, both directions.
pub fn print_watch(
    before: &Snapshot,
    now: &Snapshot,
    elapsed: Duration,
    out: &mut impl Write,
    options: StatsView,
) -> io::Result<()> {
    print_attention(now, out, options)?;
    let parts = [
        printable(&now.host).into_owned(),
        format!("generation {}", now.generation),
        format!("inbound {}", mode_words(now.inbound)),
        format!("outbound {}", mode_words(now.outbound)),
        format!("flows {} ({})", grouped(now.flows.entries), share(now.flows.entries, now.flows.capacity)),
        format!("per second over {:.1} s", elapsed.as_secs_f64()),
    ];
    for line in fold(parts.iter().map(String::as_str), " · ", options.width.or(Some(100))) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    out.write_all(directions(before, now, elapsed, options).as_bytes())?;
    writeln!(out)?;
    out.write_all(rows(before, now, elapsed, options).as_bytes())?;
    writeln!(out)?;
    out.write_all(reasons(before, now, elapsed, options).as_bytes())
}

/// Returns the growth of a counter. Counters never decrease; if the maps were set up anew between the
/// readings, the whole present value is growth.
fn grown(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}

fn directions(before: &Snapshot, now: &Snapshot, elapsed: Duration, options: StatsView) -> String {
    let mut grid = Grid::new([
        Column::text("total"),
        Column::number("seen/s"),
        Column::number("bytes/s").rank(10),
        Column::number("passed/s"),
        Column::number("dropped/s"),
        Column::number("audit/s"),
    ]);
    for total in &now.totals {
        let then = before.totals.iter().find(|then| then.direction == total.direction);
        let rate = |of: fn(&Totals) -> u64| per_second(grown(then.map_or(0, of), of(total)), elapsed);
        grid.row(
            Tone::Plain,
            [
                total.direction.name().to_owned(),
                grouped(rate(|t| t.seen)),
                bytes(rate(|t| t.seen_bytes)),
                grouped(rate(|t| t.passed)),
                grouped(rate(|t| t.dropped)),
                grouped(rate(|t| t.audited)),
            ],
        );
    }
    grid.text(options.width, options.colour)
}

fn rows(before: &Snapshot, now: &Snapshot, elapsed: Duration, options: StatsView) -> String {
    let then: HashMap<_, &RowStats> = before.rows.iter().map(|row| ((&row.id, row.direction), row)).collect();
    let mut busy: Vec<(&RowStats, [u64; 3])> = now
        .rows
        .iter()
        .map(|row| {
            let then = then.get(&(&row.id, row.direction));
            let rate = |of: fn(&RowStats) -> u64| {
                per_second(grown(then.map_or(0, |then| of(then)), of(row)), elapsed)
            };
            (row, [rate(|r| r.packets), rate(|r| r.bytes), rate(|r| r.connections)])
        })
        .filter(|(_, rates)| rates.iter().any(|&rate| rate > 0))
        .collect();
    // Stable: rows of equal rate keep their order, so that the screen does not jump.
    busy.sort_by_key(|(_, rates)| std::cmp::Reverse(rates[0]));

    let mut grid = Grid::new([
        Column::text("row").wraps_from(14),
        Column::text("dir").rank(60),
        Column::text("source").wraps_from(14).rank(40),
        Column::text("destination").wraps_from(14).rank(41),
        Column::text("ports").wraps_from(11).rank(30),
        Column::number("packets/s"),
        Column::number("bytes/s").rank(50),
        Column::number("new/s").rank(45),
        Column::number("packets").rank(10),
    ]);
    for (row, [packets, size, connections]) in busy.iter().take(BUSIEST) {
        grid.row(
            Tone::Plain,
            [
                row.id.0.clone(),
                short(row.direction).to_owned(),
                row.source.clone(),
                row.destination.clone(),
                row.ports.clone(),
                grouped(*packets),
                bytes(*size),
                grouped(*connections),
                grouped(row.packets),
            ],
        );
    }
    let shown = busy.len().min(BUSIEST);
    let rest = format!("{} busy rows not shown, {} idle\n", busy.len() - shown, now.rows.len() - busy.len());
    if shown == 0 {
        format!("No row was hit: {rest}")
    } else {
        grid.text(options.width, options.colour) + &rest
    }
}

fn reasons(before: &Snapshot, now: &Snapshot, elapsed: Duration, options: StatsView) -> String {
    let then = |stats: &ReasonStats| {
        before
            .reasons
            .iter()
            .find(|r| (r.direction, r.verdict, &r.name) == (stats.direction, stats.verdict, &stats.name))
    };
    let mut grid = Grid::new([
        Column::text("dir").rank(60),
        Column::text("verdict"),
        Column::text("reason"),
        Column::number("packets/s"),
        Column::number("bytes/s").rank(20),
        Column::number("packets"),
    ]);
    for stats in in_reading_order(&now.reasons) {
        let then = then(stats);
        let packets = per_second(grown(then.map_or(0, |r| r.packets), stats.packets), elapsed);
        let size = per_second(grown(then.map_or(0, |r| r.bytes), stats.bytes), elapsed);
        grid.row(
            if packets == 0 { Tone::Faint } else { reason_tone(stats) },
            [
                short(stats.direction).to_owned(),
                stats.verdict.name().to_uppercase(),
                stats.name.clone(),
                grouped(packets),
                bytes(size),
                grouped(stats.packets),
            ],
        );
    }
    grid.text(options.width, options.colour)
}
