//! Temporary state alongside the policy: timed exceptions and panic, which the programs end by themselves.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MsFlags, mount};
use pomguard::kernel::{control, pins::Pins};
use pomguard_common::control::Timed;
use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, Lab, PEER, REMOVABLE, SERVER, STRANGER, Settings, UNLISTED, emulated,
    is_shut, opens,
};
use serde_json::Value;

use super::{
    cli::{done, json, refused, said},
    watch::{repairs, wait_until as wait_until_it_is},
};

/// The peer's failsafe row.
const WAY_IN: &str = "[[allow]]\nname = \"ops\"\nfrom = [\"10.77.0.2\"]\nto = [\"server\"]\nprotocol = \"tcp\"\n\
                      ports = \"9970\"\nfailsafe = true\n";

fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// A timed state ends by the clock of the kernel that runs the programs.
#[test]
fn basic_timed_states_end_on_time_with_the_daemon_dead() {
    let name = "basic_timed_states_end_on_time_with_the_daemon_dead";
    let Some(lab) = Lab::new(name) else { return };
    lab.write_site(WAY_IN);
    let daemon = Daemon::start(&lab);
    let (short, long) = if emulated() { (30, 90) } else { (10, 18) };
    let [panic_for, others_for] = [short, long].map(|seconds| format!("{seconds}s"));
    let [short, long] = [short, long].map(Duration::from_secs);
    let (from, service) = (STRANGER.to_string(), format!("{UNLISTED}/tcp"));
    let begun = Instant::now();
    done(&lab, &["allow", &from, "to", &service, "--for", &others_for, "--why", "ticket 9"]);
    lab.write_site(&format!("{WAY_IN}[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n"));
    done(&lab, &["apply", "--confirm-within", &others_for, "--quiet"]);
    let panicked = Instant::now();
    done(&lab, &["lockdown", "--for", &panic_for, "--why", "intruder", "--yes", "--quiet"]);
    let set = Instant::now();
    daemon.kill();

    let in_time = |since: Instant, within: Duration| {
        assert!(since.elapsed() < within, "the machine was too slow to look in time: {:?}", since.elapsed());
    };
    assert!(opens(&lab.peer, SERVER, LISTED), "the failsafe row holds");
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "panic: the exception does not");
    in_time(panicked, short);
    wait_until(set + short + Duration::from_secs(1));
    assert!(opens(&lab.stranger, SERVER, UNLISTED), "the panic is over: the exception holds");
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "and the new policy");
    in_time(begun, long);
    wait_until(set + long + Duration::from_secs(1));
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "the exception is over");
    assert!(opens(&lab.peer, SERVER, REMOVABLE), "the old policy is back");
    assert_eq!(json(&lab, &["status"])["confirmed"], true);
}

#[test]
fn exception_holds_in_every_generation_and_ends_by_itself() {
    let name = "exception_holds_in_every_generation_and_ends_by_itself";
    let Some(lab) = Lab::new(name) else { return };
    let daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));
    let from = STRANGER.to_string();
    let service = format!("{UNLISTED}/tcp");
    let granted = Instant::now();
    let allow = ["allow", &from, "to", &service, "--for", "20s", "--why", "ticket 9", "--name", "repair"];
    assert!(done(&lab, &allow).contains("exception/repair holds"));
    let mut through = Connection::open(&lab.stranger, SERVER, UNLISTED);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED), "it is for one address");
    daemon.reload();
    assert!(through.answers(), "it holds in the next generation too");
    let stats = lab.stats();
    assert!(stats.row("exception/repair", "inbound", "packets") > 0, "counted under its own name:\n{stats}");
    assert!(stats.reason("exception", "inbound", "pass") > 0, "{stats}");
    let listed = json(&lab, &["allow", "--list"]);
    assert_eq!(listed[0]["id"], "exception/repair");
    assert!(refused(&lab, &allow).contains("there is an exception repair already"));
    daemon.kill();
    assert!(granted.elapsed() < Duration::from_secs(19), "the machine was too slow to look in time");
    assert!(through.answers(), "with the daemon dead");
    wait_until(granted + Duration::from_secs(21));
    assert!(through.is_cut(), "its time is up, and nobody lives to end it");
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));
    assert_eq!(json(&lab, &["allow", "--list"]), Value::Array(vec![]));
    let _daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "a start does not bring it back");
}

#[test]
fn exception_accepts_the_machine_names_of_the_site_file() {
    let Some(lab) = Lab::new("exception_accepts_the_machine_names_of_the_site_file") else {
        return;
    };
    lab.write_site("[[peer]]\nname = \"jump\"\naddresses = [\"10.77.0.3\"]\n");
    let _daemon = Daemon::start(&lab);
    let service = format!("{UNLISTED}/tcp");
    let held = ["--for", "1h", "--why", "ticket 9"];
    let said_of = |from: &str| said(&lab.pomguard(&[&["allow", from, "to", &service][..], &held].concat()));
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && is_shut(&lab.stranger, SERVER, UNLISTED));
    let message = said_of("Agent Desktop");
    assert!(message.contains("for 10.77.0.2/32, fd00:77::2/128"), "a system's machines: {message}");
    assert!(opens(&lab.peer, SERVER, UNLISTED) && is_shut(&lab.stranger, SERVER, UNLISTED));
    let message = said_of("jump");
    assert!(message.contains("for 10.77.0.3/32:"), "a peer entry's: {message}");
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    let message = said_of("Agent Desktp");
    assert!(message.contains("Agent Desktp: ") && message.contains("write \"Agent Desktop\""), "{message}");
    let message = said_of("server");
    assert!(message.contains("no address of another machine"), "not this server itself: {message}");
    assert_eq!(json(&lab, &["allow", "--list"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn exception_survives_a_restart_and_can_be_revoked() {
    let Some(lab) = Lab::new("exception_survives_a_restart_and_can_be_revoked") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let service = format!("{UNLISTED}/tcp");
    let to = PEER.to_string();
    assert!(is_shut(&lab.server, PEER, UNLISTED), "outbound enforce");
    done(&lab, &["allow", &to, &service, "--out", "--for", "1h", "--why", "import"]);
    assert!(opens(&lab.server, PEER, UNLISTED));
    assert!(daemon.stop().success());
    // The pins are gone, too, as after a reboot. Only the boot id is still the same.
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.server, PEER, UNLISTED), "brought back from disk");
    assert!(done(&lab, &["revoke", "1"]).contains("exception/1 is over"));
    assert!(is_shut(&lab.server, PEER, UNLISTED));
    assert!(refused(&lab, &["revoke", "1"]).contains("no exception 1"));
    for (wrong, why, code) in [
        (["allow", "0.0.0.0/0", "22/tcp", "--for", "1h", "--why", "x"], "every address there is", 1),
        (["allow", "10.1.0.0/16", "22/tcp", "--for", "60d", "--why", "x"], "at most 30 d", 2),
        (["allow", "10.1.0.0/16", "any/tcp", "--for", "1h", "--why", "x"], "any", 2),
    ] {
        let output = lab.pomguard(&wrong);
        assert!(said(&output).contains(why), "{wrong:?}: {}", said(&output));
        assert_eq!(output.status.code(), Some(code), "{wrong:?}: {}", said(&output));
    }
}

#[test]
fn lockdown_leaves_failsafe_rows_and_ends_with_the_daemon_dead() {
    let name = "lockdown_leaves_failsafe_rows_and_ends_with_the_daemon_dead";
    let Some(lab) = Lab::new(name) else { return };
    lab.write_site(WAY_IN);
    let daemon = Daemon::start(&lab);
    let mut way_in = Connection::open(&lab.peer, SERVER, LISTED);
    let mut call = Connection::open(&lab.peer, SERVER, REMOVABLE);
    assert!(call.answers());
    let begun = Instant::now();
    let isolate = ["lockdown", "--for", "20s", "--why", "intruder", "--quiet"];
    assert!(refused(&lab, &isolate).contains("say --yes"), "nobody is there to be asked");
    done(&lab, &[&isolate[..], &["--yes"]].concat());
    assert!(call.is_cut(), "not even what the policy allows");
    assert!(way_in.answers(), "the failsafe row holds");
    let status = json(&lab, &["status"]);
    assert_eq!(status["suspension"]["kind"], "lockdown");
    assert!(lab.stats().reason("isolated", "inbound", "drop") > 0);
    let log = daemon.log();
    assert!(log.contains("lockdown for") && log.contains("intruder"), "{log}");
    daemon.kill();
    assert!(begun.elapsed() < Duration::from_secs(19), "the machine was too slow to look in time");
    assert!(call.is_cut() && way_in.answers(), "with the daemon dead");
    wait_until(begun + Duration::from_secs(21));
    // TCP repeats the segments that were sent during the panic at ever longer intervals. A new connection
    // shows the end sooner.
    assert!(opens(&lab.peer, SERVER, REMOVABLE), "it is over by itself");
    assert_eq!(json(&lab, &["status"])["suspension"], Value::Null);
}

#[test]
fn bypass_drops_nothing_and_counts_everything_until_ended() {
    let Some(lab) = Lab::new("bypass_drops_nothing_and_counts_everything_until_ended") else {
        return;
    };
    let _daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));
    done(&lab, &["bypass", "--for", "10m", "--why", "calls lost", "--yes", "--quiet"]);
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    let stats = lab.stats();
    assert!(stats.reason("port", "inbound", "audit") > 0, "counted as it would have been judged:\n{stats}");
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3));
    assert!(said(&status).contains("ATTENTION: bypass"), "{}", said(&status));
    assert!(done(&lab, &["bypass", "--off", "--quiet"]).contains("the policy holds again"));
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));
    assert!(refused(&lab, &["bypass", "--off", "--quiet"]).contains("neither a bypass nor"));
    assert!(lab.pomguard(&["status"]).status.success());
}

#[test]
fn suspension_and_grace_leave_nothing_in_the_maps() {
    let Some(lab) = Lab::new("suspension_and_grace_leave_nothing_in_the_maps") else {
        return;
    };
    lab.write_settings(&Settings { grace: "3s", ..Settings::default() });
    let mut call = Connection::open(&lab.peer, SERVER, LISTED);
    let daemon = Daemon::start(&lab);
    let pins = Pins::new(lab.pins());
    assert_ne!(control::grace(&pins).unwrap(), Timed::NONE, "{}", daemon.log());
    wait_until_it_is("no word of grace", &daemon, || control::grace(&pins).unwrap() == Timed::NONE);
    for _ in 0..2 {
        done(&lab, &["panic", "open", "--for", "3s", "--why", "calls lost", "--yes", "--quiet"]);
        assert_ne!(control::suspension(&pins).unwrap(), Timed::NONE);
        assert!(opens(&lab.stranger, SERVER, UNLISTED), "it holds");
        wait_until_it_is("no word of a suspension", &daemon, || {
            control::suspension(&pins).unwrap() == Timed::NONE
        });
        assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "the policy holds again");
    }
    assert!(call.answers());
    assert_eq!(repairs(&lab, "control"), 0, "what was cleared counts as in order");
}

/// Mounts a small disk, which only this thread and its children see, on a folder.
fn small_disk(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    mount(Some("small"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=512k,mode=755")).unwrap();
}

/// Fills the disk of a folder to the last byte. Removing the file makes room again.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

#[test]
fn suspension_on_a_full_disk_outlives_a_start() {
    let Some(lab) = Lab::new("suspension_on_a_full_disk_outlives_a_start") else { return };
    lab.write_site(WAY_IN);
    small_disk(&lab.runtime());
    let mut daemon = Daemon::start(&lab);
    let bypass = ["bypass", "--for", "1h", "--yes", "--quiet"];
    let lockdown = ["lockdown", "--for", "1h", "--yes", "--quiet"];
    for alone in [false, true] {
        done(&lab, &bypass);
        let filler = fill(&lab.runtime());
        if alone {
            daemon.kill();
            done(&lab, &lockdown);
        } else {
            done(&lab, &lockdown);
            daemon.kill();
        }
        assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "alone {alone}: the lockdown holds");
        daemon = Daemon::start(&lab);
        assert_eq!(json(&lab, &["status"])["suspension"]["kind"], "lockdown", "alone {alone}: no bypass");
        assert!(is_shut(&lab.peer, SERVER, REMOVABLE) && is_shut(&lab.stranger, SERVER, UNLISTED));
        assert!(opens(&lab.peer, SERVER, LISTED), "the failsafe row");
        fs::remove_file(filler).unwrap();
        done(&lab, &["lockdown", "--off", "--yes", "--quiet"]);
    }
}

#[test]
fn revoked_exception_on_a_full_disk_stays_revoked() {
    let Some(lab) = Lab::new("revoked_exception_on_a_full_disk_stays_revoked") else { return };
    small_disk(&lab.state());
    let mut daemon = Daemon::start(&lab);
    let service = format!("{UNLISTED}/tcp");
    let allow = |from: &str, name: &str| {
        let words = ["allow", from, "to", &service, "--for", "1h", "--why", "x", "--name", name];
        done(&lab, &words)
    };
    allow(&PEER.to_string(), "kept");
    for alone in [false, true] {
        allow(&STRANGER.to_string(), "short");
        assert!(opens(&lab.stranger, SERVER, UNLISTED));
        let filler = fill(&lab.state());
        if alone {
            daemon.kill();
            done(&lab, &["revoke", "short"]);
        } else {
            done(&lab, &["revoke", "short"]);
            daemon.kill();
        }
        daemon = Daemon::start(&lab);
        assert!(is_shut(&lab.stranger, SERVER, UNLISTED), "alone {alone}: a start does not grant it again");
        assert!(opens(&lab.peer, SERVER, UNLISTED), "the other one holds");
        let names = json(&lab, &["allow", "--list"]);
        assert_eq!((&names[0]["id"], &names[1]), (&"exception/kept".into(), &Value::Null), "{names}");
        fs::remove_file(filler).unwrap();
    }
}

#[test]
fn exceptions_that_the_disk_refused_are_written_later() {
    let Some(lab) = Lab::new("exceptions_that_the_disk_refused_are_written_later") else { return };
    small_disk(&lab.state());
    let daemon = Daemon::start(&lab);
    let filler = fill(&lab.state());
    let (from, service) = (STRANGER.to_string(), format!("{UNLISTED}/tcp"));
    done(&lab, &["allow", &from, "to", &service, "--for", "1h", "--why", "x", "--name", "late"]);
    let unsaved = || json(&lab, &["status"])["attention"].to_string().contains("the exceptions on disk");
    assert!(opens(&lab.stranger, SERVER, UNLISTED) && unsaved(), "it holds, and status names the disk");
    fs::remove_file(filler).unwrap();
    wait_until_it_is("saved after all", &daemon, || !unsaved());
    daemon.kill();
    let _daemon = Daemon::start(&lab);
    done(&lab, &["revoke", "late"]);
    assert!(is_shut(&lab.stranger, SERVER, UNLISTED));
}
