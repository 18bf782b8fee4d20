//! Emergency verbs while no daemon answers: the daemon is dead, stopped, or in the middle of a change.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use pomguard::{daemon::journal::message_id, state::runtime::Runtime};
use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, Lab, SERVER, STRANGER, Terminal, UNLISTED, is_shut, opens,
};
use serde_json::Value;

use super::cli::{done, json, refused, said};

/// The peer's failsafe row.
const WAY_IN: &str = "[[allow]]\nname = \"ops\"\nfrom = [\"10.77.0.2\"]\nto = [\"server\"]\nprotocol = \"tcp\"\n\
                      ports = \"9970\"\nfailsafe = true\n";

const BYPASS: [&str; 7] = ["bypass", "--for", "10m", "--yes", "--quiet", "--why", "calls are lost"];
const LOCKDOWN: [&str; 7] = ["lockdown", "--for", "10m", "--yes", "--quiet", "--why", "intruder"];

/// Time for two checks of the daemon.
const LOOKS: Duration = Duration::from_millis(1_500);
/// Longer than a verb that waits two seconds for an answer may take.
const LONG: Duration = Duration::from_secs(15);

fn granted(service: &str) -> Vec<String> {
    ["allow", &STRANGER.to_string(), "to", service, "--for", "10m", "--why", "ticket 9", "--name", "repair"]
        .map(str::to_owned)
        .to_vec()
}

/// Returns the emergency verbs in the history.
fn verbs(lab: &Lab) -> Vec<String> {
    let events = json(lab, &["history", "--emergency"]);
    events.as_array().unwrap().iter().map(|it| it["verb"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a condition holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Returns a socket at the journal's path, visible only to this thread and its children.
fn journal() -> UnixDatagram {
    let folder = "/run/systemd/journal";
    fs::create_dir_all(folder).unwrap();
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let socket = UnixDatagram::bind(format!("{folder}/socket")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn entry(journal: &UnixDatagram) -> String {
    let mut buffer = [0; 4_096];
    let length = journal.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn bypass_and_lockdown_work_with_the_daemon_dead() {
    let Some(lab) = Lab::new("bypass_and_lockdown_work_with_the_daemon_dead") else { return };
    lab.write_site(WAY_IN);
    Daemon::start(&lab).kill();
    let journal = journal();
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));

    assert!(done(&lab, &BYPASS).contains("no daemon runs: done without it"));
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "nothing is dropped");
    let entry = entry(&journal);
    assert!(entry.contains("PRIORITY=3\n") && entry.contains("MESSAGE=uid 0 pid "), "{entry}");
    assert!(entry.contains("bypass; reason: calls are lost; done without the daemon"), "{entry}");
    for field in [
        format!("MESSAGE_ID={}\n", message_id::EMERGENCY),
        "POMGUARD_VERB=bypass\nPOMGUARD_OUTCOME=done\nPOMGUARD_UID=0\n".to_owned(),
        "POMGUARD_WHY=calls are lost\n".to_owned(),
    ] {
        assert!(entry.contains(&field), "{field} in {entry}");
    }
    let status = json(&lab, &["status"]);
    assert_eq!(
        (status["suspension"]["kind"].as_str(), status["suspension"]["by"]["uid"].as_u64()),
        (Some("bypass"), Some(0))
    );
    assert_eq!(status["suspension"]["why"], "calls are lost");
    assert!(status["suspension"]["since"].is_u64() && status["suspension"]["ends"].is_u64(), "{status}");
    assert!(said(&lab.pomguard(&["status"])).contains("calls are lost"));

    // The next daemon continues the bypass, and knows everything that was recorded about it.
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    assert_eq!(json(&lab, &["status"])["suspension"]["why"], "calls are lost");
    done(&lab, &LOCKDOWN);
    daemon.kill();
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED) && opens(&lab.peer, SERVER, LISTED));
    done(&lab, &["bypass", "--off", "--yes", "--quiet"]);
    assert!(json(&lab, &["status"])["suspension"].is_null());
    assert!(
        refused(&lab, &["bypass", "--off", "--yes", "--quiet"]).contains("neither a bypass nor a lockdown")
    );
    let _daemon = Daemon::start(&lab);
    thread::sleep(LOOKS);
    assert!(json(&lab, &["status"])["suspension"].is_null());
    assert_eq!(verbs(&lab), ["bypass", "lockdown", "off"]);
}

#[test]
fn exceptions_work_with_the_daemon_dead() {
    let Some(lab) = Lab::new("exceptions_work_with_the_daemon_dead") else { return };
    Daemon::start(&lab).kill();
    let service = format!("{UNLISTED}/tcp");
    let allow = granted(&service);
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    assert!(done(&lab, &allow).contains("exception/repair holds"));
    assert!(opens(&lab.stranger, SERVER, UNLISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(refused(&lab, &allow).contains("there is an exception repair already"));
    let check = |when: &str| {
        let listed = json(&lab, &["allow", "--list"]);
        assert_eq!(
            (listed[0]["id"].as_str(), listed[0]["why"].as_str()),
            (Some("exception/repair"), Some("ticket 9"))
        );
        assert_eq!(listed[0]["by"]["uid"], 0, "{when}");
        let (since, ends) = (listed[0]["since"].as_u64().unwrap(), listed[0]["ends"].as_u64().unwrap());
        assert!((595..=605).contains(&(ends - since)), "{when}: {listed}");
        let text = done(&lab, &["allow", "--list"]);
        for words in ["ticket 9", "by uid 0", "since 2", "until 2"] {
            assert!(text.contains(words), "{when}: {words}: {text}");
        }
    };
    check("without a daemon");
    let mut through = Connection::open(&lab.stranger, SERVER, UNLISTED);
    let daemon = Daemon::start(&lab);
    check("with the next one");
    assert!(through.answers(), "the next daemon has it");
    daemon.kill();
    assert!(done(&lab, &["revoke", "repair", "--why", "done"]).contains("exception/repair is over"));
    assert!(through.is_cut() && is_shut(&lab.stranger, SERVER, UNLISTED));
    assert_eq!(json(&lab, &["allow", "--list"]), Value::Array(vec![]));
    let _daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "a start does not bring it back");
    assert_eq!(verbs(&lab), ["allow", "revoke"]);
}

#[test]
fn bypass_and_lockdown_work_with_the_daemon_stopped() {
    let Some(lab) = Lab::new("bypass_and_lockdown_work_with_the_daemon_stopped") else { return };
    lab.write_site(WAY_IN);
    let daemon = Daemon::start(&lab);
    // It stops between two checks: one that is under way would undo the bypass for a moment.
    let between = Runtime::new(&lab.runtime()).change().unwrap();
    daemon.signal(Signal::SIGSTOP);
    drop(between);
    let begun = Instant::now();
    assert!(done(&lab, &BYPASS).contains("does not answer within 2 s"));
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    let allow = granted("22/tcp");
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    assert!(refused(&lab, &allow).contains("systemctl restart pomguard"));
    assert!(refused(&lab, &["revoke", "repair"]).contains("systemctl restart pomguard"));

    // A daemon that continues adopts the bypass, and does not carry out the requests that were sent while it
    // was stopped.
    let deadline = json_ends(&lab);
    daemon.signal(Signal::SIGCONT);
    daemon.wait_log("asked too long ago");
    thread::sleep(LOOKS);
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "{}", daemon.log());
    assert!(daemon.log().contains("bypass began while this daemon did not answer"), "{}", daemon.log());
    assert!(!daemon.log().contains("put back as it was installed"), "{}", daemon.log());
    let status = json(&lab, &["status"]);
    assert_eq!(
        (status["suspension"]["why"].as_str(), status["exceptions"].as_array().unwrap().len()),
        (Some("calls are lost"), 0)
    );
    assert!(json_ends(&lab).abs_diff(deadline) <= 1, "not begun anew");

    daemon.signal(Signal::SIGSTOP);
    done(&lab, &LOCKDOWN);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED) && opens(&lab.peer, SERVER, LISTED));
    done(&lab, &["bypass", "--off", "--yes", "--quiet"]);
    daemon.signal(Signal::SIGCONT);
    thread::sleep(LOOKS);
    assert!(json(&lab, &["status"])["suspension"].is_null(), "{}", daemon.log());
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "the policy holds");
    assert_eq!(verbs(&lab), ["bypass", "lockdown", "off"]);
}

/// Returns the end of the suspension in seconds since 1970, from the kernel's maps alone.
fn json_ends(lab: &Lab) -> u64 {
    let pins = pomguard::kernel::pins::Pins::new(lab.pins());
    pomguard::observe::in_force::status(&pins, &[]).unwrap().suspension.unwrap().ends.unwrap()
}

#[test]
fn bypass_works_in_the_middle_of_a_change() {
    let Some(lab) = Lab::new("bypass_works_in_the_middle_of_a_change") else { return };
    let daemon = Daemon::start(&lab);
    // The holder of this lock keeps the daemon in the middle of a change.
    let lock = Runtime::new(&lab.runtime()).change().unwrap();
    lab.write_site("[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n");
    let mut apply = lab.pomguard_command(&["apply", "--quiet"]).spawn().unwrap();
    daemon.wait_log(": apply; reason");
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    assert!(done(&lab, &BYPASS).contains("does not answer within 2 s"));
    assert!(begun.elapsed() < LONG);
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    let allow = granted("22/tcp");
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    assert!(refused(&lab, &allow).contains("systemctl restart pomguard"));
    drop(lock);
    assert!(apply.wait().unwrap().success(), "the change goes on");
    thread::sleep(LOOKS);
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "and the bypass with it: {}", daemon.log());
    eventually("it answers", || json(&lab, &["status"])["suspension"]["why"] == "calls are lost");
    done(&lab, &["bypass", "--off", "--yes", "--quiet"]);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));

    // A process other than the daemon holds the lock.
    daemon.kill();
    let lock = Runtime::new(&lab.runtime()).change().unwrap();
    done(&lab, &BYPASS);
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    assert!(refused(&lab, &allow).contains("does not answer"));
    drop(lock);
    done(&lab, &["bypass", "--off", "--yes", "--quiet"]);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));
}

#[test]
fn required_options_are_in_the_usage_line() {
    let Some(lab) = Lab::new("required_options_are_in_the_usage_line") else { return };
    for (verb, words) in [
        (&["allow"][..], &["--for <TIME>", "--why <TEXT>", "--list"][..]),
        (&["bypass"], &["--for <TIME>", "--off"]),
        (&["allow", "--help"], &["--for <TIME> --why <TEXT>"]),
    ] {
        let mut command = lab.command(pomguard_tests::daemon::binary());
        let output = command.args(verb).output().unwrap();
        let all = said(&output);
        let usage = all.split("Usage:").nth(1).unwrap_or_else(|| panic!("{all}"));
        assert_eq!(output.status.code(), Some(if verb.contains(&"--help") { 0 } else { 2 }));
        for word in words {
            assert!(usage.lines().take(3).any(|line| line.contains(word)), "{verb:?}: {word}: {all}");
        }
    }
}

/// A bypass asks nobody when it ends: the flows that the policy then cuts are named before.
#[test]
fn flows_that_end_with_a_bypass_are_named_before() {
    let Some(lab) = Lab::new("flows_that_end_with_a_bypass_are_named_before") else { return };
    let daemon = Daemon::start(&lab);
    let mut terminal = Terminal::open();
    done(&lab, &["bypass", "--for", "12s", "--yes", "--quiet", "--why", "calls are lost"]);
    let mut cut = Connection::open(&lab.stranger, SERVER, UNLISTED);
    let mut kept = Connection::open(&lab.peer, SERVER, LISTED);
    let status = json(&lab, &["status"]);
    let flows = &status["flows"];
    assert_eq!(flows["after_bypass"], true, "{flows:#}");
    let of = |fate: &str| {
        let groups = flows["impact"]["groups"].as_array().unwrap();
        groups.iter().find(|group| group["fate"] == fate).unwrap_or_else(|| panic!("{flows:#}")).clone()
    };
    assert_eq!((&of("cut-now")["source"], &of("cut-now")["port"]), (&"10.77.0.3".into(), &UNLISTED.into()));
    assert_eq!(of("unaffected")["source"], "10.77.0.2");
    let text = String::from_utf8_lossy(&lab.pomguard(&["status"]).stdout).into_owned();
    assert!(text.contains("flows, when the bypass ends") && text.contains("inbound 10.77.0.3 to"), "{text}");

    daemon.wait_log("the bypass ends in");
    terminal.wait_for("the policy then cuts inbound 10.77.0.3 to 10.77.0.1 9000/tcp, 1 flow");
    assert!(cut.answers(), "the notice comes before the end");
    eventually("the bypass is over", || cut.is_cut());
    assert!(kept.answers());
    assert_eq!(daemon.log().matches("the bypass ends in").count(), 1, "{}", daemon.log());
}

/// The folder of the pins takes a restart to change: until then the files name another one than the daemon has.
#[test]
fn detach_by_other_pins_claims_no_open_host() {
    let Some(lab) = Lab::new("detach_by_other_pins_claims_no_open_host") else { return };
    let daemon = Daemon::start(&lab);
    let files = fs::read_to_string(lab.config()).unwrap();
    let pins = lab.pins().display().to_string();
    let moved = files.replace(&pins, &format!("{pins}-2"));
    let (state, runtime) = (lab.state().display().to_string(), lab.runtime().display().to_string());
    // The record of the start and the history tell the folders in use: without both nothing does.
    let all = moved.replace(&state, &format!("{state}-2")).replace(&runtime, &format!("{runtime}-2"));
    fs::write(lab.config(), all).unwrap();
    for alive in [true, false] {
        let told = refused(&lab, &["detach", "--yes"]);
        assert!(told.contains("eth0 runs the XDP program") && !told.contains("are gone"), "{alive}: {told}");
        assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "alive {alive}: the host is closed");
        thread::sleep(LOOKS);
        assert!(!lab.runtime().join("detached").exists(), "alive {alive}: and the daemon guards it");
        if alive {
            assert!(!json(&lab, &["status"])["attention"].to_string().contains("detached"));
            daemon.signal(Signal::SIGSTOP);
        }
    }
    daemon.kill();
    fs::write(lab.config(), moved).unwrap();
    assert!(done(&lab, &["detach", "--yes"]).contains("eth0: detached"));
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
}

/// A folder that somebody else created, such as tmpfiles.d for the sandbox of the service, is needed at the next start.
#[test]
fn detach_removes_the_folder_of_pins_that_pomguard_created() {
    let Some(lab) = Lab::new("detach_removes_the_folder_of_pins_that_pomguard_created") else { return };
    for (created_before, foreign) in [(false, false), (true, false), (false, true)] {
        if created_before {
            fs::create_dir(lab.pins()).unwrap();
        }
        let daemon = Daemon::start(&lab);
        if foreign {
            fs::create_dir(lab.pins().join("theirs")).unwrap();
        }
        assert!(daemon.stop().success());
        done(&lab, &["detach", "--yes"]);
        assert_eq!(lab.pins().exists(), created_before || foreign, "{created_before} {foreign}");
        if lab.pins().exists() {
            let left: Vec<_> = fs::read_dir(lab.pins()).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left.len(), usize::from(foreign), "{left:?}");
            for path in left {
                fs::remove_dir(path).unwrap();
            }
            fs::remove_dir(lab.pins()).unwrap();
        }
    }
}

/// Until a restart the daemon has the folders with which it started.
#[test]
fn emergencies_find_the_folders_in_use() {
    let Some(lab) = Lab::new("emergencies_find_the_folders_in_use") else { return };
    let daemon = Daemon::start(&lab);
    let files = fs::read_to_string(lab.config()).unwrap();
    let (pins, runtime) = (lab.pins().display().to_string(), lab.runtime().display().to_string());
    let moved = files.replace(&pins, &format!("{pins}-2")).replace(&runtime, &format!("{runtime}-2"));
    fs::write(lab.config(), moved).unwrap();
    for alive in [true, false] {
        if !alive {
            daemon.signal(Signal::SIGSTOP);
        }
        let output = lab.pomguard(&BYPASS);
        let warning = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && warning.contains("from the next start"),
            "alive {alive}: {warning}"
        );
        thread::sleep(LOOKS);
        assert!(opens(&lab.stranger, SERVER, UNLISTED), "alive {alive}: {}", daemon.log());
        done(&lab, &["bypass", "--off", "--yes", "--quiet"]);
        assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "alive {alive}");
        if alive {
            done(
                &lab,
                &["allow", "192.0.2.66", "to", "7700/tcp", "--for", "1h", "--why", "x", "--name", "late"],
            );
            thread::sleep(LOOKS);
            assert_eq!(json(&lab, &["allow", "--list"])[0]["id"], "exception/late");
            done(&lab, &["revoke", "late"]);
        }
    }
    daemon.signal(Signal::SIGCONT);
    thread::sleep(LOOKS);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "{}", daemon.log());
    assert!(!Path::new(&format!("{runtime}-2")).exists(), "nothing was written to the other folder");
}

/// After a restart the folders of the files are those in use, although the policy is the same as before, or that of the
/// history because the site file is broken.
#[test]
fn emergencies_find_the_folders_of_the_last_start() {
    for site in [None, Some("broken")] {
        let Some(lab) = Lab::new("emergencies_find_the_folders_of_the_last_start") else { return };
        Daemon::start(&lab).kill();
        let files = fs::read_to_string(lab.config()).unwrap();
        let runtime = lab.runtime().display().to_string();
        fs::write(lab.config(), files.replace(&runtime, &format!("{runtime}-2"))).unwrap();
        if let Some(text) = site {
            lab.write_site(text);
        }
        let daemon = Daemon::start(&lab);
        for alive in [true, false] {
            if !alive {
                daemon.signal(Signal::SIGSTOP);
            }
            let output = lab.pomguard(&BYPASS);
            let warning = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{site:?}, alive {alive}: {warning}");
            assert!(!warning.contains("next start"), "{site:?}, alive {alive}: {warning}");
            thread::sleep(LOOKS);
            assert!(opens(&lab.stranger, SERVER, UNLISTED), "{site:?}, alive {alive}: {}", daemon.log());
            done(&lab, &["bypass", "--off", "--yes", "--quiet"]);
        }
        daemon.signal(Signal::SIGCONT);
        thread::sleep(LOOKS);
        assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "{site:?}: {}", daemon.log());
    }
}
