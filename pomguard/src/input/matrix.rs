//! The published table as data: systems, rows as printed and as read, errata.

use std::{collections::HashMap, path::Path};

use serde::Serialize;

use super::{
    diagnostic::{Diagnostics, Fault},
    ports::{self, PortSpec},
    spelling::nearest,
    text::{At, Text},
    walk::{self, Table},
};
use crate::policy::{Origin, PortRange, RowId};

/// The matrices inside the binary, by name.
const SHIPPED: [(&str, &str); 1] = [("pom-4.0", include_str!("../../../config/matrix/pom-4.0.toml"))];

/// One matrix file.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Short name, the first part of every row id: `pom-4.0`.
    pub id: String,
    /// The product.
    pub product: String,
    /// Its release.
    pub release: String,
    /// The issue of the document.
    pub issue: String,
    /// The title of the document.
    pub title: String,
    /// The names of the source and destination columns.
    pub systems: Vec<System>,
    /// The table's lines, in print order.
    pub rows: Vec<MatrixRow>,
    /// Where reading and print differ.
    pub errata: Vec<Erratum>,
}

/// Where a system runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunsOn {
    /// On servers that run pomguard.
    Pom,
    /// On machines of its own.
    Peer,
    /// On either.
    Either,
}

/// A name of the source and destination columns.
#[derive(Clone, Debug, Serialize)]
pub struct System {
    /// The name.
    pub name: String,
    /// Other spellings. One that two systems share is ambiguous.
    pub aliases: Vec<String>,
    /// Where it runs.
    pub runs_on: RunsOn,
    /// What it is.
    pub about: String,
}

/// The cells as printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "named after the columns")]
pub struct Printed {
    pub source: String,
    pub source_ports: String,
    pub destination: String,
    pub ports: String,
    pub protocol: String,
    pub optional: String,
    pub state: String,
}

/// A row as read.
#[derive(Clone, Debug)]
pub struct MatrixRow {
    /// Its place in the table, from 1.
    pub number: u32,
    /// Systems that open the connection.
    pub source: Vec<String>,
    /// Ports that they open it from.
    pub source_ports: PortRange,
    /// Systems that it is opened to.
    pub destination: Vec<String>,
    /// Ports that it is opened to.
    pub ports: Vec<PortSpec>,
    /// IP protocol numbers.
    pub transport: Vec<u8>,
    /// What runs inside.
    pub application: Vec<String>,
    /// Which of `ports` a site may move.
    pub configurable: Vec<PortSpec>,
    /// Whether a site may switch the row off.
    pub optional: bool,
    /// Whether it is on where the site says nothing.
    pub open: bool,
    /// What it is for.
    pub purpose: String,
    /// The cells as printed.
    pub printed: Printed,
    /// Where it stands in the file.
    pub origin: Origin,
}

/// A place where reading and print differ.
#[derive(Clone, Debug, Serialize)]
pub struct Erratum {
    /// The rows; none for the document as a whole.
    pub rows: Vec<u32>,
    /// Its kind, in one word.
    pub kind: String,
    /// What is printed.
    pub printed: String,
    /// How it is read.
    pub reading: String,
    /// Why.
    pub reason: String,
    /// Where it stands in the file.
    #[serde(skip)]
    pub origin: Origin,
}

impl Matrix {
    /// The names of the matrices inside the binary.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|&(name, _)| name)
    }

    /// A matrix as a site file names it: by shipped name, or by a path relative to the site file.
    pub(super) fn named(name: &At<String>, folder: &Path) -> Result<Self, Diagnostics> {
        if let Some(&(_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name.value) {
            return Self::parse(&format!("{} (built in)", name.value), text);
        }
        let is_path =
            name.value.contains('/') || Path::new(&name.value).extension().is_some_and(|kind| kind == "toml");
        if !is_path {
            let all: Vec<&str> = Self::shipped().collect();
            let remedy =
                format!("write one of \"{}\", or a path such as \"./my-matrix.toml\"", all.join("\", \""));
            return Err(Diagnostics::one(
                name.origin.clone(),
                &name.value,
                "no such matrix is shipped",
                &remedy,
            ));
        }
        Self::read(&Text::load(&folder.join(&name.value))?)
    }

    /// A matrix from a text in memory; `name` stands for the file in messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        Self::read(&Text::check(name.to_owned(), text.as_bytes().to_vec())?)
    }

    /// A matrix by shipped name or path, for commands that need no site.
    pub fn load(name: &str) -> Result<Self, Diagnostics> {
        let origin = Origin { file: "command line".to_owned(), line: 1 };
        Self::named(&At { value: name.to_owned(), origin }, Path::new(""))
    }

    fn read(text: &Text) -> Result<Self, Diagnostics> {
        let parsed = walk::parse(text)?;
        let mut faults = Diagnostics::default();
        let mut top = Table::new(text, "the file", &parsed);
        let head = top.need("matrix", "… in a [matrix] table", &mut faults);
        let mut field = |head: &mut Option<Table<'_>>, key| {
            let value = head.as_mut().and_then(|head| head.need(key, "\"…\"", &mut faults));
            value.and_then(|value| value.string(&mut faults)).map(|at| at.value).unwrap_or_default()
        };
        let mut nothing = Diagnostics::default();
        let mut head = head.and_then(|head| head.table("[matrix]", &mut nothing));
        let (id, product) = (field(&mut head, "id"), field(&mut head, "product"));
        let (release, issue, title) =
            (field(&mut head, "release"), field(&mut head, "issue"), field(&mut head, "title"));
        faults.extend([nothing]);
        if let Some(head) = head {
            head.finish(&mut faults);
        }
        let tables = top.tables("system", "[[system]]", &mut faults);
        let systems: Vec<System> =
            tables.into_iter().filter_map(|table| system(table, &mut faults)).collect();
        let tables = top.tables("row", "[[row]]", &mut faults);
        let rows: Vec<MatrixRow> = tables.into_iter().filter_map(|table| row(table, &mut faults)).collect();
        let tables = top.tables("erratum", "[[erratum]]", &mut faults);
        let errata = tables.into_iter().filter_map(|table| erratum(table, &mut faults)).collect();
        top.finish(&mut faults);

        let matrix = Self { id, product, release, issue, title, systems, rows, errata };
        matrix.check(&text.name, &mut faults);
        faults.into_result(matrix)
    }

    /// What must hold between the parts of a matrix file.
    fn check(&self, file: &str, faults: &mut Diagnostics) {
        if self.rows.is_empty() {
            let origin = Origin { file: file.to_owned(), line: 1 };
            faults.add(origin, "the file", "has no row", "add a [[row]] for each line of the table");
        }
        for (row, expected) in self.rows.iter().zip(1..) {
            if row.number != expected {
                let problem = format!("row {} stands where row {expected} belongs", row.number);
                faults.add(row.origin.clone(), "[[row]]", problem, "keep print order and leave none out");
            }
            for name in row.source.iter().chain(&row.destination) {
                if !self.systems.iter().any(|system| system.name == *name) {
                    faults.add(
                        row.origin.clone(),
                        name,
                        "no [[system]] has this name",
                        "add it, or use its name",
                    );
                }
            }
            for spec in &row.configurable {
                if !row.ports.contains(spec) {
                    let found = spec.to_string();
                    faults.add(
                        row.origin.clone(),
                        found,
                        "configurable, but none of `ports`",
                        "add it to `ports`",
                    );
                }
            }
        }
        for erratum in &self.errata {
            for number in erratum.rows.iter().filter(|&&number| self.row(number).is_none()) {
                faults.add(
                    erratum.origin.clone(),
                    number.to_string(),
                    "there is no such row",
                    "name a row's number",
                );
            }
        }
    }

    /// The row with this number.
    pub fn row(&self, number: u32) -> Option<&MatrixRow> {
        self.rows.iter().find(|row| row.number == number)
    }

    /// A row's stable id.
    pub fn row_id(&self, number: u32) -> RowId {
        RowId(format!("{}/{number}", self.id))
    }

    /// Whether one server may run both systems, going by where each belongs.
    pub fn may_share(&self, here: &str, there: &str) -> bool {
        let shares = |name: &str| {
            self.systems.iter().any(|system| system.name == name && system.runs_on != RunsOn::Peer)
        };
        shares(here) && shares(there)
    }

    /// Whether any row has ports per zone.
    pub fn uses_zones(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.ports).any(|spec| matches!(spec, PortSpec::PerZone(_)))
    }

    /// The number in a row id of this matrix.
    pub(super) fn number(&self, id: &str) -> Result<u32, Fault> {
        let last = self.rows.len();
        let number = id.strip_prefix(&self.id).and_then(|rest| rest.strip_prefix('/'));
        // "07" and "+7" are numbers to `parse`, but no row's id.
        match number.and_then(|number| number.parse().ok()).filter(|&number| self.row_id(number).0 == id) {
            Some(number) if self.row(number).is_some() => Ok(number),
            _ => {
                Err(Fault::new("there is no such row", format!("write \"{0}/1\" to \"{0}/{last}\"", self.id)))
            }
        }
    }

    /// The system that a site file means.
    pub fn system(&self, written: &str) -> Result<&str, Fault> {
        if let Some(system) = self.systems.iter().find(|system| system.name == written) {
            return Ok(&system.name);
        }
        let also: Vec<&str> = self
            .systems
            .iter()
            .filter(|system| system.aliases.iter().any(|alias| alias == written))
            .map(|system| system.name.as_str())
            .collect();
        match also.as_slice() {
            [one] => Ok(one),
            [] => Err(Fault::new("no system of the matrix has this name", self.suggestion(written))),
            several => {
                let remedy = format!("write one of \"{}\"", several.join("\", \""));
                Err(Fault::new("may mean several systems", remedy))
            }
        }
    }

    fn suggestion(&self, written: &str) -> String {
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for system in &self.systems {
            for spelling in system.aliases.iter().chain([&system.name]) {
                owners.insert(spelling, &system.name);
            }
        }
        let mut spellings: Vec<&str> = owners.keys().copied().collect();
        spellings.sort_unstable();
        match nearest(written, spellings).and_then(|spelling| owners.get(spelling)) {
            Some(name) => format!("write \"{name}\""),
            None => "`pomguard matrix list` shows the names".to_owned(),
        }
    }
}

fn text(table: &mut Table<'_>, key: &'static str, faults: &mut Diagnostics) -> Option<String> {
    Some(table.need(key, "\"…\"", faults)?.string(faults)?.value)
}

fn texts(table: &mut Table<'_>, key: &'static str, faults: &mut Diagnostics) -> Option<Vec<String>> {
    let list = table.need(key, "[\"…\"]", faults)?.strings(faults);
    Some(list.into_iter().map(|at| at.value).collect())
}

fn some_texts(table: &mut Table<'_>, key: &'static str, faults: &mut Diagnostics) -> Option<Vec<String>> {
    let items = table.need(key, "[\"…\"]", faults)?.items(faults);
    Some(items.iter().filter_map(|item| item.string(faults)).map(|at| at.value).collect())
}

fn specs(table: &mut Table<'_>, key: &'static str, faults: &mut Diagnostics) -> Option<Vec<PortSpec>> {
    let items = table.need(key, "[\"443\"]", faults)?.list(faults);
    Some(items.iter().filter_map(|item| item.read(faults, ports::spec)).map(|at| at.value).collect())
}

fn system(mut table: Table<'_>, faults: &mut Diagnostics) -> Option<System> {
    let name = text(&mut table, "name", faults);
    let aliases = texts(&mut table, "aliases", faults);
    let words = [("pom", RunsOn::Pom), ("peer", RunsOn::Peer), ("either", RunsOn::Either)];
    let runs_on = table.need("runs_on", "\"pom\"", faults).and_then(|value| value.word(&words, faults));
    let about = text(&mut table, "about", faults);
    table.finish(faults);
    Some(System { name: name?, aliases: aliases?, runs_on: runs_on?.value, about: about? })
}

fn row(mut table: Table<'_>, faults: &mut Diagnostics) -> Option<MatrixRow> {
    let origin = table.origin();
    let number = table.need("number", "1", faults).and_then(|value| value.number(1, 9_999, faults));
    let source = some_texts(&mut table, "source", faults);
    let source_ports = table
        .need("source_ports", "\"1024-65535\"", faults)
        .and_then(|value| value.read(faults, ports::range));
    let destination = some_texts(&mut table, "destination", faults);
    let ports = specs(&mut table, "ports", faults);
    let transport = table.need("transport", "[\"tcp\"]", faults).map(|value| {
        let items = value.items(faults);
        items
            .iter()
            .filter_map(|item| item.word(&[("tcp", 6), ("udp", 17)], faults))
            .map(|at| at.value)
            .collect()
    });
    let application = texts(&mut table, "application", faults);
    let configurable = specs(&mut table, "configurable", faults);
    let optional = table.need("optional", "false", faults).and_then(|value| value.boolean(faults));
    let states = [("open", true), ("closed", false), ("filtered", true), ("n/a", true)];
    let open = table.need("default_state", "\"open\"", faults).and_then(|value| value.word(&states, faults));
    let purpose = text(&mut table, "purpose", faults);
    let printed = table
        .need("printed", "{ … }", faults)
        .and_then(|value| value.table("printed = { … }", faults))
        .and_then(|table| printed(table, faults));
    table.finish(faults);
    let ports = ports?;
    if ports.is_empty() {
        faults.add(origin.clone(), "ports", "`ports` is empty", "list at least one; empty never means any");
    }
    Some(MatrixRow {
        number: number?.value,
        source: source?,
        source_ports: source_ports?.value,
        destination: destination?,
        ports,
        transport: transport?,
        application: application?,
        configurable: configurable?,
        optional: optional?.value,
        open: open?.value,
        purpose: purpose?,
        printed: printed?,
        origin,
    })
}

fn printed(mut table: Table<'_>, faults: &mut Diagnostics) -> Option<Printed> {
    let mut cell = |key| text(&mut table, key, faults);
    let (source, source_ports, destination) = (cell("source"), cell("source_ports"), cell("destination"));
    let (ports, protocol, optional, state) =
        (cell("ports"), cell("protocol"), cell("optional"), cell("state"));
    table.finish(faults);
    Some(Printed {
        source: source?,
        source_ports: source_ports?,
        destination: destination?,
        ports: ports?,
        protocol: protocol?,
        optional: optional?,
        state: state?,
    })
}

fn erratum(mut table: Table<'_>, faults: &mut Diagnostics) -> Option<Erratum> {
    let origin = table.origin();
    let rows = table.need("rows", "[1]", faults).map(|value| {
        let items = value.list(faults);
        items.iter().filter_map(|item| item.number(1, 9_999, faults)).map(|at| at.value).collect()
    });
    let mut field = |key| text(&mut table, key, faults);
    let (kind, printed, reading, reason) =
        (field("kind"), field("printed"), field("reading"), field("reason"));
    table.finish(faults);
    Some(Erratum { rows: rows?, kind: kind?, printed: printed?, reading: reading?, reason: reason?, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pom() -> Matrix {
        Matrix::load("pom-4.0").expect("the shipped matrix")
    }

    /// A plain reader of printed cells, to see which ones need an erratum.
    fn cells(printed: &str) -> Vec<String> {
        printed.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn no_row_of_the_published_table_is_lost_or_altered() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/seed/rows.tsv");
        let Ok(seed) = std::fs::read_to_string(&path) else {
            eprintln!("NOT RUN: the published table is not at {}", path.display());
            return;
        };
        let matrix = pom();
        let lines: Vec<&str> = seed.lines().skip(1).collect();
        assert_eq!(lines.len(), matrix.rows.len());
        for (line, row) in lines.iter().zip(&matrix.rows) {
            let printed = &row.printed;
            let number = row.number.to_string();
            let fields: Vec<&str> = line.split('\t').collect();
            let ours = [
                &number,
                &printed.source,
                &printed.source_ports,
                &printed.destination,
                &printed.ports,
                &printed.protocol,
                &printed.optional,
                &printed.state,
            ];
            assert_eq!(fields[..8], ours.map(String::as_str), "row {number}");
            assert_ne!(fields[8], row.purpose, "row {number} has a purpose in our own words");
            assert_eq!(row.optional, printed.optional == "Yes", "row {number}");
            assert_eq!(row.open, printed.state == "Open", "row {number}");
            assert_eq!(format!("{}", row.source_ports), printed.source_ports, "row {number}");
        }
    }

    #[test]
    fn every_reading_that_differs_from_print_has_an_erratum() {
        let matrix = pom();
        for row in &matrix.rows {
            let marked: Vec<String> = row
                .ports
                .iter()
                .map(|spec| format!("{spec}{}", if row.configurable.contains(spec) { " (C)" } else { "" }))
                .collect();
            let protocol =
                if row.application.is_empty() { vec!["TCP".to_owned()] } else { row.application.clone() };
            let as_printed = cells(&row.printed.ports) == marked
                && cells(&row.printed.source) == row.source
                && cells(&row.printed.destination) == row.destination
                && cells(&row.printed.protocol) == protocol;
            let noted = matrix.errata.iter().any(|erratum| erratum.rows.contains(&row.number));
            assert!(as_printed || noted, "row {} is not read as printed, and nothing says why", row.number);
        }
    }

    #[test]
    fn every_printed_system_is_a_name_or_an_alias_of_what_was_read() {
        let matrix = pom();
        for row in &matrix.rows {
            for (printed, read) in
                [(&row.printed.source, &row.source), (&row.printed.destination, &row.destination)]
            {
                let named: Vec<&str> =
                    printed.split([',', '/']).map(|name| matrix.system(name.trim()).expect(name)).collect();
                assert_eq!(named, *read, "row {}", row.number);
            }
        }
    }

    #[test]
    fn a_system_name_is_found_suggested_or_refused_as_ambiguous() {
        let matrix = pom();
        assert_eq!(matrix.system("ZooKeeper"), Ok("Zookeeper"));
        assert_eq!(matrix.system("agent manger").expect_err("a slip").remedy, "write \"Agent Manager\"");
        let several = matrix.system("VPMS").expect_err("two systems go by it");
        assert_eq!(several.remedy, "write one of \"EPM\", \"VPMS_Plugin\"");
        assert!(matrix.system("Mainframe").is_err());
    }

    #[test]
    fn a_row_id_is_one_exact_text() {
        let matrix = pom();
        assert_eq!(matrix.number("pom-4.0/47"), Ok(47));
        for id in
            ["pom-4.0/48", "pom-4.0/0", "pom-4.0/07", "pom-4.0/+7", "pom-4.0/", "pom-4.07", "7", "site/x"]
        {
            assert!(matrix.number(id).is_err(), "{id}");
        }
    }

    #[test]
    fn every_row_has_a_source_destination_and_ports_of_its_own() {
        let matrix = pom();
        assert_eq!(matrix.rows.len(), 47);
        assert!(matrix.rows.iter().all(|row| !row.source.is_empty() && !row.destination.is_empty()));
        let used = |name: &String| {
            matrix.rows.iter().any(|row| row.source.contains(name) || row.destination.contains(name))
        };
        assert!(matrix.systems.iter().all(|system| used(&system.name)), "a system that no row uses");
    }
}
