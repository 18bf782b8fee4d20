//! SIGHUP: new files taken, broken ones refused.

use pomguard_tests::daemon::{
    Conversation, Daemon, LISTED, LISTED_OUT, Lab, PEER, REMOVABLE, SERVER, Settings, UNLISTED, opens,
};

/// Takes row 16 out.
const WITHOUT_REMOVABLE: &str = "[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n";

#[test]
fn basic_a_broken_site_file_changes_nothing_and_a_good_one_afterwards_is_taken() {
    let Some(lab) = Lab::new("basic_a_broken_site_file_changes_nothing_and_a_good_one_afterwards_is_taken")
    else {
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
    assert!(!opens(&lab.peer, SERVER, UNLISTED), "the unlisted one still does not");
    assert!(daemon.log().contains("site.toml:15"), "the log names file and line:\n{}", daemon.log());
    let page = lab.metrics();
    assert!(page.contains("\npomguard_reload_failures_total 1\n"), "{page}");
    assert!(page.contains("\npomguard_last_reload_successful 0\n"), "{page}");

    lab.write_site(WITHOUT_REMOVABLE);
    daemon.reload();
    let after = lab.stats();
    assert_eq!(after.generation(), before.generation() + 1);
    assert_ne!(after.image(), before.image());
    assert!(!opens(&lab.peer, SERVER, REMOVABLE), "the row that was taken out no longer holds");
    let page = lab.metrics();
    assert!(page.contains("\npomguard_last_reload_successful 1\n"), "{page}");
    assert!(page.contains("\npomguard_reload_failures_total 1\n"), "{page}");
}

#[test]
fn a_row_that_a_reload_takes_out_bites_at_the_next_packet_of_what_it_had_let_in() {
    let Some(lab) = Lab::new("a_row_that_a_reload_takes_out_bites_at_the_next_packet_of_what_it_had_let_in")
    else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let mut kept = Conversation::open(&lab.peer, SERVER, LISTED);
    let mut cut = Conversation::open(&lab.peer, SERVER, REMOVABLE);
    assert!(kept.answers() && cut.answers());
    lab.write_site(WITHOUT_REMOVABLE);
    daemon.reload();
    assert!(cut.is_cut(), "the row is gone, and its connection with it");
    assert!(kept.answers(), "the other row's goes on");
}

#[test]
fn a_row_that_a_reload_takes_out_bites_outbound_conversations_too() {
    let Some(lab) = Lab::new("a_row_that_a_reload_takes_out_bites_outbound_conversations_too") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let mut cut = Conversation::open(&lab.server, PEER, LISTED_OUT);
    assert!(cut.answers());
    lab.write_site("[[row]]\nid = \"pom-4.0/6\"\nenabled = false\nforce = true\n");
    daemon.reload();
    assert!(cut.is_cut(), "the row is gone, and its conversation with it");
    assert!(!opens(&lab.server, PEER, LISTED_OUT));
}

#[test]
fn a_reload_that_names_a_missing_interface_changes_nothing() {
    let Some(lab) = Lab::new("a_reload_that_names_a_missing_interface_changes_nothing") else { return };
    let daemon = Daemon::start(&lab);
    let before = lab.stats();
    lab.write_site(WITHOUT_REMOVABLE);
    lab.write_settings(&Settings { interface: "eth9", ..Settings::default() });
    let status = daemon.reload();
    assert!(status.contains("refused"), "{status}");
    let after = lab.stats();
    assert_eq!((after.image(), after.generation()), (before.image(), before.generation()));
    assert_eq!(after.attached(), ["native"]);
    assert!(opens(&lab.peer, SERVER, REMOVABLE), "the policy before it is in force, as was said");
}
