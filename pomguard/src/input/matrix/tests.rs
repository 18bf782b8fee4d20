//! Compares the built-in matrix with the published table.

use super::*;

fn pom() -> Matrix {
    Matrix::load("pom-4.0").expect("the shipped matrix")
}

/// Parses printed cells in a simple way, to find the cells that need an erratum.
fn cells(printed: &str) -> Vec<String> {
    printed.split(", ").map(str::to_owned).collect()
}

#[test]
fn no_row_of_the_published_table_is_lost_or_altered() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/seed/rows.tsv");
    let Ok(seed) = fs::read_to_string(&path) else {
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
    for id in ["pom-4.0/48", "pom-4.0/0", "pom-4.0/07", "pom-4.0/+7", "pom-4.0/", "pom-4.07", "7", "site/x"] {
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
