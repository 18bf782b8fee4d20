//! Every table and sentence fits 80 columns at the example site, and no column that matters is left out.

use std::path::Path;

use pomguard_common::reason::Reason;

use super::{
    check, drops, matrix, stats, status,
    suggest::tests as denied,
    text::{folded, tests::without_colour},
};
use crate::{
    input::{Draft, Files, Matrix, Settings},
    model::SuspensionKind,
    observe::{
        drops::report::{DropsReport, RestItem},
        sample,
        snapshot::Disposition,
        status::{Status, SuspensionStatus},
    },
    policy::{Direction, RowId, conflict, resolve},
};

/// The columns of a terminal of the old size.
const WIDTH: u16 = 80;

/// Returns the text that a terminal of 80 columns shows.
fn on_screen(print: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    print(&mut bytes).unwrap();
    folded(&String::from_utf8(bytes).unwrap(), Some(WIDTH))
}

#[track_caller]
fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= usize::from(WIDTH), "{} columns: {line}", line.chars().count());
    }
}

#[track_caller]
fn assert_columns(text: &str, columns: &[&str]) {
    let head = |line: &&str| columns.iter().all(|column| line.contains(column));
    assert!(text.lines().any(|line| head(&line)), "no line has {columns:?}:\n{text}");
}

#[test]
fn check_fits_at_each_host_of_the_example() {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/site.example.toml");
    let settings = Settings::without_file(&site);
    let draft = Draft::with_settings(&mut Files::reported(), settings, &site).unwrap();
    for host in &draft.site.hosts {
        let addresses: Vec<_> = host.addresses.iter().map(|at| at.value.addr()).collect();
        let policy = resolve(&draft, &addresses).unwrap();
        let report = check::CheckReport::new(&draft, &policy, conflict::notes(&draft, &policy));
        let text = on_screen(|out| report.print(out, Some(WIDTH), false));
        assert_fits(&text);
        assert_columns(&text, &["ROW", "SOURCE", "DESTINATION", "PORTS", "FROM", "MODE"]);
    }
}

#[test]
fn list_and_lint_of_the_matrix_fit() {
    let matrix = Matrix::load("pom-4.0").unwrap();
    let list = on_screen(|out| matrix::print_list(&matrix, out, Some(WIDTH)));
    assert_fits(&list);
    assert_columns(&list, &["ROW", "SOURCE", "DESTINATION", "PRINTED", "READ", "OPTIONAL"]);
    let lint = on_screen(|out| matrix::print_lint(&matrix, out, Some(WIDTH)));
    assert_fits(&lint);
    assert_columns(&lint, &["FROM ZONES", "ROW", "PORTS", "MEETS"]);
}

#[test]
fn stats_fits_with_state_peer_and_last_packet() {
    let options = stats::StatsView {
        width: Some(WIDTH),
        colour: false,
        now: sample::NOW,
        part: stats::Part::All,
        hit: false,
    };
    let text = on_screen(|out| stats::print_stats(&sample::snapshot(), out, options));
    assert_fits(&text);
    assert_columns(&text, &["row", "dir", "state", "peer", "ports", "packets", "last"]);
    assert_columns(&text, &["verdict", "reason", "packets", "last"]);
}

#[test]
fn drops_fits_without_a_terminal_too() {
    let policy = denied::policy(denied::SITE);
    let drops = denied::items(&policy, denied::DROPS);
    let rest = RestItem {
        direction: Direction::Outbound,
        verdict: Disposition::Audit,
        reason: Reason::ExtensionHeader.name(),
        known: false,
        packets: 1_000_000_000,
        bytes: 64_000_000_000,
    };
    let report = DropsReport { at: 1_000_000, since: 0, drops, rest: vec![rest], peers: Vec::new() };
    let mut text = Vec::new();
    drops::print(&report, true, &mut text).unwrap();
    assert_fits(&String::from_utf8(text).unwrap());
    let mut text = Vec::new();
    drops::print_lines(&report, &mut text).unwrap();
    assert_fits(&String::from_utf8(text).unwrap());
}

/// Returns a status with a condition, a bypass and many failsafe rows.
fn suspended() -> Status {
    let long = "ten words about a state that needs the attention of an operator, and why ".repeat(3);
    Status {
        in_force: true,
        host: "pom1.outreach.contact-centre.example.com".to_owned(),
        generation: 7,
        attention: vec![long.clone()],
        failsafe: (0..12).map(|row| RowId(format!("site/way-in-{row}"))).collect(),
        suspension: Some(SuspensionStatus {
            kind: SuspensionKind::Bypass,
            ends: Some(sample::NOW + 60),
            since: Some(sample::NOW),
            by: None,
            why: Some(long.clone()),
        }),
        ..Status::not_enforcing(long, sample::snapshot().attach)
    }
}

#[test]
fn status_fits() {
    let status = suspended();
    let text = on_screen(|out| status::print(&status, sample::NOW, out, Some(WIDTH), false));
    assert_fits(&text);
    for name in ["inbound", "outbound", "confirmed", "failsafe rows", "daemon"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
}

#[test]
fn deadlines_of_a_status_are_durations_as_people_read_them() {
    let status = Status { rollback_at: Some(sample::NOW + 7_500), ..suspended() };
    let [pending, bypass] = status::deadlines(&status, sample::NOW).try_into().unwrap();
    assert!(pending.contains("in 2 h 5 min the one before it returns"), "{pending}");
    assert!(bypass.starts_with("bypass for 1 min: the policy is suspended"), "{bypass}");
    assert!(status::deadlines(&Status { rollback_at: None, suspension: None, ..status }, 0).is_empty());
}

#[test]
fn colour_is_only_ever_added_to_the_words_of_a_status() {
    let status = suspended();
    let text = |colour| on_screen(|out| status::print(&status, sample::NOW, out, Some(WIDTH), colour));
    let coloured = text(true);
    assert!(coloured.starts_with("\u{1b}[1;31mATTENTION:\u{1b}[0m ten words"), "{coloured}");
    assert_eq!(without_colour(&coloured), text(false), "a line breaks at the same places");
}
