//! Reads a matrix file.

use super::{Erratum, Matrix, MatrixRow, Printed, RunsOn, System};
use crate::{
    input::{
        diagnostic::Diagnostics,
        ports::{self, PortSpec},
        sources::Source,
        text::Text,
        walk::{self, Table},
    },
    model::Origin,
};

pub(super) fn read(text: &Text) -> Result<Matrix, Diagnostics> {
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
    let systems: Vec<System> = tables.into_iter().filter_map(|table| system(table, &mut faults)).collect();
    let tables = top.tables("row", "[[row]]", &mut faults);
    let rows: Vec<MatrixRow> = tables.into_iter().filter_map(|table| row(table, &mut faults)).collect();
    let tables = top.tables("erratum", "[[erratum]]", &mut faults);
    let errata = tables.into_iter().filter_map(|table| erratum(table, &mut faults)).collect();
    top.finish(&mut faults);

    let matrix =
        Matrix { source: Source::of(text), id, product, release, issue, title, systems, rows, errata };
    check(&matrix, &text.name, &mut faults);
    faults.into_result(matrix)
}

/// Checks the consistency of the parts of a matrix file.
fn check(matrix: &Matrix, file: &str, faults: &mut Diagnostics) {
    if matrix.rows.is_empty() {
        let origin = Origin { file: file.into(), line: 1 };
        faults.add(origin, "the file", "has no row", "add a [[row]] for each line of the table");
    }
    for (row, expected) in matrix.rows.iter().zip(1..) {
        if row.number != expected {
            let problem = format!("row {} stands where row {expected} belongs", row.number);
            faults.add(row.origin.clone(), "[[row]]", problem, "keep print order and leave none out");
        }
        for name in row.source.iter().chain(&row.destination) {
            if !matrix.systems.iter().any(|system| system.name == *name) {
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
    for erratum in &matrix.errata {
        for number in erratum.rows.iter().filter(|&&number| matrix.row(number).is_none()) {
            faults.add(
                erratum.origin.clone(),
                number.to_string(),
                "there is no such row",
                "name a row's number",
            );
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
