//! The published table, as printed and as read.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    grid::{Column, Grid, Tone},
    text::wrapped,
};
use crate::{
    input::{
        Matrix,
        matrix::{Erratum, MatrixRow, Printed, System},
    },
    policy::{
        Effective, Mode,
        collision::{Collision, collisions},
    },
};

/// The answer of `matrix list`.
#[derive(Debug, Serialize)]
pub struct Listing<'a> {
    /// The matrix's name.
    pub id: &'a str,
    /// The product.
    pub product: &'a str,
    /// The release of the product.
    pub release: &'a str,
    /// The issue of the document.
    pub issue: &'a str,
    /// The names in the source and destination columns.
    pub systems: &'a [System],
    /// The rows in print order.
    pub rows: Vec<ListedRow<'a>>,
}

/// A row.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "named after the fields of the matrix file")]
pub struct ListedRow<'a> {
    pub id: String,
    pub source: &'a [String],
    pub source_ports: String,
    pub destination: &'a [String],
    pub ports: Vec<String>,
    pub transport: Vec<&'static str>,
    pub application: &'a [String],
    pub configurable: Vec<String>,
    pub optional: bool,
    pub default_state: String,
    pub purpose: &'a str,
    pub printed: &'a Printed,
}

/// The answer of `matrix lint`.
#[derive(Debug, Serialize)]
pub struct Lint<'a> {
    /// The matrix's name.
    pub id: &'a str,
    /// The number of rows.
    pub rows: usize,
    /// The places at which the reading differs from the print.
    pub errata: &'a [Erratum],
    /// Ports per zone that overlap another row when both are on one machine.
    pub collisions: Vec<Collision>,
}

impl<'a> Listing<'a> {
    /// Collects the answer.
    pub fn new(matrix: &'a Matrix) -> Self {
        Self {
            id: &matrix.id,
            product: &matrix.product,
            release: &matrix.release,
            issue: &matrix.issue,
            systems: &matrix.systems,
            rows: matrix.rows.iter().map(|row| ListedRow::new(matrix, row)).collect(),
        }
    }
}

impl<'a> ListedRow<'a> {
    fn new(matrix: &Matrix, row: &'a MatrixRow) -> Self {
        let name = |&number: &u8| if number == 17 { "udp" } else { "tcp" };
        Self {
            id: matrix.row_id(row.number).0,
            source: &row.source,
            source_ports: row.source_ports.to_string(),
            destination: &row.destination,
            ports: row.ports.iter().map(ToString::to_string).collect(),
            transport: row.transport.iter().map(name).collect(),
            application: &row.application,
            configurable: row.configurable.iter().map(ToString::to_string).collect(),
            optional: row.optional,
            default_state: row.printed.state.to_lowercase(),
            purpose: &row.purpose,
            printed: &row.printed,
        }
    }

    /// Returns the ports, with the printed mark at the ports that a site may move.
    fn marked(&self) -> String {
        let mark = |port: &String| {
            if self.configurable.contains(port) { format!("{port} (C)") } else { port.clone() }
        };
        self.ports.iter().map(mark).collect::<Vec<_>>().join(", ")
    }
}

impl<'a> Lint<'a> {
    /// Collects the answer.
    pub fn new(matrix: &'a Matrix) -> Self {
        let as_read = |row: &'a MatrixRow| Effective {
            row,
            ports: row.ports.clone(),
            printed: row.printed.ports.clone(),
            enabled: row.open,
            mode: Mode::Enforce,
        };
        let rows: Vec<Effective<'_>> = matrix.rows.iter().map(as_read).collect();
        // All systems that run on the product's servers may share one server.
        let collisions = collisions(&rows, |here, there| matrix.may_share(here, there));
        Self { id: &matrix.id, rows: matrix.rows.len(), errata: &matrix.errata, collisions }
    }
}

/// Writes the rows for people.
pub fn print_list(matrix: &Matrix, out: &mut impl Write, width: Option<u16>) -> io::Result<()> {
    let listing = Listing::new(matrix);
    writeln!(out, "{} · {} {} · issue {}", listing.id, listing.product, listing.release, listing.issue)?;
    let mut shown = Grid::new([
        Column::text("ROW").wraps_from(10),
        Column::text("SOURCE").wraps_from(11),
        Column::text("DESTINATION").wraps_from(11),
        Column::text("PRINTED").wraps_from(12),
        Column::text("READ").wraps_from(12),
        Column::text("PROTOCOL").wraps_from(8).rank(10),
        Column::text("OPTIONAL").rank(20),
    ]);
    for row in &listing.rows {
        shown.row(
            Tone::Plain,
            [
                row.id.clone(),
                row.source.join(", "),
                row.destination.join(", "),
                row.printed.ports.clone(),
                row.marked(),
                row.printed.protocol.clone(),
                row.printed.optional.clone(),
            ],
        );
    }
    out.write_all(shown.text(width, false).as_bytes())?;
    writeln!(out, "\nSYSTEMS")?;
    let mut shown = Grid::new([
        Column::text("NAME").wraps_from(14),
        Column::text("ALSO WRITTEN").wraps_from(16),
        Column::text("WHAT IT IS").wraps_from(24),
    ]);
    for system in listing.systems {
        shown.row(Tone::Plain, [system.name.clone(), system.aliases.join("; "), system.about.clone()]);
    }
    out.write_all(shown.text(width, false).as_bytes())
}

/// Writes errata and collisions for people.
pub fn print_lint(matrix: &Matrix, out: &mut impl Write, width: Option<u16>) -> io::Result<()> {
    let lint = Lint::new(matrix);
    writeln!(out, "{} · {} rows · {} errata", lint.id, lint.rows, lint.errata.len())?;
    for erratum in lint.errata {
        let rows: Vec<String> = erratum.rows.iter().map(ToString::to_string).collect();
        let place = match rows.as_slice() {
            [] => "the document".to_owned(),
            [one] => format!("row {one}"),
            several => format!("rows {}", several.join(", ")),
        };
        writeln!(out, "\n{place} · {}", erratum.kind)?;
        let texts =
            [("printed", &erratum.printed), ("read as", &erratum.reading), ("because", &erratum.reason)];
        for (label, text) in texts {
            let room = width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(11).max(20));
            for (at, line) in wrapped(text, room).iter().enumerate() {
                writeln!(out, "  {:<7}  {line}", if at == 0 { label } else { "" })?;
            }
        }
    }
    writeln!(out, "\nPORTS PER ZONE that run into another row on the same machine")?;
    let mut shown = Grid::new([
        Column::number("FROM ZONES"),
        Column::text("ROW"),
        Column::text("PORTS"),
        Column::text("MEETS"),
        Column::text("PORTS"),
    ]);
    let mut collisions: Vec<&Collision> = lint.collisions.iter().collect();
    collisions.sort_by_key(|found| found.from_zones);
    for found in collisions {
        shown.row(
            Tone::Plain,
            [
                found.from_zones.to_string(),
                matrix.row_id(found.row).0,
                found.ports.to_string(),
                matrix.row_id(found.other).0,
                found.other_ports.to_string(),
            ],
        );
    }
    out.write_all(shown.text(width, false).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(print: impl Fn(&Matrix, &mut Vec<u8>, Option<u16>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&Matrix::load("pom-4.0").expect("shipped"), &mut out, None).expect("written to memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_list_has_every_row_with_print_and_reading() {
        let list = printed(print_list);
        assert_eq!(list.lines().filter(|line| line.trim_start().starts_with("pom-4.0/")).count(), 47);
        let line = list.lines().find(|line| line.contains("pom-4.0/9 ")).expect("row 9");
        assert!(line.contains("51616 (C)/51617") && line.contains("51616 (C), 51617"), "{line}");
    }

    #[test]
    fn lint_gives_erratum_reasons_and_collision_zone_counts() {
        let lint = printed(print_lint);
        let errata = Matrix::load("pom-4.0").expect("shipped").errata.len();
        assert_eq!(lint.lines().filter(|line| line.starts_with("  because  ")).count(), errata);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(lint.lines().any(|line| words(line) == "6 pom-4.0/4 10005+zones pom-4.0/19 10010"), "{lint}");
    }
}
