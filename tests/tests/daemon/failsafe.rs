//! Failsafe rows belong to a generation: the word that switches the policy also switches the failsafe rows.

use std::{
    thread,
    time::{Duration, Instant},
};

use pomguard_tests::daemon::{Connection, Daemon, LISTED, Lab, SERVER, STRANGER, UNLISTED, is_shut, opens};

use super::cli::{done, json};

/// The failsafe row: no other row lets the peer reach this port.
const WAY_IN: &str = "[[allow]]\nname = \"ops\"\nfrom = [\"10.77.0.2\"]\nto = [\"server\"]\nprotocol = \"tcp\"\n\
                      ports = \"9000\"\nfailsafe = true\n";

/// Returns the failsafe row with a typing error in the address.
fn typo() -> String {
    WAY_IN.replace("10.77.0.2", "10.77.0.22")
}

/// Returns a guarded server with the failsafe row.
fn guarded(test: &str) -> Option<(Lab, Daemon)> {
    let lab = Lab::new(test)?;
    lab.write_site(WAY_IN);
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, UNLISTED), "the failsafe row holds");
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "for one address");
    Some((lab, daemon))
}

/// Applies the site file with the typing error as a pending change.
fn try_typo(lab: &Lab, within: &str) {
    lab.write_site(&typo());
    done(lab, &["apply", "--confirm-within", within, "--yes", "--quiet"]);
}

/// Returns the lines of the override table: the last byte of the peer, and the slots for which the line
/// holds.
fn lines(lab: &Lab) -> Vec<(u32, u32)> {
    let pins = pomguard::kernel::pins::Pins::new(lab.pins());
    let mut lines: Vec<(u32, u32)> = pomguard::kernel::control::overrides(&pins)
        .unwrap()
        .iter()
        .map(|line| (line.peer[0] & 0xff, line.slots))
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn typo_in_failsafe_row_shows_at_once_and_ends_with_daemon_dead() {
    let Some((lab, daemon)) = guarded("typo_in_failsafe_row_shows_at_once_and_ends_with_daemon_dead") else {
        return;
    };
    let mut old = Connection::open(&lab.peer, SERVER, UNLISTED);
    assert!(old.answers());
    let started = Instant::now();
    try_typo(&lab, "10s");
    daemon.kill();
    assert!(is_shut(&lab.peer, SERVER, UNLISTED), "a new session shows the typing error");
    assert!(opens(&lab.peer, SERVER, LISTED), "and only this");
    assert!(started.elapsed() < Duration::from_secs(10), "the machine was too slow to look in time");
    thread::sleep(Duration::from_secs(11).saturating_sub(started.elapsed()));
    assert!(opens(&lab.peer, SERVER, UNLISTED), "the way in is back, and nobody lived to bring it back");
    assert!(old.answers(), "and the old session");
    assert_eq!(json(&lab, &["status"])["confirmed"], true);
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, UNLISTED));
    assert_eq!(lines(&lab).len(), 1, "the lines of the refused policy are free again");
}

#[test]
fn failsafe_row_of_a_pending_change_leaves_with_rollback() {
    let Some((lab, _daemon)) = guarded("failsafe_row_of_a_pending_change_leaves_with_rollback") else {
        return;
    };
    lab.write_site(&WAY_IN.replace("10.77.0.2", "10.77.0.3"));
    done(&lab, &["apply", "--confirm-within", "120s", "--yes", "--quiet"]);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, UNLISTED));
    let pending = lines(&lab);
    assert_eq!(pending.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(pending[0].1 & pending[1].1, 0, "each for its own generation: {pending:?}");
    done(&lab, &["rollback", "--yes", "--quiet"]);
    assert!(opens(&lab.peer, SERVER, UNLISTED) && is_shut(&lab.stranger, SERVER, UNLISTED));
    assert_eq!(lines(&lab).iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [2]);
}

#[test]
fn confirmed_failsafe_row_stays_and_the_former_one_is_gone() {
    let Some((lab, daemon)) = guarded("confirmed_failsafe_row_stays_and_the_former_one_is_gone") else {
        return;
    };
    lab.write_site(&WAY_IN.replace("10.77.0.2", "10.77.0.3"));
    done(&lab, &["apply", "--confirm-within", "120s", "--yes", "--quiet"]);
    done(&lab, &["confirm", "--yes", "--quiet"]);
    let peers = |lab: &Lab| lines(lab).iter().map(|(peer, _)| *peer).collect::<Vec<_>>();
    assert_eq!(peers(&lab), [3]);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, UNLISTED));
    // The saved image has only the rows of its own generation, bound to the slot of the next boot.
    daemon.kill();
    let _daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, UNLISTED));
    assert_eq!(peers(&lab), [3]);
}

#[test]
fn row_that_both_policies_have_holds_through_the_change() {
    let Some((lab, daemon)) = guarded("row_that_both_policies_have_holds_through_the_change") else { return };
    let mut session = Connection::open(&lab.peer, SERVER, UNLISTED);
    for more in ["# one\n", "[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n", "# two\n"] {
        lab.write_site(&format!("{WAY_IN}{more}"));
        done(&lab, &["apply", "--confirm-within", "120s", "--quiet"]);
        assert!(session.answers(), "pending");
        assert_eq!(lines(&lab).len(), 1, "both share one line");
        done(&lab, &["confirm", "--quiet"]);
        assert!(session.answers() && opens(&lab.peer, SERVER, UNLISTED), "confirmed");
    }
    daemon.reload();
    assert!(session.answers());
}

#[test]
fn exception_holds_before_within_and_after_a_pending_change() {
    let Some((lab, daemon)) = guarded("exception_holds_before_within_and_after_a_pending_change") else {
        return;
    };
    let (from, service) = (STRANGER.to_string(), format!("{UNLISTED}/tcp"));
    done(&lab, &["allow", &from, "to", &service, "--for", "10m", "--why", "ticket 9"]);
    let through = |when: &str| assert!(opens(&lab.stranger, SERVER, UNLISTED), "{when}");
    through("before");
    let started = Instant::now();
    try_typo(&lab, "10s");
    through("while a confirmation is due");
    assert!(is_shut(&lab.peer, SERVER, UNLISTED));
    daemon.kill();
    thread::sleep(Duration::from_secs(11).saturating_sub(started.elapsed()));
    through("after the return");
    assert!(opens(&lab.peer, SERVER, UNLISTED));
    let _daemon = Daemon::start(&lab);
    through("with the next daemon");
    try_typo(&lab, "120s");
    done(&lab, &["confirm", "--yes", "--quiet"]);
    through("in the next generation");
    assert!(is_shut(&lab.peer, SERVER, UNLISTED));
}
