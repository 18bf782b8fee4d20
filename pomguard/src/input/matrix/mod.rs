//! The published port matrix as data: systems, rows as printed and as read, errata.

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

/// The built-in matrices, by name.
const SHIPPED: [(&str, &str); 1] = [("pom-4.0", include_str!("../../../../config/matrix/pom-4.0.toml"))];

/// The origin of a name from the command line.
pub const COMMAND_LINE: &str = "command line";

/// One matrix file.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Name and text of the file.
    pub source: Source,
    /// Short name, the first part of every row id: `pom-4.0`.
    pub id: String,
    /// Name of the product.
    pub product: String,
    /// Release of the product.
    pub release: String,
    /// Issue of the document.
    pub issue: String,
    /// Title of the document.
    pub title: String,
    /// The names of the source and destination columns.
    pub systems: Vec<System>,
    /// The lines of the table, in print order.
    pub rows: Vec<MatrixRow>,
    /// The places where the reading differs from the print.
    pub errata: Vec<Erratum>,
}

/// The kind of machine that runs a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunsOn {
    /// Servers that run pomguard.
    Pom,
    /// Other machines.
    Peer,
    /// Both kinds.
    Either,
}

/// A name of the source and destination columns.
#[derive(Clone, Debug, Serialize)]
pub struct System {
    /// The name.
    pub name: String,
    /// Other spellings. A spelling that two systems share is ambiguous.
    pub aliases: Vec<String>,
    /// The kind of machine that runs the system.
    pub runs_on: RunsOn,
    /// Description of the system.
    pub about: String,
}

/// The cells of a row as printed.
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
    /// Number of the row in the table, from 1.
    pub number: u32,
    /// Systems that open the connection.
    pub source: Vec<String>,
    /// Client ports.
    pub source_ports: PortRange,
    /// Systems that accept the connection.
    pub destination: Vec<String>,
    /// Service ports.
    pub ports: Vec<PortSpec>,
    /// IP protocol numbers.
    pub transport: Vec<u8>,
    /// Application protocols.
    pub application: Vec<String>,
    /// The ports of `ports` that a site may move.
    pub configurable: Vec<PortSpec>,
    /// True if a site may switch the row off.
    pub optional: bool,
    /// True if the row is on unless the site says otherwise.
    pub open: bool,
    /// Purpose of the row.
    pub purpose: String,
    /// The cells as printed.
    pub printed: Printed,
    /// The place in the file.
    pub origin: Origin,
}

/// A place where the reading differs from the print.
#[derive(Clone, Debug, Serialize)]
pub struct Erratum {
    /// Numbers of the rows; empty for the document as a whole.
    pub rows: Vec<u32>,
    /// Kind of the erratum, in one word.
    pub kind: String,
    /// The printed text.
    pub printed: String,
    /// The reading.
    pub reading: String,
    /// The reason for the reading.
    pub reason: String,
    /// The place in the file.
    #[serde(skip)]
    pub origin: Origin,
}

impl Matrix {
    /// Returns the names of the built-in matrices.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|&(name, _)| name)
    }

    /// Reads the matrix that a site file names: a built-in name, or a path relative to the site file.
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
        // If the path does not exist, the fault is in the file that names the matrix.
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

    /// Parses a text in memory; `name` stands for the file in messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        read::read(&Text::check(name.into(), text.as_bytes().to_vec())?)
    }

    /// Reads a matrix by built-in name or path, for commands that need no site and put nothing in force.
    pub fn load(name: &str) -> Result<Self, Diagnostics> {
        let origin = Origin { file: COMMAND_LINE.into(), line: 1 };
        Self::named(&At { value: name.to_owned(), origin }, Path::new(""), &mut Files::reported())
    }

    /// Returns the row with this number.
    pub fn row(&self, number: u32) -> Option<&MatrixRow> {
        self.rows.iter().find(|row| row.number == number)
    }

    /// Returns the stable id of a row.
    pub fn row_id(&self, number: u32) -> RowId {
        RowId(format!("{}/{number}", self.id))
    }

    /// Returns true if one server may run both systems, by the kind of machine that each runs on.
    pub fn may_share(&self, here: &str, there: &str) -> bool {
        let shares = |name: &str| {
            self.systems.iter().any(|system| system.name == name && system.runs_on != RunsOn::Peer)
        };
        shares(here) && shares(there)
    }

    /// Returns true if any row has ports per zone.
    pub fn uses_zones(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.ports).any(|spec| matches!(spec, PortSpec::PerZone(_)))
    }

    /// Returns the row number in a row id of this matrix.
    pub(super) fn number(&self, id: &str) -> Result<u32, Fault> {
        let last = self.rows.len();
        let number = id.strip_prefix(&self.id).and_then(|rest| rest.strip_prefix('/'));
        // `parse` accepts "07" and "+7", but no row has such an id.
        match number.and_then(|number| number.parse().ok()).filter(|&number| self.row_id(number).0 == id) {
            Some(number) if self.row(number).is_some() => Ok(number),
            _ => {
                Err(Fault::new("there is no such row", format!("write \"{0}/1\" to \"{0}/{last}\"", self.id)))
            }
        }
    }

    /// Returns the name of the system that a site file means.
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
