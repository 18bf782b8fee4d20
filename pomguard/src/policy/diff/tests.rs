use super::*;
use crate::policy::{
    impact::{Fate, Impact, WayIn, promoted},
    resolve,
};

/// Returns a server with these rows of its own.
fn policy(inbound: &str, allows: &str) -> Policy {
    let settings = format!(
        "site = \"site.toml\"\ninterfaces = [\"eth0\"]\nhost = \"a\"\n[enforcement]\ninbound = \"{inbound}\"\n"
    );
    let site = format!(
        "matrix = \"pom-4.0\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1\", \"fd00::1\"]\n\
         systems = [\"Kafka\"]\n{allows}"
    );
    let draft = crate::input::Draft::from_texts(("pomguard.toml", &settings), ("site.toml", &site))
        .unwrap_or_else(|faults| panic!("{faults}"));
    resolve(&draft, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn allow(name: &str, from: &str, ports: &str, more: &str) -> String {
    format!(
        "[[allow]]\nname = \"{name}\"\nfrom = [{from}]\nto = [\"a\"]\nprotocol = \"tcp\"\nports = \"{ports}\"\n{more}\n"
    )
}

fn one(old: &str, new: &str) -> RowChange {
    let (old, new) = (policy("enforce", old), policy("enforce", new));
    let mut diff = Diff::between(&old, &new);
    assert_eq!((diff.rows.len(), diff.modes.len(), diff.other.len()), (1, 0, 0), "{diff:?}");
    let change = diff.rows.remove(0);
    for (packet, denies, allows) in [(change.newly_allowed, &old, &new), (change.newly_denied, &new, &old)] {
        let Some(packet) = packet else { continue };
        assert!(judge(denies, &packet).first.is_none(), "{packet:?}");
        assert!(judge(allows, &packet).first.is_some(), "{packet:?}");
    }
    change
}

#[test]
fn the_same_files_differ_in_nothing() {
    let rows = allow("x", "\"10.1.0.0/16\"", "22", "");
    assert!(Diff::between(&policy("audit", &rows), &policy("audit", &rows)).is_empty());
    // The same set of ranges, written in another way.
    let halves = allow("x", "\"10.1.0.0/17\", \"10.1.128.0/17\"", "22", "");
    assert!(Diff::between(&policy("audit", &rows), &policy("audit", &halves)).is_empty());
}

#[test]
fn a_row_that_comes_or_goes_has_a_packet_to_show_it() {
    let row = allow("x", "\"10.1.0.0/16\", \"fd01::/64\"", "22", "");
    let added = one("", &row);
    assert_eq!((added.kind, added.id.0.as_str()), (Kind::Added, "site/x"));
    let packet = added.newly_allowed.unwrap();
    assert_eq!((packet.source.to_string().as_str(), packet.destination_port), ("10.1.0.1", 22));
    assert!(added.newly_denied.is_none());
    let removed = one(&row, "");
    assert_eq!(removed.kind, Kind::Removed);
    assert!(removed.newly_denied.is_some() && removed.newly_allowed.is_none());
}

#[test]
fn a_wider_prefix_and_a_narrower_range_are_told_apart() {
    let narrow = allow("x", "\"10.1.0.0/17\"", "20-22", "");
    let wide = allow("x", "\"10.1.0.0/16\"", "20-22", "");
    let widened = one(&narrow, &wide);
    assert_eq!(
        (widened.kind, widened.more.peers.clone()),
        (Kind::Widened, vec!["10.1.128.0/17".parse().unwrap()])
    );
    let narrowed = one(&wide, &narrow);
    assert_eq!((narrowed.kind, narrowed.less), (Kind::Narrowed, widened.more));
    let moved = one(&narrow, &allow("x", "\"10.1.0.0/17\"", "21-23", ""));
    assert_eq!(moved.kind, Kind::Moved);
    assert_eq!(moved.more.services[0].ports, PortRange::one(23));
    assert_eq!(moved.less.services[0].ports, PortRange::one(20));
    assert_eq!(moved.newly_allowed.unwrap().destination_port, 23);
    assert_eq!(moved.newly_denied.unwrap().destination_port, 20);
}

#[test]
fn client_ports_count_too() {
    let change = one(
        &allow("x", "\"10.1.0.0/16\"", "22", "source_ports = \"1024-65535\""),
        &allow("x", "\"10.1.0.0/16\"", "22", "source_ports = \"2048-65535\""),
    );
    assert_eq!(change.less.client_ports, [PortRange { first: 1_024, last: 2_047 }]);
    assert_eq!(change.newly_denied.unwrap().source_port, 2_047);
}

#[test]
fn a_row_that_another_one_covers_changes_without_a_packet() {
    let cover = allow("cover", "\"10.0.0.0/8\"", "1-1000", "");
    let change = one(&cover, &format!("{cover}{}", allow("x", "\"10.1.0.0/16\"", "22", "")));
    assert_eq!((change.kind, change.newly_allowed), (Kind::Added, None));
}

#[test]
fn modes_and_marks_are_changes() {
    let row = allow("x", "\"10.1.0.0/16\"", "22", "");
    let diff = Diff::between(&policy("audit", &row), &policy("enforce", &row));
    assert_eq!(
        diff.modes,
        [ModeChange { direction: Direction::Inbound, from: Mode::Audit, to: Mode::Enforce }]
    );
    let marked = one(&row, &allow("x", "\"10.1.0.0/16\"", "22", "failsafe = true"));
    assert_eq!((marked.kind, marked.failsafe), (Kind::Marked, Some((false, true))));
    let audited = one(&row, &allow("x", "\"10.1.0.0/16\"", "22", "mode = \"audit\""));
    assert_eq!(audited.mode, Some((Mode::Enforce, Mode::Audit)));
}

#[test]
fn every_example_row_has_a_packet_that_shows_its_removal() {
    let site = include_str!("../../../../config/site.example.toml");
    let settings = include_str!("../../../../config/pomguard.toml");
    let draft = crate::input::Draft::from_texts(("pomguard.toml", settings), ("site.toml", site)).unwrap();
    let full = resolve(&draft, &[IpAddr::from([10, 20, 0, 11])]).unwrap();
    let mut shown = 0;
    for row in full.rows.iter().filter(|row| !row.peers.is_empty()) {
        let mut without = full.clone();
        without.rows.retain(|other| (&other.id, other.direction) != (&row.id, row.direction));
        let diff = Diff::between(&full, &without);
        assert_eq!(diff.rows.len(), 1, "{}", row.id);
        let change = &diff.rows[0];
        let Some(packet) = change.newly_denied else {
            let packet_of_row = |it: &Row| it.id != row.id && it.direction == row.direction;
            assert!(full.rows.iter().any(packet_of_row), "{} has no packet and no row alongside it", row.id);
            continue;
        };
        assert_eq!(judge(&full, &packet).all, std::slice::from_ref(&row.id), "only this row allowed it");
        shown += 1;
    }
    assert!(shown > 30, "only {shown}");
}

fn opening(source: &str, port: u16) -> Opening {
    Opening {
        direction: Direction::Inbound,
        source: source.parse().unwrap(),
        source_port: 40_000,
        destination: "10.0.0.1".parse().unwrap(),
        destination_port: port,
        protocol: 6,
    }
}

#[test]
fn a_flow_is_cut_when_it_goes_on_now_and_would_not_then() {
    let old = policy("enforce", &allow("x", "\"10.1.0.0/16\"", "22-23", ""));
    let new = policy("enforce", &allow("x", "\"10.1.0.0/16\"", "22", ""));
    let live = [opening("10.1.0.7", 22), opening("10.1.0.7", 23), opening("10.2.0.7", 23)];
    let judged = |_: &Opening| false;
    let impact = Impact::new(Some(&old), &new, &live, judged, judged);
    assert_eq!((impact.connections, impact.cut), (3, vec![live[1]]), "the last one was denied before");
    assert!(impact.until_reconnect.is_empty());
    let older = Impact::new(Some(&old), &new, &live, |opening| *opening == live[1], judged);
    assert_eq!((older.cut, older.until_reconnect), (vec![], vec![live[1]]), "it is not judged by any policy");
    let audited = policy("audit", "");
    let excepted = Impact::new(Some(&old), &new, &live, judged, |opening| *opening == live[1]);
    assert!(excepted.cut.is_empty() && excepted.count(Fate::Unaffected) == 2, "an exception holds it");
    let twice = [live[1], Opening { source_port: 40_001, ..live[1] }, live[0]];
    let groups = Impact::new(Some(&old), &new, &twice, judged, judged).groups;
    let message: Vec<_> = groups.iter().map(|group| (group.fate, group.port, group.flows)).collect();
    assert_eq!(message, [(Fate::CutNow, 23, 2), (Fate::Unaffected, 22, 1)]);
    let promotion = Impact::new(Some(&audited), &promoted(&audited), &live, judged, judged);
    assert_eq!(promotion.count(Fate::CutNow), 3, "no row allows any of them");
    assert!(Impact::new(Some(&old), &audited, &live, judged, judged).cut.is_empty(), "audit cuts nothing");
    assert_eq!(
        Impact::new(Some(&audited), &new, &live, judged, judged).cut,
        live[1..],
        "enforce after audit does"
    );
}

#[test]
fn the_way_in_is_held_by_a_failsafe_row_only() {
    let session = opening("10.1.0.7", 22);
    let with = |more: &str| policy("enforce", &allow("ssh", "\"10.1.0.0/16\"", "22", more));
    assert_eq!(WayIn::under(&with("failsafe = true"), &session), WayIn::Failsafe);
    assert_eq!(WayIn::under(&with(""), &session), WayIn::NotFailsafe);
    assert_eq!(WayIn::under(&policy("enforce", ""), &session), WayIn::Cut);
    assert_eq!(WayIn::under(&policy("audit", ""), &session), WayIn::NotFailsafe);
}
