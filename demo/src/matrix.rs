//! Reads the published matrix.
//!
//! The demo deliberately does not use pomguard's own reader, which would compare a mistake with itself.

use std::{fs, ops::RangeInclusive, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The published table, with the site's number of zones applied.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) id: String,
    /// The name of every system and its other spellings in the table.
    pub(super) systems: Vec<System>,
    pub(super) rows: Vec<Row>,
}

/// A name in the source or destination column.
#[derive(Debug, Deserialize)]
pub(super) struct System {
    pub(super) name: String,
    #[serde(default)]
    aliases: Vec<String>,
}

/// One line of the table. Systems are indices into [`Matrix::systems`].
#[derive(Debug)]
pub(super) struct Row {
    pub(super) number: u16,
    pub(super) source: Vec<usize>,
    pub(super) destination: Vec<usize>,
    pub(super) source_ports: RangeInclusive<u16>,
    pub(super) ports: Vec<u16>,
    pub(super) printed: String,
}

#[derive(Deserialize)]
struct File {
    matrix: Head,
    system: Vec<System>,
    row: Vec<Line>,
}

#[derive(Deserialize)]
struct Head {
    id: String,
}

#[derive(Deserialize)]
struct Line {
    number: u16,
    source: Vec<String>,
    source_ports: String,
    destination: Vec<String>,
    ports: Vec<String>,
    transport: Vec<String>,
    printed: Printed,
}

#[derive(Deserialize)]
struct Printed {
    ports: String,
}

impl Matrix {
    pub(super) fn read(path: &Path, zones: u16) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text, zones).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str, zones: u16) -> Result<Self> {
        let File { matrix: Head { id }, system, row } = toml::from_str(text)?;
        let mut matrix = Self { id, systems: system, rows: Vec::new() };
        for line in row {
            let number = line.number;
            let row = matrix.row(line, zones).with_context(|| format!("row {number}"))?;
            matrix.rows.push(row);
        }
        Ok(matrix)
    }

    /// Returns the system of this name. Case, spaces and punctuation do not matter.
    pub(super) fn system(&self, name: &str) -> Option<usize> {
        let wanted = letters(name);
        self.systems.iter().position(|system| {
            std::iter::once(&system.name).chain(&system.aliases).any(|known| letters(known) == wanted)
        })
    }

    /// Formats the names of systems: `Agent Manager, Rule Engine`.
    pub(super) fn names(&self, systems: &[usize]) -> String {
        let names: Vec<_> = systems.iter().map(|&system| self.systems[system].name.as_str()).collect();
        names.join(", ")
    }

    fn row(&self, line: Line, zones: u16) -> Result<Row> {
        let find = |names: &[String]| -> Result<Vec<usize>> {
            let find = |name: &String| self.system(name).with_context(|| format!("unknown system {name:?}"));
            names.iter().map(find).collect()
        };
        if line.transport.iter().any(|transport| transport != "tcp") {
            bail!("the demo opens TCP connections only, this row wants {:?}", line.transport);
        }
        let mut ports = Vec::new();
        for text in &line.ports {
            ports.extend(port_range(text, zones)?);
        }
        Ok(Row {
            number: line.number,
            source: find(&line.source)?,
            destination: find(&line.destination)?,
            source_ports: port_range(&line.source_ports, zones)?,
            ports,
            printed: line.printed.ports,
        })
    }
}

fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|sign| sign.to_ascii_lowercase()).collect()
}

/// Parses `443`, `47100-47102`, or `9995+zones`: one port per zone from 9995 up.
fn port_range(text: &str, zones: u16) -> Result<RangeInclusive<u16>> {
    let number = |text: &str| text.trim().parse::<u16>().with_context(|| format!("port {text:?}"));
    if let Some(base) = text.strip_suffix("+zones") {
        let base = number(base)?;
        let last = base.checked_add(zones.saturating_sub(1)).context("more zones than ports")?;
        return Ok(base..=last);
    }
    match text.split_once('-') {
        Some((first, last)) => Ok(number(first)?..=number(last)?),
        None => number(text).map(|port| port..=port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_one_port() {
        assert_eq!(port_range("9995+zones", 3).unwrap(), 9995..=9997);
        assert_eq!(port_range("9995+zones", 1).unwrap(), 9995..=9995);
        assert_eq!(port_range("47100-47102", 3).unwrap(), 47100..=47102);
        assert_eq!(port_range("443", 3).unwrap(), 443..=443);
        port_range("65535+zones", 3).unwrap_err();
        port_range("I", 3).unwrap_err();
    }
}
