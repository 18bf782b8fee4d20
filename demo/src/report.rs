//! The tables at the end of the demo, and the same as JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::verdict::{DeniedVerdict, RowVerdict};

/// Width in columns of a table that goes into a file. A terminal determines the width itself.
const WIDTH: u16 = 130;

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) matrix: String,
    pub(super) zones: u16,
    pub(super) rows: Vec<RowVerdict>,
    pub(super) denied: Vec<DeniedVerdict>,
    pub(super) outsider: Outsider,
    pub(super) seconds: f32,
}

/// The attempts of a machine that the site file does not know, and their number that succeeded.
#[derive(Debug, Default, Serialize)]
pub(super) struct Outsider {
    pub(super) tried: usize,
    pub(super) reached: usize,
}

impl Report {
    /// Returns the number of wrong rows, and of wrong kinds of denied attempts.
    pub(super) fn wrong(&self) -> (usize, usize) {
        let rows = self.rows.iter().filter(|row| !row.wrong.is_empty()).count();
        let denied = self.denied.iter().filter(|denied| !denied.wrong.is_empty()).count();
        (rows, denied)
    }

    pub(super) fn print_json(&self, to: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *to, self)?;
        writeln!(to)
    }

    pub(super) fn print_tables(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(
            to,
            "\nWhat the matrix {} lists, at {} zones:\n{}",
            self.matrix,
            self.zones,
            self.row_table()
        )?;
        explain(to, self.rows.iter().map(|row| (format!("row {}", row.row), &row.wrong)))?;
        if self.denied.is_empty() {
            return writeln!(
                to,
                "\nWhat it does not list was not tried (--keep-going tries it all the same)."
            );
        }
        writeln!(to, "\nWhat it does not list:\n{}", self.denied_table())?;
        explain(to, self.denied.iter().map(|denied| (denied.what.clone(), &denied.wrong)))?;
        let Outsider { tried, reached } = self.outsider;
        let reached = if reached == 0 { "nothing".to_owned() } else { format!("{reached} OF THEM") };
        writeln!(to, "\nThe outsiders tried {tried} times and reached {reached}.")?;
        let passed: usize = self.rows.iter().map(|row| row.passed).sum();
        let denied: usize = self.denied.iter().map(|denied| denied.tried - denied.reached).sum();
        let right = self.rows.len() - self.wrong().0;
        writeln!(
            to,
            "{right} of {} rows are right: {passed} connections passed, {denied} attempts were denied, \
             in {:.0} s.",
            self.rows.len(),
            self.seconds
        )
    }

    fn row_table(&self) -> Table {
        let head =
            ["row", "source", "destination", "as printed", "pairs", "tried", "passed", "counted", "verdict"];
        let mut table = table(&head, &[0, 4, 5, 6]);
        for row in &self.rows {
            table.add_row([
                row.row.to_string(),
                row.source.clone(),
                row.destination.clone(),
                row.printed.clone(),
                row.pairs.to_string(),
                row.tried.to_string(),
                row.passed.to_string(),
                counted(row),
                verdict(&row.wrong),
            ]);
        }
        table
    }

    fn denied_table(&self) -> Table {
        let mut table =
            table(&["tried", "times", "reached", "packets dropped, by reason", "verdict"], &[1, 2]);
        for denied in &self.denied {
            let reasons: Vec<_> =
                denied.reasons.iter().map(|(reason, packets)| format!("{reason}: {packets}")).collect();
            table.add_row([
                denied.what.clone(),
                denied.tried.to_string(),
                denied.reached.to_string(),
                reasons.join("\n"),
                verdict(&denied.wrong),
            ]);
        }
        table
    }
}

fn explain<'a>(to: &mut impl Write, all: impl Iterator<Item = (String, &'a Vec<String>)>) -> io::Result<()> {
    for (what, wrong) in all {
        for line in wrong {
            writeln!(to, "{what}: {line}")?;
        }
    }
    Ok(())
}

/// Formats the connections counted under the row itself, and the lower rows under which the others were
/// counted.
fn counted(row: &RowVerdict) -> String {
    if !row.guarded {
        return "no POM server at either end".to_owned();
    }
    let under: Vec<_> = row.counted_under.iter().map(u16::to_string).collect();
    let mut parts = Vec::new();
    for (moved, way) in [(row.counted_inbound, "in"), (row.counted_outbound, "out")] {
        if moved > 0 {
            parts.push(format!("{moved} {way}"));
        }
    }
    if !under.is_empty() {
        parts.push(format!("under {}", under.join(", ")));
    }
    if parts.is_empty() { "0".to_owned() } else { parts.join("; ") }
}

fn verdict(wrong: &[String]) -> String {
    if wrong.is_empty() { "ok" } else { "WRONG" }.to_owned()
}

fn table(head: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    table.set_header(head);
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
