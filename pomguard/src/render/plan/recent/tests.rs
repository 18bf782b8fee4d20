use super::*;
use crate::{
    observe::{recent::UnenforcedReason, sample::NOW},
    policy::RowId,
};

fn row(id: &str, kind: Kind, packets: u64) -> RecentRow {
    RecentRow {
        id: RowId(id.to_owned()),
        direction: Direction::Inbound,
        kind,
        promoted: false,
        newly_denied: true,
        source: "Agent Desktop".to_owned(),
        destination: "Agent Manager".to_owned(),
        ports: "9970 tcp".to_owned(),
        packets,
        connections: packets / 9,
        first_hit: Some(NOW - 400_000),
        last_hit: NOW - 3_900,
    }
}

fn recent(rows: Vec<RecentRow>) -> Recent {
    let looked_at = rows.len();
    Recent { at: NOW, counting_since: NOW - 864_000, looked_at, rows, unenforced: vec![] }
}

fn printed_in(mode: Mode, recent: &Recent) -> String {
    let mut out = Vec::new();
    print(recent, |_| mode, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn printed(recent: &Recent) -> String {
    printed_in(Mode::Enforce, recent)
}

#[test]
fn row_is_written_with_its_ends_counters_and_outcome() {
    let mut covered = row("site/ops", Kind::Narrowed, 9);
    (covered.newly_denied, covered.direction) = (false, Direction::Outbound);
    let mut promoted = row("pom-4.0/16", Kind::Marked, 1);
    promoted.promoted = true;
    let mut both = row("pom-4.0/17", Kind::Narrowed, 90);
    both.promoted = true;
    let mut recent = recent(vec![row("pom-4.0/15", Kind::Removed, 1_204_771), covered, promoted, both]);
    recent.looked_at = 5;
    let ends = "Agent Desktop -> Agent Manager, 9970 tcp";
    let expected = [
        "4 of 5 rows that would go, allow less or go from audit to enforce were hit in the last 7 d"
            .to_owned(),
        format!(
            "  pom-4.0/15 inbound, {ends}: 1,204,771 packets, 133,863 connections, last hit 1 h 5 min ago; removed"
        ),
        format!(
            "  site/ops outbound, {ends}: 9 packets, 1 connection, last hit 1 h 5 min ago; narrowed; other rows \
             may allow the same"
        ),
        format!(
            "  pom-4.0/16 inbound, {ends}: 1 packet, 0 connections, last hit 1 h 5 min ago; put in enforce, goes \
             on to allow these"
        ),
        format!(
            "  pom-4.0/17 inbound, {ends}: 90 packets, 10 connections, last hit 1 h 5 min ago; narrowed and put \
             in enforce"
        ),
        "  counted since 2026-11-13 00:00 UTC (10 d) by row and by reason, not by address: packets of flows \
         that would go on are in this number"
            .to_owned(),
    ];
    assert_eq!(printed(&recent).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_first_few_rows_are_written_and_the_others_are_a_number() {
    let rows = (0..11).map(|at| row(&format!("site/{at}"), Kind::Removed, 9)).collect();
    let text = printed(&recent(rows));
    assert!(text.contains("  site/7 inbound") && !text.contains("site/8"), "{text}");
    assert!(text.contains("  and 3 more (--json has them all)"), "{text}");
}

#[test]
fn unused_rows_are_marked_with_the_start_of_counting() {
    let unused = Recent { looked_at: 2, ..recent(vec![]) };
    let text = printed(&unused);
    assert!(text.starts_with("0 of 2 rows "), "{text}");
    assert!(text.contains("counted since 2026-11-13 00:00 UTC (10 d)"), "{text}");
}

#[test]
fn nothing_is_said_where_no_counter_belongs_to_what_changes() {
    assert_eq!(printed(&recent(vec![])), "");
}

#[test]
fn what_loses_its_row_in_audit_is_said_to_pass() {
    let recent = recent(vec![row("pom-4.0/15", Kind::Removed, 9)]);
    let text = printed_in(Mode::Audit, &recent);
    assert!(text.contains("inbound is in audit with these files: what its rows no longer allow"), "{text}");
    assert!(!text.contains("outbound is in"), "no row of that direction loses anything: {text}");
    assert!(!printed(&recent).contains("with these files"));
}

#[test]
fn what_enforce_would_have_dropped_is_told_by_reason() {
    let reason = |name: &str, packets| UnenforcedReason { name: name.to_owned(), packets };
    let mut recent = recent(vec![]);
    recent.unenforced = vec![
        Unenforced {
            direction: Direction::Inbound,
            packets: 1_044,
            reasons: vec![reason("port", 1_041), reason("source-known", 3)],
        },
        Unenforced { direction: Direction::Outbound, packets: 0, reasons: vec![] },
    ];
    let text = printed(&recent);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "1,044 packets passed inbound so far that enforce would have dropped: port 1,041, source-known 3"
    );
    assert_eq!(lines[1], "0 packets passed outbound so far that enforce would have dropped");
    assert!(lines[2].starts_with("  counted since 2026-11-13 00:00 UTC"), "{text}");
}

#[test]
fn names_from_files_cannot_steer_the_terminal() {
    let mut odd = row("site/a\n\u{1b}[31m", Kind::Removed, 9);
    odd.source = "pom1\u{1b}[2J".to_owned();
    assert!(!printed(&recent(vec![odd])).contains('\u{1b}'));
}

#[test]
fn json_has_the_promised_keys() {
    let mut recent = recent(vec![row("pom-4.0/15", Kind::Removed, 9)]);
    recent.unenforced.push(Unenforced { direction: Direction::Inbound, packets: 0, reasons: vec![] });
    let json = serde_json::to_value(recent).unwrap();
    assert_eq!((&json["counting_since"], &json["at"]), (&(NOW - 864_000).into(), &serde_json::Value::Null));
    assert_eq!(
        (&json["rows"][0]["kind"], &json["rows"][0]["direction"]),
        (&"removed".into(), &"inbound".into())
    );
    assert_eq!(json["rows"][0]["last_hit"], NOW - 3_900);
    for key in ["id", "promoted", "newly_denied", "source", "destination", "ports", "packets", "connections"]
    {
        assert!(!json["rows"][0][key].is_null(), "{key}");
    }
    for key in ["direction", "packets", "reasons"] {
        assert!(!json["unenforced"][0][key].is_null(), "{key}");
    }
}
