//! The published table as data: systems, rows as printed and as read, errata.

use std::{collections::HashMap, fs, io, path::Path};

use serde::Serialize;

use super::{
    diagnostic::{Diagnostics, Fault},
    files::Files,
    ports::PortSpec,
    sources::Source,
    spelling::nearest,
    text::{At, Text},
};
use crate::model::{Origin, PortRange, RowId};

mod read;
#[cfg(test)]
mod tests;

/// The matrices inside the binary, by name.
const SHIPPED: [(&str, &str); 1] = [("pom-4.0", include_str!("../../../../config/matrix/pom-4.0.toml"))];

/// One matrix file.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The file's text.
    pub source: Source,
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
    pub(super) fn named(name: &At<String>, folder: &Path, files: &mut Files) -> Result<Self, Diagnostics> {
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
        let path = folder.join(&name.value);
        // The fault is in the file that names the matrix, not in the one that is not there.
        if fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(Diagnostics::one(
                name.origin.clone(),
                &name.value,
                &format!("there is no file {}", path.display()),
                "correct the path, which is relative to the folder of this file, or write a shipped name",
            ));
        }
        read::read(&Text::load(files, &path)?)
    }

    /// A matrix from a text in memory; `name` stands for the file in messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        read::read(&Text::check(name.into(), text.as_bytes().to_vec())?)
    }

    /// A matrix by shipped name or path, for commands that need no site and put nothing in force.
    pub fn load(name: &str) -> Result<Self, Diagnostics> {
        let origin = Origin { file: "command line".into(), line: 1 };
        Self::named(&At { value: name.to_owned(), origin }, Path::new(""), &mut Files::reported())
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
