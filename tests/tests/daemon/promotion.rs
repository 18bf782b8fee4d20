//! From audit to enforce: the report of plan, stats and status about live flows, and the fate of these flows.

use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, Lab, SERVER, STRANGER, Settings, UNLISTED, is_shut,
};
use serde_json::Value;

use super::cli::{done, json, said};

const AUDIT: Settings = Settings { outbound: "audit", ..Settings::AUDIT };

/// Returns the number of flows of each fate: cut now, until they reconnect, unaffected.
fn fates(impact: &Value) -> [u64; 3] {
    ["cut-now", "until-reconnect", "unaffected"].map(|fate| {
        let groups = impact["groups"].as_array().unwrap_or_else(|| panic!("no groups: {impact:#}"));
        groups
            .iter()
            .filter(|group| group["fate"] == fate)
            .map(|group| group["flows"].as_u64().unwrap())
            .sum()
    })
}

/// A server in audit with a flow of each kind: one from before the first start, two that audit admitted (one
/// inbound and one outbound), and one that a row allows.
struct Audited {
    lab: Lab,
    daemon: Daemon,
    older: Connection,
    admitted: Connection,
    leaving: Connection,
    allowed: Connection,
}

impl Audited {
    fn new(test: &str) -> Option<Self> {
        let lab = Lab::new(test)?;
        lab.write_settings(&AUDIT);
        let older = Connection::open(&lab.stranger, SERVER, UNLISTED);
        let daemon = Daemon::start(&lab);
        let admitted = Connection::open(&lab.stranger, SERVER, UNLISTED);
        let leaving = Connection::open(&lab.server, STRANGER, UNLISTED);
        let allowed = Connection::open(&lab.peer, SERVER, LISTED);
        let mut audited = Self { lab, daemon, older, admitted, leaving, allowed };
        assert!(audited.older.answers() && audited.admitted.answers());
        assert!(audited.leaving.answers() && audited.allowed.answers());
        Some(audited)
    }

    /// Promotes both directions to enforce.
    fn promote(&self, options: &[&str]) -> String {
        self.lab.write_settings(&Settings { inbound: "enforce", outbound: "enforce", ..AUDIT });
        done(&self.lab, &[&["apply", "--quiet", "--why", "ticket 9"], options].concat())
    }
}

#[test]
fn fates_of_live_flows_are_told_before_the_promotion() {
    let Some(mut server) = Audited::new("fates_of_live_flows_are_told_before_the_promotion") else { return };
    let lab = &server.lab;
    let numbers = "2 cut now, 1 goes on until it reconnects, 1 unaffected";
    // In audit, before any file changes.
    let stats = done(lab, &["stats"]);
    assert!(
        stats.contains(&format!("live flows: {numbers}, if what is in audit were enforced now")),
        "{stats}"
    );
    assert_eq!(fates(&json(lab, &["stats"])["live_flows"]["impact"]), [2, 1, 1]);
    let status = json(lab, &["status"]);
    assert_eq!(
        (&status["flows"]["if_enforced"], fates(&status["flows"]["impact"])),
        (&true.into(), [2, 1, 1])
    );
    let text = said(&lab.pomguard(&["status"]));
    assert!(text.contains(numbers), "{text}");
    assert!(text.contains("cut now: inbound 10.77.0.3 to 10.77.0.1 9000/tcp, 1 flow"), "{text}");
    assert!(text.contains("cut now: outbound 10.77.0.1 to 10.77.0.3 9000/tcp, 1 flow"), "{text}");
    assert!(
        text.contains("goes on until it reconnects: inbound 10.77.0.3 to 10.77.0.1 9000/tcp, 1 flow"),
        "{text}"
    );

    lab.write_settings(&Settings { inbound: "enforce", outbound: "enforce", ..AUDIT });
    let plan = json(lab, &["plan"]);
    assert_eq!(fates(&plan["impact"]), [2, 1, 1], "{plan:#}");
    assert!(said(&lab.pomguard(&["plan"])).contains(&format!("live flows: {numbers}")));

    server.promote(&[]);
    assert!(server.admitted.is_cut() && server.leaving.is_cut(), "cut now");
    assert!(server.older.answers(), "goes on until it reconnects");
    assert!(server.allowed.answers(), "unaffected");
    let status = json(&server.lab, &["status"]);
    assert_eq!(
        (&status["flows"]["if_enforced"], fates(&status["flows"]["impact"])),
        (&false.into(), [0, 1, 1]),
        "{status:#}"
    );
}

#[test]
fn apply_cut_ends_what_would_go_on() {
    let Some(mut server) = Audited::new("apply_cut_ends_what_would_go_on") else { return };
    let message = server.promote(&["--cut"]);
    assert!(message.contains("live flows that no row allows were ended or kept, as asked for"), "{message}");
    assert!(server.older.is_cut(), "no row allows it");
    assert!(server.admitted.is_cut() && server.leaving.is_cut());
    assert!(server.allowed.answers(), "a row allows it");
    let lab = &server.lab;
    assert_eq!(fates(&json(lab, &["status"])["flows"]["impact"]), [0, 0, 1]);
    let log = server.daemon.log();
    assert!(log.contains("ended by --cut: 10.77.0.3:"), "{log}");
    assert!(done(lab, &["history"]).contains("apply --cut"));
    assert!(said(&lab.pomguard(&["status"])).contains("made by apply --cut"));
}

#[test]
fn apply_keep_existing_lets_live_flows_go_on() {
    let Some(mut server) = Audited::new("apply_keep_existing_lets_live_flows_go_on") else { return };
    server.promote(&["--keep-existing"]);
    assert!(server.admitted.answers() && server.leaving.answers() && server.older.answers());
    assert!(server.allowed.answers());
    assert!(is_shut(&server.lab.stranger, SERVER, UNLISTED), "a new one is judged");
    assert!(is_shut(&server.lab.server, STRANGER, UNLISTED), "outbound, too");
    let status = json(&server.lab, &["status"]);
    assert_eq!(fates(&status["flows"]["impact"]), [0, 3, 1], "{status:#}");
    assert_eq!(status["flows"]["existing"], "keep");
    let text = said(&server.lab.pomguard(&["status"]));
    assert!(
        text.contains("3 goes on until it reconnects") && text.contains("apply --keep-existing"),
        "{text}"
    );
    assert!(done(&server.lab, &["history"]).contains("apply --keep-existing"));
    assert!(server.daemon.log().contains("kept by --keep-existing: "), "{}", server.daemon.log());

    // The kept flows survive the end of the daemon and a reload, and end when the operator says so.
    server.daemon.reload();
    assert!(server.admitted.answers() && server.leaving.answers());
    done(&server.lab, &["apply", "--cut", "--quiet", "--why", "enough"]);
    assert!(server.admitted.is_cut() && server.leaving.is_cut() && server.older.is_cut());
    assert!(server.allowed.answers());
}
