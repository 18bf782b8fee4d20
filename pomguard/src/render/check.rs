//! The rules that the files contain for a host: the content of `check`.

use std::{
    io::{self, Write},
    sync::Arc,
};

use serde::Serialize;

use super::grid::{Column, Grid, Tone};
use crate::{
    input::Draft,
    observe::printable::printable,
    policy::{
        Direction, Mode, Policy, PortRange, Row,
        conflict::{Note, Weight},
    },
};

/// The number of prefixes of a row that the table shows; JSON has all prefixes.
const SHOWN: usize = 4;

/// The answer of `check`.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// This host's name.
    pub host: String,
    /// The matrix's name.
    pub matrix: String,
    /// Zones of the site.
    pub zones: u16,
    /// Mode of each direction.
    pub modes: Modes,
    /// Rows whose destination runs here.
    pub inbound: Vec<CheckedRow>,
    /// Rows whose source runs here.
    pub outbound: Vec<CheckedRow>,
    /// Remarks, the most important first.
    pub notes: Vec<Graded>,
}

/// A remark and the weight of the remark.
#[derive(Debug, Serialize)]
pub struct Graded {
    /// The weight of the remark.
    pub weight: Weight,
    /// The remark.
    #[serde(flatten)]
    pub note: Note,
}

/// Mode of each direction.
#[derive(Debug, Serialize)]
pub struct Modes {
    /// Inbound.
    pub inbound: Mode,
    /// Outbound.
    pub outbound: Mode,
}

/// A row.
#[derive(Debug, Serialize)]
pub struct CheckedRow {
    /// The id of the row.
    pub id: String,
    /// Systems that open the connection.
    pub source: Vec<Arc<str>>,
    /// Systems to which the connection is opened.
    pub destination: Vec<Arc<str>>,
    /// The ports at this number of zones.
    pub ports: Vec<String>,
    /// Ports as printed or written.
    pub printed: String,
    /// Protocol as printed.
    pub protocol: String,
    /// Ports that the client side may use.
    pub client_ports: String,
    /// The addresses of the peers.
    pub peers: Vec<String>,
    /// The number of tuples of the row.
    pub tuples: usize,
    /// The mode of the row's ports.
    pub mode: Mode,
    /// True if the row holds in every mode.
    pub failsafe: bool,
    /// The purpose of the row.
    pub purpose: String,
}

impl CheckReport {
    /// Collects the answer.
    pub fn new(draft: &Draft, policy: &Policy, notes: Vec<Note>) -> Self {
        let lines = |direction| policy.rows_in(direction).map(CheckedRow::new).collect();
        Self {
            host: policy.host.clone(),
            matrix: policy.matrix.id.clone(),
            zones: draft.site.zones,
            modes: Modes { inbound: policy.inbound, outbound: policy.outbound },
            inbound: lines(Direction::Inbound),
            outbound: lines(Direction::Outbound),
            notes: graded(notes),
        }
    }

    /// Returns the number of warnings among the remarks.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.notes.iter().filter(|it| it.weight == Weight::Warning).count()
    }

    /// Writes only the warnings.
    pub fn print_warnings(&self, out: &mut impl Write, colour: bool) -> io::Result<()> {
        let warnings = self.notes.iter().filter(|it| it.weight == Weight::Warning);
        for Graded { note, .. } in warnings {
            let kind = Tone::Warning.paint(&format!("warning: {}:", note.kind), colour);
            writeln!(out, "{kind} {}", printable(&note.message))?;
        }
        Ok(())
    }

    /// Writes the report for people.
    ///
    /// The table fits `width`; `None` is unlimited. `colour` adds colours, which are never the only sign.
    pub fn print(&self, out: &mut impl Write, width: Option<u16>, colour: bool) -> io::Result<()> {
        writeln!(out, "{} · matrix {} · zones {}", self.host, self.matrix, self.zones)?;
        for (title, mode, side, rows) in [
            ("INBOUND", self.modes.inbound, "FROM", &self.inbound),
            ("OUTBOUND", self.modes.outbound, "TO", &self.outbound),
        ] {
            let tuples: usize = rows.iter().map(|row| row.tuples).sum();
            writeln!(out, "\n{title} · {} · {} rows, {tuples} tuples", mode.name(), rows.len())?;
            let mut shown = Grid::new([
                Column::text("ROW").wraps_from(10),
                Column::text("SOURCE").wraps_from(12),
                Column::text("DESTINATION").wraps_from(12),
                Column::text("PORTS").wraps_from(11),
                Column::text("PROTOCOL").wraps_from(8).rank(20),
                Column::text(side).wraps_from(13),
                Column::number("TUPLES").rank(10),
                Column::text("MODE"),
            ]);
            for row in rows {
                let mode = if row.failsafe { "failsafe" } else { row.mode.name() };
                let tone = match row.mode {
                    _ if row.peers.is_empty() => Tone::Faint,
                    Mode::Audit => Tone::Warning,
                    Mode::Enforce | Mode::Track => Tone::Plain,
                };
                shown.row(
                    tone,
                    [
                        row.id.clone(),
                        row.source.join(", "),
                        row.destination.join(", "),
                        row.ports.join(", "),
                        row.protocol.clone(),
                        row.shown_peers(),
                        row.tuples.to_string(),
                        mode.to_owned(),
                    ],
                );
            }
            out.write_all(shown.text(width, colour).as_bytes())?;
        }
        for (title, weight, tone) in
            [("WARNINGS", Weight::Warning, Tone::Warning), ("NOTES", Weight::Note, Tone::Plain)]
        {
            let mut of_weight = self.notes.iter().filter(|it| it.weight == weight).peekable();
            if of_weight.peek().is_some() {
                writeln!(out, "\n{}", tone.paint(title, colour))?;
            }
            for Graded { note, .. } in of_weight {
                let kind = tone.paint(&format!("{}:", note.kind), colour);
                writeln!(out, " {kind} {}", printable(&note.message))?;
            }
        }
        Ok(())
    }
}

/// Sorts remarks by weight; within one weight the order stays.
fn graded(notes: Vec<Note>) -> Vec<Graded> {
    let mut graded: Vec<Graded> =
        notes.into_iter().map(|note| Graded { weight: note.weight(), note }).collect();
    graded.sort_by_key(|it| it.weight);
    graded
}

impl CheckedRow {
    fn new(row: &Row) -> Self {
        let mut ports: Vec<String> = Vec::new();
        for service in row.services.iter().filter(|service| service.ports != PortRange::ANY) {
            let written = service.ports.to_string();
            if !ports.contains(&written) {
                ports.push(written);
            }
        }
        Self {
            id: row.id.0.clone(),
            source: row.source.clone(),
            destination: row.destination.clone(),
            ports,
            printed: row.printed.clone(),
            protocol: row.protocol.clone(),
            client_ports: row.client_ports.to_string(),
            peers: row.peers.iter().map(|peer| peer.prefix.to_string()).collect(),
            tuples: row.peers.len() * row.services.len(),
            mode: row.mode,
            failsafe: row.failsafe,
            purpose: row.purpose.clone(),
        }
    }

    fn shown_peers(&self) -> String {
        if self.peers.is_empty() {
            return "nobody".to_owned();
        }
        // A prefix of one address is written as the address.
        let address = |peer: &String| {
            let single = if peer.contains(':') { "/128" } else { "/32" };
            peer.strip_suffix(single).unwrap_or(peer).to_owned()
        };
        let first: Vec<String> = self.peers.iter().take(SHOWN).map(address).collect();
        match self.peers.len() - first.len() {
            0 => first.join(" "),
            more => format!("{} +{more} more", first.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        input::{Files, Settings},
        policy::{conflict, resolve},
        render::text::tests::without_colour,
    };

    fn report() -> CheckReport {
        let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/site.example.toml");
        let draft = Draft::with_settings(&mut Files::reported(), Settings::without_file(&site), &site)
            .expect("the example");
        let policy = resolve(&draft, &[[10, 20, 0, 11].into()]).expect("pom1");
        let notes = conflict::notes(&draft, &policy);
        CheckReport::new(&draft, &policy, notes)
    }

    #[test]
    fn every_row_is_printed_with_ports_peers_and_tuples() {
        let mut printed = Vec::new();
        report().print(&mut printed, None, false).expect("written to memory");
        let printed = String::from_utf8(printed).expect("text");
        let line = printed.lines().find(|line| line.contains("pom-4.0/14 ")).expect("row 14");
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = "pom-4.0/14 Application Server Agent Manager 7778-7780 TLS 10.20.1.20/30 1 enforce";
        assert_eq!(words.join(" "), expected);
        assert!(printed.contains("switched-off: pom-4.0/44 is switched off (optional)"));
        assert!(printed.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn colour_is_only_ever_added_to_the_words_of_a_check() {
        // The library of the tables leaves colours out if the environment asks for that.
        if std::env::var_os("NO_COLOR").is_some() {
            return;
        }
        let mut report = report();
        let message = "eth1 is up and is not guarded".to_owned();
        let note = Note { kind: "unguarded-interface", message, rows: Vec::new() };
        report.notes.insert(0, Graded { weight: note.weight(), note });
        let printed = |colour| {
            let (mut all, mut quiet) = (Vec::new(), Vec::new());
            report.print(&mut all, Some(80), colour).expect("written to memory");
            report.print_warnings(&mut quiet, colour).expect("written to memory");
            [all, quiet].map(|bytes| String::from_utf8(bytes).expect("text"))
        };
        let coloured = printed(true);
        assert!(coloured[0].contains("\u{1b}[33munguarded-interface:\u{1b}[0m eth1"), "{}", coloured[0]);
        assert!(coloured[1].starts_with("\u{1b}[33mwarning: unguarded-interface:"), "{}", coloured[1]);
        assert_eq!(coloured.map(|text| without_colour(&text)), printed(false));
    }

    #[test]
    fn json_has_the_promised_keys() {
        let json = serde_json::to_value(report()).expect("JSON");
        assert_eq!((&json["host"], &json["matrix"]), (&"pom1".into(), &"pom-4.0".into()));
        for key in ["id", "source", "destination", "ports", "protocol", "peers", "tuples"] {
            assert!(!json["inbound"][1][key].is_null(), "{key}");
            assert!(!json["outbound"][1][key].is_null(), "{key}");
        }
        for key in ["weight", "kind", "message", "rows"] {
            assert!(!json["notes"][0][key].is_null(), "{key}");
        }
    }
}
