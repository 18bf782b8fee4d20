use super::*;
use crate::{
    input::Draft,
    observe::sample::{self, NOW, row},
    policy::resolve,
};

/// Returns the policy of a server with these rows of its own.
fn policy(inbound: &str, outbound: &str, allows: &[String]) -> Policy {
    let settings = format!(
        "site = \"site.toml\"\ninterfaces = [\"eth0\"]\nhost = \"a\"\n[enforcement]\ninbound = \"{inbound}\"\n\
         outbound = \"{outbound}\"\n"
    );
    let site = format!(
        "matrix = \"pom-4.0\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
         systems = [\"Kafka\"]\n{}",
        allows.concat()
    );
    let draft = Draft::from_texts(("pomguard.toml", &settings), ("site.toml", &site))
        .unwrap_or_else(|faults| panic!("{faults}"));
    resolve(&draft, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn enforced(allows: &[String]) -> Policy {
    policy("enforce", "enforce", allows)
}

fn allow(name: &str, from: &str, ports: &str, more: &str) -> String {
    format!(
        "[[allow]]\nname = \"{name}\"\nfrom = [\"{from}\"]\nto = [\"a\"]\nprotocol = \"tcp\"\nports = \"{ports}\"\n\
         {more}\n"
    )
}

/// Returns the counters of an inbound row, last hit so many seconds ago.
fn hit(id: &str, packets: u64, ago: Option<u64>) -> RowStats {
    let mut stats = row(id, Direction::Inbound, ("10.1.0.0/16", "a"), "22 tcp", packets);
    stats.last_hit = ago.map(|ago| NOW - ago);
    stats
}

fn counters(rows: Vec<RowStats>) -> Snapshot {
    Snapshot { rows, ..sample::snapshot() }
}

fn of(old: &Policy, new: &Policy, rows: Vec<RowStats>) -> Recent {
    Recent::from_diff(&Diff::between(old, new), new, &counters(rows), NOW)
}

fn ids(recent: &Recent) -> Vec<&str> {
    recent.rows.iter().map(|row| row.id.0.as_str()).collect()
}

#[test]
fn removed_row_with_recent_hits_is_named_with_its_counters() {
    let ssh = allow("ssh", "10.1.0.0/16", "22", "");
    let recent = of(&enforced(&[ssh]), &enforced(&[]), vec![hit("site/ssh", 18, Some(3_600))]);
    let expected = RecentRow {
        id: RowId("site/ssh".to_owned()),
        direction: Direction::Inbound,
        kind: Kind::Removed,
        promoted: false,
        newly_denied: true,
        source: "10.1.0.0/16".to_owned(),
        destination: "a".to_owned(),
        ports: "22 tcp".to_owned(),
        packets: 18,
        connections: 2,
        first_hit: Some(NOW - 400_000),
        last_hit: NOW - 3_600,
    };
    assert_eq!((recent.looked_at, recent.rows), (1, vec![expected]));
    assert_eq!((recent.at, recent.counting_since), (NOW, NOW - 864_000));
    assert!(recent.unenforced.is_empty(), "no more is enforced than before");
}

#[test]
fn rows_are_recent_for_a_week_and_sorted_by_last_hit() {
    let names = ["week", "older", "never", "now"];
    let old = enforced(&names.map(|name| allow(name, "10.1.0.0/16", "22", "")));
    let rows = vec![
        hit("site/week", 9, Some(RECENT)),
        hit("site/older", 9, Some(RECENT + 1)),
        hit("site/never", 0, None),
        hit("site/now", 9, Some(0)),
    ];
    let recent = of(&old, &enforced(&[]), rows);
    assert_eq!((recent.looked_at, ids(&recent)), (4, vec!["site/now", "site/week"]));
}

#[test]
fn a_clock_that_was_set_back_makes_no_hit_old() {
    let old = enforced(&[allow("ssh", "10.1.0.0/16", "22", "")]);
    let mut stats = hit("site/ssh", 9, Some(0));
    stats.last_hit = Some(NOW + 60);
    assert_eq!(ids(&of(&old, &enforced(&[]), vec![stats])), ["site/ssh"]);
}

#[test]
fn narrowed_rows_are_named_and_new_or_wider_ones_are_not() {
    let old = enforced(&[
        allow("narrow", "10.1.0.0/16", "20-22", ""),
        allow("moved", "10.1.0.0/16", "30-31", ""),
        allow("wide", "10.1.0.0/17", "40", ""),
        allow("same", "10.1.0.0/16", "50", ""),
    ]);
    let new = enforced(&[
        allow("narrow", "10.1.0.0/16", "20-21", ""),
        allow("moved", "10.1.0.0/16", "31-32", ""),
        allow("wide", "10.1.0.0/16", "40", ""),
        allow("same", "10.1.0.0/16", "50", ""),
        allow("new", "10.1.0.0/16", "60", ""),
    ]);
    let rows =
        ["narrow", "moved", "wide", "same", "new"].map(|name| hit(&format!("site/{name}"), 9, Some(10)));
    let recent = of(&old, &new, rows.to_vec());
    let kinds: Vec<(&str, Kind)> = recent.rows.iter().map(|row| (row.id.0.as_str(), row.kind)).collect();
    assert_eq!(kinds, [("site/narrow", Kind::Narrowed), ("site/moved", Kind::Moved)]);
    assert_eq!(recent.looked_at, 2);
}

#[test]
fn a_row_that_another_one_covers_is_not_said_to_be_denied() {
    let (cover, ssh) = (allow("cover", "10.0.0.0/8", "1-1000", ""), allow("ssh", "10.1.0.0/16", "22", ""));
    let recent = of(&enforced(&[ssh, cover.clone()]), &enforced(&[cover]), vec![hit("site/ssh", 9, Some(1))]);
    assert!(!recent.rows[0].newly_denied, "{recent:?}");
}

#[test]
fn counters_of_the_other_direction_are_not_those_of_the_row() {
    let mut stats = hit("site/ssh", 9, Some(1));
    stats.direction = Direction::Outbound;
    let old = enforced(&[allow("ssh", "10.1.0.0/16", "22", "")]);
    let recent = of(&old, &enforced(&[]), vec![stats]);
    assert_eq!((recent.looked_at, ids(&recent).len()), (0, 0), "a row without a counter is not looked at");
}

#[test]
fn a_row_whose_id_is_longer_than_its_label_is_found() {
    let name = "x".repeat(60);
    let old = enforced(&[allow(&name, "10.1.0.0/16", "22", "")]);
    let id = RowId(format!("site/{name}"));
    assert_ne!(label_id(&id), id.0, "the label is cut");
    let recent = of(&old, &enforced(&[]), vec![hit(&label_id(&id), 9, Some(1))]);
    assert_eq!(ids(&recent), [id.0.as_str()], "and named in full");
}

#[test]
fn row_from_audit_to_enforce_is_named_with_what_passed() {
    let audit = allow("ssh", "10.1.0.0/16", "22", "mode = \"audit\"");
    let enforce = allow("ssh", "10.1.0.0/16", "22", "");
    let (audit, enforce) = (enforced(&[audit]), enforced(&[enforce]));
    let recent = of(&audit, &enforce, vec![hit("site/ssh", 9, Some(1))]);
    let promoted: Vec<(Kind, bool)> = recent.rows.iter().map(|row| (row.kind, row.promoted)).collect();
    assert_eq!(promoted, [(Kind::Marked, true)]);
    assert_eq!(recent.unenforced.len(), 1, "{recent:?}");
    assert_eq!(recent.unenforced[0].direction, Direction::Inbound);
    let back = of(&enforce, &audit, vec![hit("site/ssh", 9, Some(1))]);
    assert_eq!((back.looked_at, back.unenforced), (0, vec![]), "the way back takes nothing away");
}

#[test]
fn direction_to_enforce_lists_passes_without_a_row_by_reason() {
    let passed = |from: (&str, &str), to: (&str, &str)| {
        let recent = of(&policy(from.0, from.1, &[]), &policy(to.0, to.1, &[]), vec![]);
        let found = recent.unenforced.into_iter();
        found
            .map(|of| {
                let reasons: Vec<(String, u64)> =
                    of.reasons.into_iter().map(|reason| (reason.name, reason.packets)).collect();
                (of.direction, of.packets, reasons)
            })
            .collect::<Vec<_>>()
    };
    let inbound =
        (Direction::Inbound, 44, vec![("tcp-flags".to_owned(), 41), ("source-known".to_owned(), 3)]);
    let outbound = (Direction::Outbound, 504, vec![("leaves-unlisted".to_owned(), 504)]);
    assert_eq!(passed(("audit", "track"), ("enforce", "track")), [inbound]);
    assert_eq!(passed(("enforce", "track"), ("enforce", "enforce")), [outbound], "track has its own reason");
    assert!(passed(("enforce", "track"), ("enforce", "audit")).is_empty(), "audit drops nothing");
    assert!(passed(("enforce", "enforce"), ("audit", "audit")).is_empty());
}
