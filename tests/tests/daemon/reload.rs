//! SIGHUP: valid files are applied, broken files refused.

use pomguard_tests::daemon::{
    Connection, Daemon, INTERFACE, LISTED, LISTED_OUT, Lab, PEER, REMOVABLE, SERVER, Settings, UNLISTED,
    is_shut, opens,
};

use super::cli::done;

/// Disables row 16.
const WITHOUT_REMOVABLE: &str = "[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n";

#[test]
fn basic_broken_site_file_changes_nothing_and_a_good_one_does() {
    let Some(lab) = Lab::new("basic_broken_site_file_changes_nothing_and_a_good_one_does") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let before = lab.stats();
    assert!(lab.metrics().contains("\npomguard_reload_failures_total 0\n"), "{}", lab.metrics());

    lab.write_site(
        "[[allow]]\nname = \"broken\"\nfrom = [\"10.77.0.2/33\"]\nto = [\"server\"]\nports = \"1\"\nprotocol = \"tcp\"\n",
    );
    let status = daemon.reload();
    assert!(status.contains("refused"), "systemd is told: {status}");
    let after = lab.stats();
    assert_eq!((after.image(), after.generation()), (before.image(), before.generation()));
    assert!(opens(&lab.peer, SERVER, LISTED), "the listed port still answers");
    assert!(is_shut(&lab.peer, SERVER, UNLISTED), "the unlisted one still does not");
    assert!(daemon.log().contains("site.toml:15"), "the log names file and line:\n{}", daemon.log());
    let page = lab.metrics();
    assert!(page.contains("\npomguard_reload_failures_total 1\n"), "{page}");
    assert!(page.contains("\npomguard_last_reload_successful 0\n"), "{page}");

    lab.write_site(WITHOUT_REMOVABLE);
    daemon.reload();
    let after = lab.stats();
    assert_eq!(after.generation(), before.generation() + 1);
    assert_ne!(after.image(), before.image());
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "the row that was taken out no longer holds");
    let page = lab.metrics();
    assert!(page.contains("\npomguard_last_reload_successful 1\n"), "{page}");
    assert!(page.contains("\npomguard_reload_failures_total 1\n"), "{page}");
}

/// TP-21: connections are not drained.
#[test]
fn row_removed_by_a_reload_cuts_inbound_at_the_next_packet() {
    let Some(lab) = Lab::new("row_removed_by_a_reload_cuts_inbound_at_the_next_packet") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let mut kept = Connection::open(&lab.peer, SERVER, LISTED);
    let mut cut = Connection::open(&lab.peer, SERVER, REMOVABLE);
    assert!(kept.answers() && cut.answers());
    lab.write_site(WITHOUT_REMOVABLE);
    daemon.reload();
    assert!(cut.is_cut(), "the row is gone, and its connection with it");
    assert!(kept.answers(), "the other row's goes on");
}

/// TP-21.
#[test]
fn row_removed_by_a_reload_cuts_outbound_flows_too() {
    let Some(lab) = Lab::new("row_removed_by_a_reload_cuts_outbound_flows_too") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let mut cut = Connection::open(&lab.server, PEER, LISTED_OUT);
    assert!(cut.answers());
    lab.write_site("[[row]]\nid = \"pom-4.0/6\"\nenabled = false\nforce = true\n");
    daemon.reload();
    assert!(cut.is_cut(), "the row is gone, and its flow with it");
    assert!(is_shut(&lab.server, PEER, LISTED_OUT));
}

#[test]
fn a_reload_that_names_a_missing_interface_changes_nothing() {
    let Some(lab) = Lab::new("a_reload_that_names_a_missing_interface_changes_nothing") else { return };
    let daemon = Daemon::start(&lab);
    let before = lab.stats();
    lab.write_site(WITHOUT_REMOVABLE);
    lab.write_settings(&Settings { interfaces: &["eth9"], ..Settings::default() });
    let status = daemon.reload();
    assert!(status.contains("refused"), "{status}");
    let after = lab.stats();
    assert_eq!((after.image(), after.generation()), (before.image(), before.generation()));
    assert_eq!(after.attached(), ["native"]);
    assert!(opens(&lab.peer, SERVER, REMOVABLE), "the policy before it is in force, as was said");
}

#[test]
fn an_interface_is_attached_and_left_as_the_settings_name_it() {
    let Some(lab) = Lab::new("an_interface_is_attached_and_left_as_the_settings_name_it") else { return };
    lab.server.add_bridge("br9").unwrap();
    let daemon = Daemon::start(&lab);
    lab.write_settings(&Settings { interfaces: &[INTERFACE, "br9"], ..Settings::default() });
    daemon.reload();
    assert_eq!(lab.stats().attached(), ["generic", "native"], "a bridge has no native XDP");
    lab.write_settings(&Settings::default());
    let status = daemon.reload();
    assert!(status.contains("refused"), "a reload takes no guard off: {status}");
    assert_eq!(lab.stats().attached(), ["generic", "native"]);
    done(&lab, &["apply", "--yes", "--quiet"]);
    assert_eq!(lab.stats().attached(), ["native"]);
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
}

#[test]
fn reload_that_cannot_attach_names_the_policy_in_force() {
    let Some(lab) = Lab::new("reload_that_cannot_attach_names_the_policy_in_force") else {
        return;
    };
    lab.server.add_bridge("br9").unwrap();
    let daemon = Daemon::start(&lab);
    lab.write_settings(&Settings {
        interfaces: &[INTERFACE, "br9"],
        attach: "native",
        ..Settings::default()
    });
    let status = daemon.reload();
    let stats = lab.stats();
    assert!(status.contains("FAILED") && daemon.log().contains("br9"), "{status}\n{}", daemon.log());
    assert!(status.contains(&format!("generation {}", stats.generation())), "{status}\n{stats}");
    assert_eq!(stats.attached(), ["native"]);
    let page = lab.metrics();
    assert!(page.contains("\npomguard_reload_failures_total 1\n"), "{page}");
    assert!(page.contains("\npomguard_last_reload_successful 0\n"), "{page}");
}

/// CP-06: text from a file or the command line is escaped before it is shown.
#[test]
fn control_characters_in_names_reach_no_log_page_or_status() {
    let name = "control_characters_in_names_reach_no_log_page_or_status";
    let Some(lab) = Lab::new(name) else { return };
    let daemon = Daemon::start(&lab);
    let before = lab.stats().generation();
    let long = "x".repeat(10_240);
    let odd =
        [r"a\nREADY=1", r"\u001b[2Jclear", r#"quo\"te"#, r"back\\slash", r"\u202Eright", r"\u0007", &long];
    for written in odd {
        lab.write_site(&format!(
            "[[allow]]\nname = \"{written}\"\nfrom = [\"10.77.0.2\"]\nto = [\"server\"]\nports = \"1\"\n\
             protocol = \"tcp\"\n"
        ));
        let message = daemon.reload();
        assert!(message.contains("refused"), "CP-06: {written}: {message}");
        let said = lab.pomguard(&["check"]);
        assert!(!said.status.success(), "CP-06: {written}");
        assert_harmless(&String::from_utf8_lossy(&said.stderr), written);
    }
    let why = "lost\nREADY=1 \u{1b}[2J \u{202e}calls";
    lab.write_site(WITHOUT_REMOVABLE);
    assert!(lab.pomguard(&["apply", "--quiet", "--why", why]).status.success());
    for verb in ["history", "status", "stats"] {
        assert_harmless(&String::from_utf8_lossy(&lab.pomguard(&[verb]).stdout), verb);
    }
    assert_eq!(lab.stats().generation(), before + 1);
    let log = daemon.log();
    assert_harmless(&log, "the log");
    assert!(!log.lines().any(|line| line.starts_with("READY=1")), "CP-06: {log}");
    assert!(
        log.lines().all(|line| line.len() < 4_096),
        "CP-06: a line of the log is as long as a name likes"
    );
    let page = lab.metrics().replace('\r', "");
    assert_harmless(&page, "the page");
}

/// Asserts that a text contains only visible characters and ends of lines.
fn assert_harmless(text: &str, what: &str) {
    let harmful = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
    assert!(!text.contains(harmful), "CP-06: {what}: {text:?}");
}
