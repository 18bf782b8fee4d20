//! The control socket: changes through the daemon, confirmed or not, and the users who may request them.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
    unistd::Group,
};
use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, Lab, REMOVABLE, SERVER, Settings, Terminal, UNLISTED, is_shut, opens,
};
use serde_json::Value;

use super::{
    cli::{done, json, refused, said},
    watch::wait_until,
};

/// Disables row 16.
const WITHOUT_REMOVABLE: &str = "[[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n";

/// Returns the outcome of each change, oldest first.
fn outcomes(lab: &Lab) -> Vec<String> {
    let name = |record: &Value| match &record["outcome"] {
        Value::String(word) => word.clone(),
        object => object.as_object().and_then(|it| it.keys().next()).cloned().unwrap_or_default(),
    };
    json(lab, &["history"]).as_array().unwrap().iter().map(name).collect()
}

/// Waits until `holds` returns true.
fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_apply_that_is_confirmed_stays_and_both_are_in_the_history() {
    let Some(lab) = Lab::new("an_apply_that_is_confirmed_stays_and_both_are_in_the_history") else { return };
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, REMOVABLE));
    lab.write_site(WITHOUT_REMOVABLE);
    let changed = json(&lab, &["apply", "--confirm-within", "30s", "--why", "ticket 7", "--quiet"]);
    assert_eq!(changed["number"], 2);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "in force at once");
    let status = json(&lab, &["status"]);
    assert_eq!((&status["confirmed"], status["rollback_at"].is_u64()), (&Value::Bool(false), true));
    assert_eq!(lab.pomguard(&["status"]).status.code(), Some(3), "a confirmation is due");
    assert_eq!(outcomes(&lab), ["in-force", "pending"]);
    let log = daemon.log();
    assert!(log.contains("uid 0 pid ") && log.contains("ticket 7"), "who and why are in the log:\n{log}");

    assert!(refused(&lab, &["apply", "--quiet"]).contains("change 2 waits for its confirmation"));
    done(&lab, &["confirm", "--quiet"]);
    assert_eq!(outcomes(&lab), ["replaced", "in-force"]);
    let status = lab.pomguard(&["status"]);
    assert!(status.status.success(), "all is as it should be: {}", said(&status));
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE) && opens(&lab.peer, SERVER, LISTED));
    let again = json(&lab, &["confirm", "--quiet"]);
    assert_eq!(
        (&again["changed"], &again["number"]),
        (&Value::Bool(false), &2.into()),
        "nothing waits: {again}"
    );
    let history = json(&lab, &["history"]);
    assert_eq!((history[1]["why"].as_str(), history[1]["by"]["uid"].as_u64()), (Some("ticket 7"), Some(0)));
    assert_eq!(history[1]["summary"]["removed"], 1);
}

#[test]
fn unconfirmed_apply_is_rolled_back_on_time_and_recorded() {
    let Some(lab) = Lab::new("unconfirmed_apply_is_rolled_back_on_time_and_recorded") else { return };
    let daemon = Daemon::start(&lab);
    let before = lab.stats().image();
    lab.write_site(WITHOUT_REMOVABLE);
    let mut terminal = Terminal::open();
    let started = Instant::now();
    json(&lab, &["apply", "--confirm-within", "12s", "--quiet"]);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE));
    daemon.wait_log("because nobody confirmed it in time");
    terminal.wait_for(
        "pomguard: change 2 was taken back because nobody confirmed it in time: the policy before it",
    );
    eventually("status says so", Duration::from_secs(2), || {
        let status = lab.pomguard(&["status"]);
        status.status.code() == Some(3)
            && said(&status).contains("change 2 was taken back because nobody confirmed it")
    });
    assert!(started.elapsed() >= Duration::from_secs(12), "not before its time");
    eventually("the record says so", Duration::from_secs(5), || {
        outcomes(&lab) == ["in-force", "not-confirmed"]
    });
    assert!(opens(&lab.peer, SERVER, REMOVABLE), "the old policy is back");
    assert_eq!(lab.stats().image(), before);
    assert!(refused(&lab, &["confirm", "--quiet"]).contains("too late: change 2 was taken back"));
    // A start does not apply the rejected files by itself; an operator can.
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&lab);
    assert!(daemon.log().contains("those of change 2, which was taken back"), "{}", daemon.log());
    assert!(opens(&lab.peer, SERVER, REMOVABLE), "still the old policy");
    assert!(refused(&lab, &["confirm", "--quiet"]).contains("too late"), "it is late after a restart, too");
    done(&lab, &["apply", "--quiet"]);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE));
}

/// The rollback at the deadline happens in the kernel and needs no living process.
#[test]
fn the_old_policy_is_back_on_time_with_the_daemon_dead() {
    let Some(lab) = Lab::new("the_old_policy_is_back_on_time_with_the_daemon_dead") else { return };
    let daemon = Daemon::start(&lab);
    let mut kept = Connection::open(&lab.peer, SERVER, LISTED);
    let mut cut = Connection::open(&lab.peer, SERVER, REMOVABLE);
    lab.write_site(WITHOUT_REMOVABLE);
    let started = Instant::now();
    json(&lab, &["apply", "--confirm-within", "6s", "--quiet"]);
    daemon.kill();
    assert!(cut.is_cut(), "the new policy is in force");
    assert!(started.elapsed() < Duration::from_secs(6), "the machine was too slow to look in time");
    assert!(is_shut(&lab.peer, SERVER, UNLISTED));
    eventually("the row returns", Duration::from_secs(30), || opens(&lab.peer, SERVER, REMOVABLE));
    assert!(
        started.elapsed() >= Duration::from_millis(5_900),
        "not before its time: {:?}",
        started.elapsed()
    );
    assert!(kept.answers(), "what both policies allow goes on");
    let status = json(&lab, &["status"]);
    assert!(status["daemon"].is_null() && status["confirmed"] == true, "{status}");
    assert!(status["attention"].to_string().contains("because nobody confirmed it"), "{status}");
    // The next daemon notices the rollback, and does not apply the rejected files.
    let _daemon = Daemon::start(&lab);
    assert_eq!(outcomes(&lab), ["in-force", "not-confirmed"]);
    assert!(opens(&lab.peer, SERVER, REMOVABLE) && is_shut(&lab.peer, SERVER, UNLISTED));
    let status = json(&lab, &["status"]);
    assert!(status["attention"].to_string().contains("change 2 was taken back because nobody"), "{status}");
    assert!(refused(&lab, &["confirm", "--quiet"]).contains("too late"), "{status}");
}

#[test]
fn deadline_on_a_detached_host_claims_no_policy() {
    let Some(lab) = Lab::new("deadline_on_a_detached_host_claims_no_policy") else { return };
    let daemon = Daemon::start(&lab);
    lab.write_site(WITHOUT_REMOVABLE);
    json(&lab, &["apply", "--confirm-within", "4s", "--quiet"]);
    done(&lab, &["detach", "--yes"]);
    daemon.wait_log("nobody confirmed change 2 in time; `pomguard detach` opened this host");
    assert!(!daemon.log().contains("the policy before it is in force"), "{}", daemon.log());
    let told = daemon.reload();
    assert!(told.contains("refused: `pomguard detach` opened this host"), "{told}");
    let status = json(&lab, &["status"]);
    let attention = status["attention"].to_string();
    assert!(attention.contains("detached") && !attention.contains("files-refused"), "{attention}");
    for verb in ["confirm", "rollback", "apply"] {
        let told = refused(&lab, &[verb, "--quiet"]);
        assert!(told.contains("`pomguard detach` opened this host"), "{verb}: {told}");
    }
    assert!(opens(&lab.stranger, SERVER, UNLISTED));
    drop(daemon);
}

#[test]
fn restart_during_a_pending_change_goes_on_waiting() {
    let Some(lab) = Lab::new("restart_during_a_pending_change_goes_on_waiting") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    lab.write_site(WITHOUT_REMOVABLE);
    json(&lab, &["apply", "--confirm-within", "120s", "--quiet"]);
    let generation = lab.stats().generation();
    daemon.kill();
    let daemon = Daemon::start(&lab);
    assert!(daemon.log().contains("still waits for its confirmation"), "{}", daemon.log());
    assert_eq!(lab.stats().generation(), generation, "nothing was put in force anew");
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE));
    done(&lab, &["confirm", "--quiet"]);
    assert_eq!(outcomes(&lab), ["replaced", "in-force"]);
    assert_eq!(json(&lab, &["status"])["confirmed"], true);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE));
}

/// A confirmation after a restart is a change that succeeded: no alert may stay.
#[test]
fn restart_during_a_pending_change_leaves_no_alert() {
    let Some(lab) = Lab::new("restart_during_a_pending_change_leaves_no_alert") else { return };
    let daemon = Daemon::start(&lab);
    lab.write_site(WITHOUT_REMOVABLE);
    json(&lab, &["apply", "--confirm-within", "120s", "--quiet"]);
    daemon.kill();
    let mut daemon = Daemon::start(&lab);
    for state in ["pending", "confirmed", "started again"] {
        let attention = json(&lab, &["status"])["attention"].to_string();
        assert!(!attention.contains("the last change of policy failed"), "{state}: {attention}");
        assert_eq!(attention == "[]", state != "pending", "{state}: {attention}");
        let page = lab.metrics();
        for line in ["pomguard_policy_in_sync 1", "pomguard_last_reload_successful 1"] {
            assert!(page.lines().any(|it| it == line), "{state}: no {line}:\n{page}");
        }
        if state == "pending" {
            let changed = json(&lab, &["confirm", "--quiet"]);
            assert_eq!(changed["generation"], lab.stats().generation(), "{changed}");
            assert_eq!(changed["image"], lab.stats().image(), "{changed}");
        } else {
            daemon.kill();
            daemon = Daemon::start(&lab);
        }
    }
}

/// Whoever types `rollback` means the pending change, and may be a second late.
#[test]
fn rollback_after_the_deadline_goes_no_step_further() {
    let Some(lab) = Lab::new("rollback_after_the_deadline_goes_no_step_further") else { return };
    let daemon = Daemon::start(&lab);
    lab.write_site(WITHOUT_REMOVABLE);
    done(&lab, &["apply", "--quiet"]);
    lab.write_site("");
    json(&lab, &["apply", "--confirm-within", "2s", "--quiet"]);
    daemon.wait_log("because nobody confirmed it in time");
    let told = refused(&lab, &["rollback", "--quiet"]);
    assert!(
        told.contains("change 3 was taken back already") && told.contains("`pomguard rollback 1`"),
        "{told}"
    );
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "change 2 is in force");
    // As late, after a restart.
    daemon.kill();
    let daemon = Daemon::start(&lab);
    assert!(refused(&lab, &["rollback", "--quiet"]).contains("change 3 was taken back already"));
    // A request that waits for a daemon that stood still over the deadline.
    json(&lab, &["apply", "--confirm-within", "2s", "--quiet"]);
    daemon.signal(Signal::SIGSTOP);
    let late = lab.pomguard_command(&["rollback", "--quiet"]).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(3_500));
    daemon.signal(Signal::SIGCONT);
    let late = late.wait_with_output().unwrap();
    assert!(said(&late).contains("change 4 was taken back already"), "{}", said(&late));
    assert_eq!(outcomes(&lab), ["replaced", "in-force", "not-confirmed", "not-confirmed"]);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "change 2 is in force still");
    // A number says which one is meant, and files that were taken end the question.
    done(&lab, &["rollback", "1", "--quiet"]);
    assert!(opens(&lab.peer, SERVER, REMOVABLE));
}

/// The timer of the deadline and the request are due at once when the process goes on.
#[test]
fn apply_after_a_deadline_that_passed_unnoticed_is_taken() {
    let Some(lab) = Lab::new("apply_after_a_deadline_that_passed_unnoticed_is_taken") else { return };
    let daemon = Daemon::start(&lab);
    for round in 0..3 {
        lab.write_site(WITHOUT_REMOVABLE);
        json(&lab, &["apply", "--confirm-within", "1s", "--quiet"]);
        daemon.signal(Signal::SIGSTOP);
        let late = lab.pomguard_command(&["apply", "--quiet"]).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(2_500));
        daemon.signal(Signal::SIGCONT);
        let late = late.wait_with_output().unwrap();
        assert!(late.status.success(), "round {round}: {}", said(&late));
        lab.write_site("");
        done(&lab, &["apply", "--quiet"]);
    }
}

/// The maps have the confirmation before the history has it. A start must not take the change back.
#[test]
fn confirmation_that_no_record_has_outlives_a_start() {
    let Some(lab) = Lab::new("confirmation_that_no_record_has_outlives_a_start") else { return };
    fs::create_dir_all(lab.state()).unwrap();
    let remount = |flags: MsFlags| {
        let options = Some("size=512k,mode=755");
        mount(Some("small"), &lab.state(), Some("tmpfs"), flags, options).unwrap();
    };
    remount(MsFlags::empty());
    let mut daemon = Daemon::start(&lab);
    for full in [true, false] {
        lab.write_site(WITHOUT_REMOVABLE);
        json(&lab, &["apply", "--confirm-within", "120s", "--quiet"]);
        let filler = lab.state().join("filler");
        if full {
            let mut file = fs::File::create(&filler).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        } else {
            remount(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        }
        done(&lab, &["confirm", "--quiet"]);
        daemon.kill();
        if full {
            fs::remove_file(&filler).unwrap();
        } else {
            assert_eq!(outcomes(&lab).last().unwrap(), "pending", "the disk took no record");
            remount(MsFlags::MS_REMOUNT);
        }
        daemon = Daemon::start(&lab);
        assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "full {full}: the change is in force still");
        assert_eq!(outcomes(&lab).last().unwrap(), "in-force", "full {full}");
        let attention = json(&lab, &["status"])["attention"].to_string();
        assert!(
            !attention.contains("nobody confirmed") && !attention.contains("files-"),
            "{full}: {attention}"
        );
        lab.write_site("");
        done(&lab, &["apply", "--quiet"]);
    }
    // The other ways to end a change are recorded on a full disk, too.
    lab.write_site(WITHOUT_REMOVABLE);
    json(&lab, &["apply", "--confirm-within", "120s", "--quiet"]);
    let mut file = fs::File::create(lab.state().join("filler")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    done(&lab, &["rollback", "--quiet"]);
    assert_eq!(outcomes(&lab).last().unwrap(), "rolled-back");
}

/// A start takes the files, and these are the files of a change that nobody confirmed.
#[test]
fn pending_change_that_the_history_lost_is_taken_back() {
    let Some(lab) = Lab::new("pending_change_that_the_history_lost_is_taken_back") else { return };
    let mut daemon = Daemon::start(&lab);
    for (what, lose) in [("record", "2/record"), ("history", "")] {
        lab.write_site(WITHOUT_REMOVABLE);
        json(&lab, &["apply", "--confirm-within", "120s", "--quiet"]);
        assert!(is_shut(&lab.peer, SERVER, REMOVABLE));
        daemon.kill();
        let lost = lab.state().join("history").join(lose);
        if lost.is_dir() {
            fs::remove_dir_all(&lost).unwrap();
        } else {
            fs::write(&lost, "x").unwrap();
        }
        daemon = Daemon::start(&lab);
        assert!(opens(&lab.peer, SERVER, REMOVABLE), "{what}: the policy before it is in force");
        let status = json(&lab, &["status"]);
        assert_eq!(status["confirmed"], true, "{what}: {status}");
        let attention = status["attention"].to_string();
        assert!(attention.contains("the history does not know which one"), "{what}: {attention}");
        assert!(daemon.reload().contains("server pom-4.0"), "{what}: an operator can take them");
        assert!(is_shut(&lab.peer, SERVER, REMOVABLE), "{what}");
        wait_until(what, &daemon, || json(&lab, &["status"])["attention"] == Value::Array(vec![]));
        lab.write_site("");
        done(&lab, &["apply", "--quiet"]);
    }
}

#[test]
fn a_rollback_needs_no_file_but_the_history() {
    let Some(lab) = Lab::new("a_rollback_needs_no_file_but_the_history") else { return };
    let daemon = Daemon::start(&lab);
    let first = lab.stats().image();
    lab.write_site(WITHOUT_REMOVABLE);
    daemon.reload();
    lab.write_settings(&Settings { inbound: "audit", ..Settings::default() });
    done(&lab, &["apply", "--quiet"]);
    assert_eq!(outcomes(&lab), ["replaced", "replaced", "in-force"]);
    assert!(opens(&lab.peer, SERVER, UNLISTED), "audit");
    fs::remove_file(lab.config().with_file_name("site.toml")).unwrap();
    done(&lab, &["rollback", "1", "--why", "calls were lost", "--quiet"]);
    assert_eq!(outcomes(&lab), ["replaced", "replaced", "rolled-back", "in-force"]);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED) && opens(&lab.peer, SERVER, REMOVABLE));
    assert_eq!(lab.stats().image(), first);
    assert!(refused(&lab, &["rollback", "9", "--quiet"]).contains("no change 9"));
    // Without a number `rollback` takes the pending change back, or else the last one.
    lab.write_site(WITHOUT_REMOVABLE);
    lab.write_settings(&Settings::default());
    json(&lab, &["apply", "--confirm-within", "120s", "--quiet"]);
    assert!(is_shut(&lab.peer, SERVER, REMOVABLE));
    done(&lab, &["rollback", "--quiet"]);
    assert!(opens(&lab.peer, SERVER, REMOVABLE));
    assert_eq!(outcomes(&lab).last().unwrap(), "rolled-back");
}

#[test]
fn a_broken_file_is_refused_with_its_line_and_changes_nothing() {
    let Some(lab) = Lab::new("a_broken_file_is_refused_with_its_line_and_changes_nothing") else { return };
    let _daemon = Daemon::start(&lab);
    let before = lab.stats();
    lab.write_site("[[peer]]\nsystems = [\"Agent Scratch\"]\naddresses = [\"10.77.0.9\"]\n");
    assert!(refused(&lab, &["apply", "--quiet"]).contains("site.toml:14: "));
    let after = lab.stats();
    assert_eq!((after.image(), after.generation()), (before.image(), before.generation()));
    assert_eq!(outcomes(&lab), ["in-force"], "what never was in force is no change");
}

#[test]
fn plan_shows_a_packet_a_change_and_warns_of_a_lockout() {
    let name = "plan_shows_a_packet_a_change_and_warns_of_a_lockout";
    let Some(lab) = Lab::new(name) else { return };
    let daemon = Daemon::start(&lab);
    let plan = lab.pomguard(&["plan"]);
    assert_eq!(plan.status.code(), Some(0), "nothing to change: {}", said(&plan));
    let mut cut = Connection::open(&lab.peer, SERVER, REMOVABLE);
    let _kept = Connection::open(&lab.peer, SERVER, LISTED);
    assert!(daemon.stop().success(), "it needs no daemon");
    lab.write_site(WITHOUT_REMOVABLE);
    let generation = lab.stats().generation();
    let session = format!("10.77.0.2 40000 10.77.0.1 {REMOVABLE}");
    let plan = |session: &str, more: &[&str]| {
        let mut command = lab.pomguard_command(&[&["plan"], more].concat());
        command.env("SSH_CONNECTION", session).output().unwrap()
    };
    let text = plan(&session, &[]);
    assert_eq!(text.status.code(), Some(3), "{}", said(&text));
    let text = said(&text);
    assert!(text.contains("WARNING: THIS WOULD CUT YOUR OWN SESSION"), "{text}");
    assert!(text.contains("no failsafe row"), "{text}");
    assert!(text.contains("removed   pom-4.0/16 inbound"), "{text}");
    assert!(text.contains("newly denied, for one:  10.77.0.2:65535 10.77.0.1:7999/tcp"), "{text}");
    assert!(text.contains("1 of 2 connections that go on now would be cut"), "{text}");
    let json: Value = serde_json::from_slice(&plan(&session, &["--json"]).stdout).unwrap();
    assert_eq!(json["diff"]["rows"][0]["kind"], "removed");
    assert_eq!(json["impact"]["cut"][0]["destination_port"], REMOVABLE);
    let other = said(&plan("10.77.0.2 40000 10.77.0.1 9970", &[]));
    assert!(other.contains("no failsafe row covers your own session"), "{other}");
    assert_eq!(lab.stats().generation(), generation, "a plan changes nothing");
    assert!(cut.answers() && opens(&lab.peer, SERVER, REMOVABLE));
    // A change that would lock out the operator who types it needs --yes or a confirmation.
    let _daemon = Daemon::start(&lab);
    lab.write_site(&format!(
        "{WITHOUT_REMOVABLE}[[row]]\nid = \"pom-4.0/15\"\nenabled = false\nforce = true\n"
    ));
    let mut apply = lab.pomguard_command(&["apply", "--quiet"]);
    let refused = apply.env("SSH_CONNECTION", "10.77.0.2 40000 10.77.0.1 9970").output().unwrap();
    assert!(
        !refused.status.success() && said(&refused).contains("would cut your own session"),
        "{}",
        said(&refused)
    );
    assert!(opens(&lab.peer, SERVER, LISTED));
}

/// CP-01, against the real daemon.
#[test]
fn root_may_change_a_group_may_ask_and_others_are_refused() {
    let Some(lab) = Lab::new("root_may_change_a_group_may_ask_and_others_are_refused") else { return };
    // Any group of the system will do; every system has this one.
    let Some(group) = Group::from_name("daemon").unwrap() else { panic!("no group `daemon`") };
    lab.write_settings(&Settings { control_group: "daemon", ..Settings::default() });
    lab.let_others_in();
    let daemon = Daemon::start(&lab);
    let generation = lab.stats().generation();
    let as_user = |gid: u32, verb: &[&str]| {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid=65534", &format!("--regid={gid}"), "--clear-groups", "--"]);
        command.arg(lab.public_binary()).args(verb).arg("--config").arg(lab.config());
        command.output().unwrap()
    };
    let member = as_user(group.gid.as_raw(), &["status", "--json"]);
    let status: Value =
        serde_json::from_slice(&member.stdout).unwrap_or_else(|_| panic!("{}", said(&member)));
    assert_eq!(status["generation"], generation);
    let change = as_user(group.gid.as_raw(), &["apply", "--quiet"]);
    assert!(!change.status.success() && said(&change).contains("only root may `apply`"), "{}", said(&change));
    let stranger = as_user(65_534, &["status", "--json"]);
    assert!(
        !stranger.status.success() && said(&stranger).contains("only root, and members"),
        "{}",
        said(&stranger)
    );
    assert_eq!(lab.stats().generation(), generation);
    assert!(daemon.log().contains("apply refused"), "{}", daemon.log());
}
