//! Audit, track and enforce, and the change from one to the next.

use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, LISTED_OUT, Lab, PEER, REMOVABLE, SERVER, SERVER6, STRANGER, Settings,
    UNLISTED, is_shut, opens,
};

/// Puts rows 16, inbound, and 6, outbound, in audit.
const ROWS_IN_AUDIT: &str =
    "[[row]]\nid = \"pom-4.0/16\"\nmode = \"audit\"\n\n[[row]]\nid = \"pom-4.0/6\"\nmode = \"audit\"\n";

#[test]
fn basic_inbound_audit_counts_what_enforce_then_drops() {
    let Some(lab) = Lab::new("basic_inbound_audit_counts_what_enforce_then_drops") else { return };
    lab.write_settings(&Settings { inbound: "audit", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, UNLISTED));
    let stats = lab.stats();
    assert_eq!(stats.text("inbound"), "audit");
    assert!(stats.reason("port-known", "inbound", "audit") > 0, "{stats}");
    assert!(stats.reason("port", "inbound", "audit") > 0, "{stats}");
    assert_eq!(stats.total("inbound", "dropped"), 0, "{stats}");

    lab.write_settings(&Settings::default());
    daemon.reload();
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && is_shut(&lab.stranger, SERVER, UNLISTED));
    let stats = lab.stats();
    assert_eq!(stats.text("inbound"), "enforce");
    assert!(stats.reason("port-known", "inbound", "drop") > 0, "{stats}");
}

#[test]
fn outbound_track_and_audit_count_what_enforce_then_drops() {
    let Some(lab) = Lab::new("outbound_track_and_audit_count_what_enforce_then_drops") else { return };
    let unlisted = |lab: &Lab| opens(&lab.server, PEER, UNLISTED) && opens(&lab.server, STRANGER, UNLISTED);

    lab.write_settings(&Settings { outbound: "track", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    assert!(unlisted(&lab), "track lets leave");
    let track = lab.stats();
    assert!(track.reason("leaves-unlisted", "outbound", "pass") > 0, "{track}");
    assert_eq!(track.total("outbound", "audited"), 0, "{track}");

    lab.write_settings(&Settings { outbound: "audit", ..Settings::default() });
    daemon.reload();
    assert!(unlisted(&lab), "audit lets leave");
    let audit = lab.stats();
    assert!(audit.reason("destination", "outbound", "audit") > 0, "{audit}");
    assert_eq!(audit.total("outbound", "dropped"), 0, "{audit}");
    assert_eq!(audit.total("inbound", "dropped"), 0, "the answers came in: {audit}");

    lab.write_settings(&Settings::default());
    daemon.reload();
    assert!(is_shut(&lab.server, PEER, UNLISTED) && is_shut(&lab.server, STRANGER, UNLISTED));
    let enforce = lab.stats();
    assert_eq!(enforce.text("outbound"), "enforce");
    assert!(enforce.reason("destination", "outbound", "drop") > 0, "{enforce}");
}

#[test]
fn a_row_is_promoted_from_audit_to_enforce_by_a_reload() {
    let Some(lab) = Lab::new("a_row_is_promoted_from_audit_to_enforce_by_a_reload") else { return };
    lab.write_site(ROWS_IN_AUDIT);
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.stranger, SERVER, REMOVABLE) && opens(&lab.stranger, SERVER6, REMOVABLE));
    assert!(opens(&lab.server, STRANGER, LISTED_OUT), "the row that goes out");
    assert!(is_shut(&lab.stranger, SERVER, LISTED), "the other rows are in enforce");
    assert!(is_shut(&lab.server, STRANGER, UNLISTED));
    let mut kept = Connection::open(&lab.peer, SERVER, REMOVABLE);
    let mut admitted = Connection::open(&lab.stranger, SERVER, REMOVABLE);
    assert!(kept.answers() && admitted.answers());
    let audit = lab.stats();
    assert_eq!((audit.text("inbound"), audit.text("outbound")), ("enforce".into(), "enforce".into()));
    assert_eq!(audit.row_mode("pom-4.0/16", "inbound"), "audit");
    assert_eq!(audit.row_mode("pom-4.0/6", "outbound"), "audit");
    assert_eq!(audit.row_mode("pom-4.0/15", "inbound"), "enforce");
    assert!(audit.reason("source", "inbound", "audit") > 0, "{audit}");
    assert!(audit.reason("unsolicited-reply", "outbound", "audit") > 0, "{audit}");
    assert!(audit.reason("destination", "outbound", "audit") > 0, "{audit}");
    assert!(audit.row("pom-4.0/16", "inbound", "connections") > 0, "the peer counts under the row: {audit}");
    assert_eq!(rows_shown(&lab, "pom-4.0/16", "inbound"), ["audit"]);
    let said = lab.pomguard(&["explain", "10.77.0.3", "10.77.0.1:7999/tcp"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("passes in audit because row pom-4.0/16 is in audit"), "{said}");
    let plan = lab.pomguard(&["plan"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("pom-4.0/16 is in audit inbound"), "{plan}");

    // The files alone change nothing in the output: the modes shown are the kernel's.
    lab.write_site("");
    assert_eq!(lab.stats().row_mode("pom-4.0/16", "inbound"), "audit");
    daemon.reload();
    assert!(admitted.is_cut(), "promoted: whom the row does not name is cut");
    assert!(kept.answers(), "whom it names goes on");
    assert!(is_shut(&lab.stranger, SERVER, REMOVABLE) && is_shut(&lab.server, STRANGER, LISTED_OUT));
    let enforce = lab.stats();
    assert_eq!(enforce.row_mode("pom-4.0/16", "inbound"), "enforce");
    assert_eq!(enforce.row_mode("pom-4.0/6", "outbound"), "enforce");
    assert_eq!(rows_shown(&lab, "pom-4.0/16", "inbound"), ["enforce"]);
    assert!(enforce.reason("source", "inbound", "drop") > 0, "{enforce}");
    assert!(enforce.reason("destination", "outbound", "drop") > 0, "{enforce}");
    enforce.assert_not_behind(&audit);
}

/// Returns the modes that the metrics page shows with the packets of a row.
fn rows_shown(lab: &Lab, id: &str, direction: &str) -> Vec<String> {
    let page = lab.metrics();
    let (id, direction) = (format!("row=\"{id}\""), format!("direction=\"{direction}\""));
    let lines = page.lines().filter(|line| {
        line.starts_with("pomguard_row_packets_total{") && line.contains(&id) && line.contains(&direction)
    });
    let modes = lines.filter_map(|line| line.split_once("mode=\"")?.1.split_once('"').map(|(mode, _)| mode));
    modes.map(str::to_owned).collect()
}
