//! The settings compared with the state of the machine, and verbs of users without permission.

use std::{fs, process::Command};

use pomguard_tests::daemon::{Daemon, INTERFACE, LISTED, Lab, SERVER, Settings, opens};
use serde_json::Value;

use super::{
    cli::{done, json, said},
    watch::wait_until,
};

const FAILSAFE: &str = "[[allow]]\nname = \"ssh\"\nfrom = [\"10.77.0.2\"]\nto = [\"server\"]\nports = \"22\"\n\
                        protocol = \"tcp\"\nfailsafe = true\n";

/// Runs a program on the server. The program must succeed.
fn on_server(lab: &Lab, words: &[&str]) {
    let output = lab.command(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", said(&output));
}

/// Runs a verb as an unprivileged user.
fn as_nobody(lab: &Lab, verb: &[&str]) -> (Option<i32>, String) {
    let mut command = lab.server.command("/usr/bin/setpriv").unwrap();
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(lab.public_binary()).args(verb).arg("--config").arg(lab.config());
    let output = command.output().unwrap();
    (output.status.code(), said(&output))
}

fn kinds(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let notes = report["notes"].as_array().unwrap().iter();
    notes.map(|note| (text(&note["weight"]), text(&note["kind"]))).collect()
}

#[test]
fn interface_that_leads_here_unguarded_is_named_everywhere() {
    let Some(lab) = Lab::new("interface_that_leads_here_unguarded_is_named_everywhere") else { return };
    lab.write_site(FAILSAFE);
    let _daemon = Daemon::start(&lab);
    assert_eq!(lab.pomguard(&["status"]).status.code(), Some(0));
    assert_eq!(
        lab.pomguard(&["check", "--strict"]).status.code(),
        Some(0),
        "{}",
        said(&lab.pomguard(&["check"]))
    );
    assert!(done(&lab, &["check", "--quiet"]).is_empty(), "no warning, no word");

    on_server(&lab, &["ip", "link", "add", "second", "type", "veth", "peer", "name", "third"]);
    on_server(&lab, &["ip", "link", "set", "third", "up"]);
    on_server(&lab, &["ip", "address", "add", "192.0.2.1/24", "dev", "second"]);
    on_server(&lab, &["ip", "link", "set", "second", "up"]);
    on_server(&lab, &["ip", "route", "add", "default", "via", "192.0.2.9"]);
    on_server(&lab, &["ip", "route", "add", "10.77.0.2/32", "via", "192.0.2.9"]);
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{}", said(&status));
    let message = said(&status);
    assert!(message.contains("unguarded-interface: second is up, has a default route"), "{message}");
    assert!(message.contains("answer-path: what this server sends to 10.77.0.2"), "{message}");
    let strict = lab.pomguard(&["check", "--strict", "--quiet"]);
    assert_eq!(strict.status.code(), Some(3), "{}", said(&strict));
    assert!(said(&strict).contains("warning: unguarded-interface: second"), "{}", said(&strict));
    assert!(
        !said(&strict).contains("INBOUND") && !said(&strict).contains("unlisted-listener"),
        "no rows, no notes"
    );
    assert_eq!(lab.pomguard(&["check"]).status.code(), Some(0), "without --strict a warning is no failure");
    let listener = lab.server.run(|| std::net::TcpListener::bind(("0.0.0.0", 4_711))).unwrap().unwrap();
    let found = kinds(&json(&lab, &["check"]));
    assert!(said(&lab.pomguard(&["check"])).contains("4711/tcp"), "{}", said(&lab.pomguard(&["check"])));
    drop(listener);
    assert!(found.is_sorted_by_key(|(weight, _)| weight != "warning"), "warnings first: {found:?}");
    assert!(found.contains(&("warning".to_owned(), "unguarded-interface".to_owned())), "{found:?}");
    assert!(found.contains(&("note".to_owned(), "unlisted-listener".to_owned())), "{found:?}");
    let plan = said(&lab.pomguard(&["plan"]));
    assert!(plan.contains("WARNING: unguarded-interface: second"), "{plan}");
    // An address of this host on an unguarded interface, and an interface name that does not exist.
    on_server(&lab, &["ip", "address", "add", "fd00:77::1/128", "dev", "second", "nodad"]);
    lab.write_settings(&Settings { interfaces: &[INTERFACE, "eth9"], ..Settings::default() });
    let message = said(&lab.pomguard(&["check", "--quiet"]));
    assert!(message.contains("second is up, has fd00:77::1"), "{message}");
    assert!(message.contains("there is no interface eth9 here"), "{message}");
}

#[test]
fn who_may_not_look_is_told_so() {
    let Some(lab) = Lab::new("who_may_not_look_is_told_so") else { return };
    lab.let_others_in();
    for file in [lab.config(), lab.site()] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let daemon = Daemon::start(&lab);
    let verbs: [&[&str]; 6] = [
        &["stats"],
        &["plan"],
        &["history"],
        &["explain", "10.77.0.2", "10.77.0.1:9970/tcp"],
        &["allow", "--list"],
        &["status"],
    ];
    let refused = |verb: &[&str], words: &str| {
        let (code, message) = as_nobody(&lab, verb);
        assert_eq!(code, Some(1), "{verb:?}: {message}");
        assert!(message.contains(words), "{verb:?}: {message}");
        for absent in ["not enforcing here", "nothing is in force", "no change of policy"] {
            assert!(!message.contains(absent), "{verb:?}: {message}");
        }
    };
    for verb in &verbs[..4] {
        refused(verb, "permission denied");
    }
    // The daemon answers these verbs, and says who may use them.
    for verb in &verbs[4..] {
        refused(verb, "only root");
    }
    assert!(daemon.stop().success());
    for verb in verbs {
        refused(verb, "permission denied");
    }
    let (_, message) = as_nobody(&lab, &["check"]);
    assert!(message.contains("not-looked-at: ") && message.contains("permission denied"), "{message}");
    let (code, message) = as_nobody(&lab, &["detach", "--yes"]);
    assert!(code == Some(1) && message.contains("permission denied"), "{message}");
    assert!(opens(&lab.peer, SERVER, LISTED));
}

/// The output of a host after `detach`, while the daemon lives and after the daemon dies, and the alert that
/// a real Prometheus raises.
#[test]
fn detached_host_says_so_and_prometheus_raises_the_alert() {
    let Some(lab) = Lab::new("detached_host_says_so_and_prometheus_raises_the_alert") else { return };
    let daemon = Daemon::start(&lab);
    let message = done(&lab, &["detach", "--yes"]);
    assert!(message.contains("systemctl restart pomguard"), "{message}");
    for _ in 0..3 {
        let page = lab.metrics();
        assert!(page.contains("\npomguard_state{state=\"detached\"} 1\n"), "{page}");
        assert!(
            page.contains("\npomguard_attach_info{interface=\"eth0\",xdp=\"none\",tc=\"none\"} 1\n"),
            "{page}"
        );
    }
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{}", said(&status));
    assert!(said(&status).contains("`systemctl restart pomguard` enforces again"), "{}", said(&status));
    let in_force = || {
        let status = lab.pomguard(&["status", "--json"]);
        serde_json::from_slice::<Value>(&status.stdout).unwrap()["in_force"].as_bool()
    };
    assert_eq!(in_force(), Some(false));
    if fires(&lab, &daemon, "PomguardDetached").is_none() {
        println!("no prometheus here: its part is left out");
    }
    daemon.kill();
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{}", said(&status));
    assert!(said(&status).contains("`systemctl start pomguard` enforces again"), "{}", said(&status));
    let _daemon = Daemon::start(&lab);
    assert_eq!(lab.pomguard(&["status"]).status.code(), Some(0));
    assert_eq!(in_force(), Some(true));
}

/// Waits until a real Prometheus that scrapes the daemon fires this alert. Returns `None` if Prometheus is
/// not installed.
fn fires(lab: &Lab, daemon: &Daemon, alert: &str) -> Option<()> {
    let version = Command::new("prometheus").arg("--version").output();
    version.ok().filter(|output| output.status.success())?;
    let rules = include_str!("../../../config/prometheus/pomguard.rules.yml");
    // A condition that must hold for a minute must hold for a second here; the rest of the rule is as
    // shipped.
    fs::write(lab.file("pomguard.rules.yml"), rules.replace("for: 1m", "for: 1s")).unwrap();
    let config = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [pomguard.rules.yml]\n\
                  scrape_configs:\n  - job_name: pomguard\n    static_configs:\n      - targets: [\"127.0.0.1:9843\"]\n";
    fs::write(lab.file("prometheus.yml"), config).unwrap();
    let mut command = lab.command("prometheus");
    pomguard_netlab::die_with_parent(&mut command);
    let mut prometheus = command
        .arg(format!("--config.file={}", lab.file("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", lab.file("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(lab.file("prometheus.log")).unwrap())
        .spawn()
        .unwrap();
    wait_until("the alert fires", daemon, || {
        let output =
            lab.command("curl").args(["--silent", "http://127.0.0.1:9090/api/v1/alerts"]).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().any(|it| it["labels"]["alertname"] == alert && it["state"] == "firing")
    });
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    Some(())
}
