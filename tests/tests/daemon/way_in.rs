//! A change requires `--yes` if it cuts the operator's own session, or a live flow on a failsafe row.

use std::{os::unix::fs::symlink, process::Output};

use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, LISTED_OUT, Lab, PEER, SERVER, STRANGER, Settings, UNLISTED, binary, is_shut,
    opens,
};

use super::cli::{done, json, said};

/// The failsafe row: no other row lets the peer reach this port.
const WAY_IN: &str = "[[allow]]\nname = \"ops\"\nfrom = [\"10.77.0.2\"]\nto = [\"server\"]\nprotocol = \"tcp\"\n\
                      ports = \"9000\"\nfailsafe = true\n";

/// Asserts that a verb was refused to protect the operator's access: exit code 3, and these words in the
/// first line.
fn stopped(output: &Output, words: &str) {
    let all = said(output);
    assert_eq!(output.status.code(), Some(3), "{all}");
    let first = all.lines().next().unwrap_or_default();
    assert!(first.contains("refused") && first.contains(words), "{all}");
    assert!(all.contains("--yes"), "{all}");
}

/// Runs a verb as if typed in this SSH session.
fn typed_from(lab: &Lab, session: &str, verb: &[&str]) -> Output {
    lab.pomguard_command(verb).env("SSH_CONNECTION", session).output().unwrap()
}

#[test]
fn live_flow_on_a_failsafe_row_that_leaves_stops_a_change() {
    let Some(lab) = Lab::new("live_flow_on_a_failsafe_row_that_leaves_stops_a_change") else { return };
    lab.write_site(WAY_IN);
    let _daemon = Daemon::start(&lab);
    let mut session = Connection::open(&lab.peer, SERVER, UNLISTED);
    assert!(session.answers());
    let generation = lab.stats().generation();
    lab.write_site(&WAY_IN.replace("10.77.0.2", "10.77.0.22"));
    for verb in [&["apply", "--quiet"][..], &["apply", "--quiet", "--confirm-within", "60s"]] {
        stopped(&lab.pomguard(verb), "failsafe row that leaves");
    }
    assert_eq!(lab.stats().generation(), generation, "nothing was changed");
    assert!(session.answers());

    done(&lab, &["apply", "--confirm-within", "120s", "--yes", "--quiet"]);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED));
    stopped(&lab.pomguard(&["confirm", "--quiet"]), "failsafe row that leaves");
    assert_eq!(json(&lab, &["status"])["confirmed"], false);
    done(&lab, &["rollback", "--quiet"]);
    assert!(session.answers() && opens(&lab.peer, SERVER, UNLISTED));

    // An exception or an ordinary row that covers the flow is enough.
    let service = format!("{UNLISTED}/tcp");
    done(&lab, &["allow", &PEER.to_string(), "to", &service, "--for", "10m", "--why", "while the row moves"]);
    done(&lab, &["apply", "--quiet"]);
    assert!(session.answers());
}

#[test]
fn own_session_stops_every_verb_that_would_cut_it() {
    let Some(lab) = Lab::new("own_session_stops_every_verb_that_would_cut_it") else { return };
    lab.write_site(WAY_IN);
    let _daemon = Daemon::start(&lab);
    let (way_in, by_row, stranger) = (
        format!("{PEER} 40000 {SERVER} {UNLISTED}"),
        format!("{PEER} 40000 {SERVER} {LISTED}"),
        format!("{STRANGER} 40000 {SERVER} {UNLISTED}"),
    );
    let own = "cut your own session";

    // Lockdown: only failsafe rows hold.
    let lockdown = ["lockdown", "--for", "10m", "--why", "test", "--quiet"];
    stopped(&typed_from(&lab, &by_row, &lockdown), own);
    assert!(opens(&lab.peer, SERVER, LISTED), "nothing was changed");
    let with_yes = [&lockdown[..], &["--yes"]].concat();
    assert!(typed_from(&lab, &way_in, &with_yes).status.success());
    assert!(is_shut(&lab.peer, SERVER, LISTED));
    done(&lab, &["bypass", "--off", "--quiet"]);

    // The end of a bypass.
    done(&lab, &["bypass", "--for", "10m", "--why", "test", "--yes", "--quiet"]);
    stopped(&typed_from(&lab, &stranger, &["bypass", "--off", "--quiet"]), own);
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "the bypass goes on");
    assert!(typed_from(&lab, &by_row, &["bypass", "--off", "--quiet"]).status.success());
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));

    // A rollback to a policy that does not allow this session.
    lab.write_site(&format!("{WAY_IN}{}", WAY_IN.replace("ops", "more").replace("10.77.0.2", "10.77.0.3")));
    done(&lab, &["apply", "--quiet"]);
    stopped(&typed_from(&lab, &stranger, &["rollback", "--quiet"]), own);
    stopped(&typed_from(&lab, &stranger, &["rollback", "1", "--quiet"]), own);
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    assert!(typed_from(&lab, &stranger, &["rollback", "--yes", "--quiet"]).status.success());
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));

    // If nothing is dropped, nothing is cut.
    lab.write_settings(&Settings { inbound: "audit", ..Settings::default() });
    assert!(typed_from(&lab, &stranger, &["apply", "--quiet"]).status.success());
}

/// After `su -`, the shell's environment names no session, but the program that serves the login has the
/// socket.
#[test]
fn session_is_found_by_the_socket_of_the_program_that_serves_it() {
    let Some(lab) = Lab::new("session_is_found_by_the_socket_of_the_program_that_serves_it") else { return };
    let _daemon = Daemon::start(&lab);
    let server = lab.file("sshd-session");
    symlink("/bin/bash", &server).unwrap();
    lab.write_site("[[row]]\nid = \"pom-4.0/6\"\nenabled = false\nforce = true\n");
    let apply = |more: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/{PEER}/{LISTED_OUT} && {} apply --config {} --quiet {more}; exit $?",
            binary().display(),
            lab.config().display()
        );
        lab.command(&server).args(["-c", &script]).env_remove("SSH_CONNECTION").output().unwrap()
    };
    stopped(&apply(""), "cut your own session");
    assert!(opens(&lab.server, PEER, LISTED_OUT), "nothing was changed");
    let forced = apply("--yes");
    assert!(forced.status.success(), "{}", said(&forced));
    assert!(is_shut(&lab.server, PEER, LISTED_OUT));
}
