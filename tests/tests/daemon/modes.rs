//! Audit, track and enforce, and the way from one to the next.

use pomguard_tests::daemon::{Daemon, Lab, PEER, SERVER, STRANGER, Settings, UNLISTED, is_shut, opens};

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
