use std::time::Duration;

use super::*;
use crate::{
    observe::{
        golden::assert_golden,
        sample::{self, NOW},
        snapshot::AttachInfo,
    },
    render::text::tests::without_colour,
};

fn options(width: Option<u16>) -> StatsView {
    StatsView { width, colour: false, now: NOW, part: Part::All, hit: false }
}

fn stats(snapshot: &Snapshot, options: StatsView) -> String {
    let mut out = Vec::new();
    print_stats(snapshot, &mut out, options).unwrap();
    String::from_utf8(out).unwrap()
}

fn busier() -> Snapshot {
    let mut later = sample::snapshot();
    for (row, packets) in later.rows.iter_mut().zip([0, 20_000, 150, 0, 3, 0]) {
        row.packets += packets;
        row.bytes += packets * 700;
        row.connections += packets / 10;
    }
    for reason in &mut later.reasons {
        if ["row", "port", "peer-flow"].contains(&reason.name.as_str()) {
            reason.packets += 20_153;
            reason.bytes += 20_153 * 700;
        }
    }
    for total in &mut later.totals {
        total.seen += 20_153;
        total.seen_bytes += 20_153 * 700;
        total.passed += 20_153;
    }
    later
}

fn watch(before: &Snapshot, now: &Snapshot, options: StatsView) -> String {
    let mut out = Vec::new();
    print_watch(before, now, Duration::from_secs(2), &mut out, options).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_tables_are_those_that_were_looked_at() {
    for width in [80, 100, 120, 160] {
        assert_golden(&format!("stats.{width}.txt"), &stats(&sample::snapshot(), options(Some(width))));
    }
    assert_golden("stats.piped.txt", &stats(&sample::snapshot(), options(None)));
    assert_golden("stats.quiet.txt", &stats(&sample::quiet(), options(Some(100))));
}

#[test]
fn colour_is_only_ever_added_to_words() {
    // The library of the tables leaves colours out if the environment asks for that.
    if std::env::var_os("NO_COLOR").is_some() {
        return;
    }
    let coloured = stats(&sample::snapshot(), StatsView { colour: true, ..options(Some(120)) });
    assert_golden("stats.colour.txt", &coloured);
    assert_eq!(without_colour(&coloured), stats(&sample::snapshot(), options(Some(120))));
}

#[test]
fn the_rates_are_those_that_were_looked_at() {
    for width in [80, 120] {
        assert_golden(
            &format!("watch.{width}.txt"),
            &watch(&sample::snapshot(), &busier(), options(Some(width))),
        );
    }
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut odd = sample::snapshot();
    odd.rows[1].id.0 = format!("site/{}", "x".repeat(59));
    odd.rows[1].source = "Ä".repeat(70);
    for width in [80, 90, 100, 120, 160, 200] {
        for text in [
            stats(&odd, options(Some(width))),
            stats(&sample::quiet(), options(Some(width))),
            watch(&odd, &busier(), options(Some(width))),
        ] {
            for line in text.lines() {
                assert!(line.chars().count() <= width.into(), "{width}: {line}");
            }
        }
    }
}

#[test]
fn drops_of_known_systems_come_first_and_in_words() {
    let text = stats(&sample::snapshot(), options(None));
    let first = text.lines().next().unwrap();
    assert_eq!(first, "ATTENTION: 12 packets from systems the site knows were dropped (port-known 12).");
    assert!(!stats(&sample::quiet(), options(None)).contains("ATTENTION"));
}

#[test]
fn one_packet_is_a_packet() {
    let mut snapshot = sample::quiet();
    snapshot.reasons = sample::snapshot().reasons.into_iter().filter(|r| r.name == "port-known").collect();
    snapshot.reasons[0].packets = 1;
    assert!(
        stats(&snapshot, options(None))
            .contains("ATTENTION: 1 packet from systems the site knows was dropped")
    );
}

#[test]
fn an_interface_without_a_program_is_said_to_be_open() {
    let mut snapshot = sample::quiet();
    snapshot.attach[0] = AttachInfo {
        interface: "eth0".to_owned(),
        ifindex: 2,
        xdp: "none".to_owned(),
        tc: "tcx".to_owned(),
        seen: 0,
    };
    let text = stats(&snapshot, options(None));
    assert!(text.starts_with("ATTENTION: eth0 has no XDP program: inbound is open there."), "{text}");
}

#[test]
fn balance_that_is_off_says_by_how_much() {
    let mut snapshot = sample::snapshot();
    snapshot.totals[0].seen += 5;
    assert!(stats(&snapshot, options(Some(80))).contains("OFF BY 5"));
}

#[test]
fn a_part_alone_has_neither_header_nor_the_other_part() {
    let rows = stats(&sample::snapshot(), StatsView { part: Part::Rows, ..options(None) });
    assert!(rows.starts_with("row ") && !rows.contains("verdict"), "{rows}");
    let reasons = stats(&sample::snapshot(), StatsView { part: Part::Reasons, ..options(None) });
    assert!(reasons.starts_with("dir ") && !reasons.contains("connections"), "{reasons}");
}

#[test]
fn names_from_files_cannot_steer_the_terminal() {
    let mut snapshot = sample::snapshot();
    snapshot.host = "pom1\u{1b}[2J".to_owned();
    snapshot.rows[0].id.0 = "site/a\n\u{1b}[31m".to_owned();
    assert!(!stats(&snapshot, options(Some(100))).contains('\u{1b}'));
    assert!(!watch(&snapshot, &snapshot, options(Some(100))).contains('\u{1b}'));
}

#[test]
fn counters_reset_between_readings_show_no_absurd_rate() {
    let text = watch(&busier(), &sample::quiet(), options(Some(120)));
    assert!(text.contains("No row was hit"), "{text}");
}
