//! Every setting is in force, or reported: interfaces, the mode of attachment, the metrics page.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use pomguard_netlab::Namespace;
use pomguard_tests::daemon::{
    Daemon, INTERFACE, LISTED, Lab, SERVER, STRANGER, Settings, UNLISTED, is_shut, opens,
};
use serde_json::Value;

use super::{
    cli::{done, json, refused, said},
    watch::wait_until,
};

const BOTH: Settings = Settings {
    interfaces: &[INTERFACE, "br9"],
    inbound: "enforce",
    outbound: "enforce",
    attach: "auto",
    tc: "auto",
    grace: "off",
    metrics: "127.0.0.1:9843",
    control_group: "pomguard",
};

fn attached(lab: &Lab) -> Vec<String> {
    let stats = json(lab, &["stats"]);
    let name = |info: &Value| info["interface"].as_str().unwrap().to_owned();
    stats["attach"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn interface_that_loses_its_guard_is_named_first_and_asked_for() {
    let Some(lab) = Lab::new("interface_that_loses_its_guard_is_named_first_and_asked_for") else { return };
    lab.server.add_bridge("br9").unwrap();
    lab.write_settings(&BOTH);
    let daemon = Daemon::start(&lab);
    assert_eq!(attached(&lab), ["br9", INTERFACE]);
    let generation = lab.stats().generation();

    lab.write_settings(&Settings::default());
    let plan = lab.pomguard(&["plan"]);
    assert_eq!(plan.status.code(), Some(3), "{}", said(&plan));
    let text = said(&plan);
    assert!(text.starts_with("WARNING: br9 WOULD LOSE ITS GUARD"), "{text}");
    assert!(text.contains("interfaces: [\"eth0\", \"br9\"] -> [\"eth0\"]"), "{text}");
    let plan = json(&lab, &["plan"]);
    assert_eq!(plan["guards"]["lost"][0], "br9", "{plan:#}");

    for verb in [&["apply", "--quiet"][..], &["apply", "--confirm-within", "60s", "--quiet"]] {
        let message = refused(&lab, verb);
        assert!(message.contains("br9 would lose its guard") && message.contains("--yes"), "{message}");
    }
    // A reload by SIGHUP cannot have `--yes`.
    assert!(daemon.reload().contains("refused"));
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3));
    let message = said(&status);
    assert!(message.contains("files-refused: ") && message.contains("br9 would lose its guard"), "{message}");
    assert_eq!((attached(&lab).len(), lab.stats().generation()), (2, generation), "nothing was changed");

    // The guard is removed at the confirmation.
    let message = done(&lab, &["apply", "--yes", "--confirm-within", "60s", "--quiet"]);
    assert!(message.contains("br9 loses its guard at `pomguard confirm`"), "{message}");
    assert_eq!(attached(&lab), ["br9", INTERFACE]);
    done(&lab, &["confirm", "--quiet"]);
    assert_eq!(attached(&lab), [INTERFACE]);
    assert!(done(&lab, &["history"]).contains("change 2: interfaces: [\"eth0\", \"br9\"] -> [\"eth0\"]"));
    assert!(done(&lab, &["status"]).contains("eth0"), "all is as it should be");
    // Back again, by number: in this direction no guard is lost.
    done(&lab, &["rollback", "--quiet"]);
    assert_eq!(attached(&lab), ["br9", INTERFACE], "settings alone are a change, too");
    // A rollback that removes a guard also asks for `--yes`.
    let message = refused(&lab, &["rollback", "2", "--quiet"]);
    assert!(message.contains("br9 would lose its guard"), "{message}");
}

#[test]
fn interface_that_comes_is_guarded_at_once_and_stays_so_after_a_return() {
    let Some(lab) = Lab::new("interface_that_comes_is_guarded_at_once_and_stays_so_after_a_return") else {
        return;
    };
    lab.server.add_bridge("br9").unwrap();
    let daemon = Daemon::start(&lab);
    lab.write_settings(&BOTH);
    done(&lab, &["apply", "--confirm-within", "60s", "--quiet"]);
    assert_eq!(attached(&lab), ["br9", INTERFACE], "at once");
    done(&lab, &["rollback", "--quiet"]);
    assert_eq!(attached(&lab), ["br9", INTERFACE], "still");
    let kept = || {
        let status = lab.pomguard(&["status"]);
        status.status.code() == Some(3) && said(&status).contains("guard-kept: br9")
    };
    wait_until("named", &daemon, kept);
    lab.write_settings(&Settings::default());
    assert!(!daemon.reload().contains("refused"), "what was never named is not lost by a reload");
    // A start removes no guard either.
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&lab);
    assert_eq!(attached(&lab), ["br9", INTERFACE]);
    wait_until("named again", &daemon, kept);
    done(&lab, &["apply", "--yes", "--quiet"]);
    assert_eq!(attached(&lab), [INTERFACE]);
    wait_until("all is well", &daemon, || lab.pomguard(&["status"]).status.success());
}

/// Other folders are in force from the next start only: every verb that reads the files says so, and goes by the
/// folders in use.
#[test]
fn folders_that_change_are_named_until_the_next_start() {
    let Some(lab) = Lab::new("folders_that_change_are_named_until_the_next_start") else { return };
    let daemon = Daemon::start(&lab);
    let files = fs::read_to_string(lab.config()).unwrap();
    let keys = ["pins", "state", "runtime"];
    let changed = |of: &[&str]| {
        let line = |line: &str| match of.iter().find(|key| line.starts_with(&format!("{key} = "))) {
            Some(_) => line.strip_suffix('"').unwrap().to_owned() + "-2\"",
            None => line.to_owned(),
        };
        files.lines().map(line).collect::<Vec<_>>().join("\n")
    };
    for key in keys {
        fs::write(lab.config(), changed(&[key])).unwrap();
        for verb in [&["check"][..], &["plan"], &["status"], &["apply", "--quiet"]] {
            let output = lab.pomguard(verb);
            let text = said(&output);
            let sentence = format!("`paths.{key}` is ");
            assert!(
                text.contains(&sentence) && text.contains("from the next start"),
                "{key} {verb:?}: {text}"
            );
            let expected = if verb[0] == "check" {
                0
            } else if verb[0] == "apply" {
                1
            } else {
                3
            };
            assert_eq!(output.status.code(), Some(expected), "{key} {verb:?}: {text}");
        }
        // The other verbs go by the folders in use, too, alone or through the daemon.
        for verb in [
            &["stats"][..],
            &["history"],
            &["drops"],
            &["explain", "10.77.0.2", "to", "server:9970/tcp"],
            &["suggest"],
            &["confirm", "--quiet"],
        ] {
            let output = lab.pomguard(verb);
            let text = said(&output);
            assert_eq!(output.status.code(), Some(0), "{key} {verb:?}: {text}");
            assert!(
                !text.contains("no daemon answers") && !text.contains("nothing is in force"),
                "{verb:?}: {text}"
            );
        }
        let plan = json(&lab, &["plan"]);
        assert_eq!(
            plan["in_force"]["change"]["number"], 1,
            "{key}: compared with what is in force: {plan:#}"
        );
        let status = json(&lab, &["status"]);
        assert!(status["daemon"].is_object(), "{key}: the daemon is found: {status:#}");
    }
    daemon.kill();
    fs::write(lab.config(), changed(&["pins"])).unwrap();
    let text = said(&lab.pomguard(&["status"]));
    assert!(text.contains("`paths.pins` is ") && text.contains("generation"), "without a daemon: {text}");
    fs::write(lab.config(), files).unwrap();
    let daemon = Daemon::start(&lab);
    assert!(!said(&lab.pomguard(&["status"])).contains("paths."), "the same folders again");
    assert!(daemon.stop().success());
}

#[test]
fn mode_of_attachment_takes_effect_in_both_directions() {
    let Some(lab) = Lab::new("mode_of_attachment_takes_effect_in_both_directions") else { return };
    let daemon = Daemon::start(&lab);
    for (attach, tc, xdp) in [
        ("generic", "auto", "generic"),
        ("auto", "auto", "native"),
        ("generic", "clsact", "generic"),
        ("native", "clsact", "native"),
        ("native", "auto", "native"),
    ] {
        lab.write_settings(&Settings { attach, tc, ..Settings::default() });
        let plan = lab.pomguard(&["plan"]);
        assert_eq!(plan.status.code(), Some(3), "{attach} {tc}: {}", said(&plan));
        daemon.reload();
        let info = &json(&lab, &["stats"])["attach"][0];
        assert_eq!(info["xdp"], xdp, "{attach} {tc}: {info}");
        if tc == "clsact" {
            assert_eq!(info["tc"], "clsact", "{info}");
        }
        assert_eq!(lab.pomguard(&["plan"]).status.code(), Some(0), "{attach} {tc} is in force");
        assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED), "{attach} {tc}");
    }
}

#[test]
fn address_of_the_metrics_page_takes_effect_with_the_change() {
    let Some(lab) = Lab::new("address_of_the_metrics_page_takes_effect_with_the_change") else { return };
    let daemon = Daemon::start(&lab);
    assert!(lab.try_metrics().is_some());
    lab.write_settings(&Settings { metrics: "off", ..Settings::default() });
    assert!(done(&lab, &["apply", "--quiet"]).contains("metrics.listen: 127.0.0.1:9843 -> off"));
    wait_until("off", &daemon, || lab.try_metrics().is_none());
    lab.write_settings(&Settings::default());
    daemon.reload();
    wait_until("on again", &daemon, || lab.try_metrics().is_some());
}

#[test]
fn change_that_changes_nothing_is_none() {
    let Some(lab) = Lab::new("change_that_changes_nothing_is_none") else { return };
    let daemon = Daemon::start(&lab);
    let generation = lab.stats().generation();
    let site = fs::read_to_string(lab.site()).unwrap();
    fs::write(lab.site(), format!("# a comment that moves every line\n{site}")).unwrap();
    for verb in
        [&["apply", "--quiet"][..], &["apply", "--confirm-within", "60s", "--quiet"], &["confirm", "--quiet"]]
    {
        let changed = json(&lab, verb);
        assert_eq!(changed["changed"], false, "{verb:?}: {changed}");
        assert_eq!((&changed["number"], &changed["confirm_by"]), (&1.into(), &Value::Null), "{changed}");
    }
    daemon.reload();
    assert_eq!(lab.stats().generation(), generation);
    assert_eq!(json(&lab, &["history"]).as_array().unwrap().len(), 1);
    // Equal states give equal output, at any time.
    let plan = || lab.pomguard(&["plan", "--json"]).stdout;
    assert!(opens(&lab.peer, SERVER, LISTED));
    lab.write_site("[[row]]\nid = \"pom-4.0/15\"\nenabled = false\nforce = true\n");
    let first = plan();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(430));
        assert_eq!(String::from_utf8_lossy(&plan()), String::from_utf8_lossy(&first));
    }
    // A broken file is refused until the former file is back.
    lab.write_site("broken");
    assert!(daemon.reload().contains("refused"));
    fs::write(lab.site(), &site).unwrap();
    assert_eq!(json(&lab, &["apply", "--quiet"])["changed"], false);
    wait_until("all is well", &daemon, || lab.pomguard(&["status"]).status.success());
}

#[test]
fn rollback_skips_changes_that_are_equal() {
    let Some(lab) = Lab::new("rollback_skips_changes_that_are_equal") else { return };
    let _daemon = Daemon::start(&lab);
    let another =
        format!("[[peer]]\nname = \"other\"\naddresses = [\"{STRANGER}\"]\nsystems = [\"Agent Desktop\"]\n");
    lab.write_site(&another);
    done(&lab, &["apply", "--quiet"]);
    // Another name for the same machine: the image differs only in the labels.
    lab.write_site(&another.replace("other", "third"));
    done(&lab, &["apply", "--quiet"]);
    let images: Vec<Value> =
        json(&lab, &["history"]).as_array().unwrap().iter().map(|it| it["image"].clone()).collect();
    assert_eq!(images[1], images[2], "{images:?}");
    done(&lab, &["rollback", "--quiet"]);
    assert!(is_shut(&lab.stranger, SERVER, LISTED), "the change before the equal ones is in force");
}

/// Writes settings that track what leaves, with this age of a UDP flow without an answer.
fn write_age(lab: &Lab, unanswered: &str) {
    lab.write_settings(&Settings { outbound: "track", ..Settings::default() });
    let whole = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("{whole}\n[flows]\nudp_unanswered = \"{unanswered}\"\n")).unwrap();
}

/// Returns a UDP socket of the server and one of the stranger.
fn sockets(lab: &Lab) -> (UdpSocket, UdpSocket) {
    let socket = |of: &Namespace, address: Ipv4Addr| {
        let socket = of.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    };
    (socket(&lab.server, SERVER), socket(&lab.stranger, STRANGER))
}

/// Sends a datagram and returns true if the other socket receives it.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    from.send_to(b"?", to.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 4];
    to.recv_from(&mut buffer).is_ok()
}

#[test]
fn ages_of_flows_take_effect_and_a_longer_age_brings_nothing_back() {
    let Some(lab) = Lab::new("ages_of_flows_take_effect_and_a_longer_age_brings_nothing_back") else {
        return;
    };
    write_age(&lab, "5s");
    let daemon = Daemon::start(&lab);
    let (ours, theirs) = sockets(&lab);
    assert!(arrives(&ours, &theirs) && arrives(&theirs, &ours), "an answer within the age");

    let (ours, theirs) = sockets(&lab);
    assert!(arrives(&ours, &theirs));
    // The daemon must not free the entry in its regular sweep.
    daemon.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(6));
    write_age(&lab, "5m");
    daemon.signal(Signal::SIGCONT);
    let changed = json(&lab, &["apply", "--quiet"]);
    assert_eq!(changed["settings"][0]["key"], "flows.udp_unanswered", "{changed}");
    assert!(
        !arrives(&theirs, &ours),
        "the answer came after the age: a longer age does not bring the flow back"
    );

    let (ours, theirs) = sockets(&lab);
    assert!(arrives(&ours, &theirs));
    thread::sleep(Duration::from_secs(6));
    assert!(arrives(&theirs, &ours), "the longer age is in force");
    drop(daemon);
}

/// LC-23: after a trial that returned while no daemon ran, the ages are those of the policy in force.
#[test]
fn start_after_a_returned_trial_forgets_no_flow() {
    let Some(lab) = Lab::new("start_after_a_returned_trial_forgets_no_flow") else { return };
    write_age(&lab, "5m");
    let daemon = Daemon::start(&lab);
    write_age(&lab, "5s");
    done(&lab, &["apply", "--confirm-within", "3s", "--quiet"]);
    daemon.kill();
    thread::sleep(Duration::from_secs(4));
    let (ours, theirs) = sockets(&lab);
    assert!(arrives(&ours, &theirs));
    thread::sleep(Duration::from_secs(6));
    let daemon = Daemon::start(&lab);
    assert!(arrives(&theirs, &ours), "the flow is younger than five minutes: {}", daemon.log());
}
