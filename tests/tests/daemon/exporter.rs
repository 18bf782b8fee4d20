//! The metrics page, served by a separate process.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::watch::{is_state, wait_until};
use pomguard_netlab::die_with_parent;
use pomguard_tests::daemon::{Daemon, LISTED, Lab, SERVER, Settings, UNLISTED, binary, is_shut, opens};

/// CP-13: the process has no privileges; under the unit it also runs as another user.
#[test]
fn a_process_without_power_serves_what_the_daemon_tells_it() {
    let Some(lab) = Lab::new("a_process_without_power_serves_what_the_daemon_tells_it") else { return };
    lab.write_settings(&Settings { metrics: "off", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    let mut command: Command = lab.server.command(binary()).unwrap();
    die_with_parent(&mut command);
    let mut exporter = command.arg("serve-metrics").arg("--runtime").arg(lab.runtime()).spawn().unwrap();
    wait_until("served", &daemon, || lab.try_metrics().is_some_and(|page| page.contains("200 OK")));
    let page = lab.metrics();
    assert!(page.contains("\npomguard_policy_generation 1\n"), "{page}");
    assert!(page.contains("\npomguard_state{state=\"files-refused\"} 0\n"), "{page}");
    // Without the daemon a scrape fails with an error; with the next daemon it works again.
    daemon.kill();
    // Longer than the time for which a page is cached.
    thread::sleep(Duration::from_millis(500));
    let page = lab.metrics();
    assert!(page.contains(" 500 ") && page.contains("no daemon answers"), "{page}");
    let daemon = Daemon::start(&lab);
    wait_until("served again", &daemon, || lab.metrics().contains("\npomguard_policy_generation 2\n"));
    exporter.kill().unwrap();
    exporter.wait().unwrap();
}

#[test]
fn exporter_with_a_taken_address_says_so_and_serves_later() {
    let name = "exporter_with_a_taken_address_says_so_and_serves_later";
    let Some(lab) = Lab::new(name) else { return };
    // The daemon itself uses the address: the usual mistake.
    let daemon = Daemon::start(&lab);
    let log = lab.file("exporter");
    let said = || fs::read_to_string(&log).unwrap();
    let mut command = lab.command(binary());
    die_with_parent(&mut command);
    command.arg("serve-metrics").arg("--runtime").arg(lab.runtime()).stderr(File::create(&log).unwrap());
    let mut exporter = command.spawn().unwrap();
    wait_until("told", &daemon, || said().contains("Tried every 2 s"));
    for words in ["no metrics on 127.0.0.1:9843: somebody else listens there", "`ss -ltnp`", "--listen"] {
        assert!(said().contains(words), "{}", said());
    }
    // Longer than two attempts.
    thread::sleep(Duration::from_secs(5));
    assert!(exporter.try_wait().unwrap().is_none(), "it does not end: {}", said());
    assert_eq!(said().matches("no metrics on").count(), 1, "told once: {}", said());
    daemon.kill();
    lab.write_settings(&Settings { metrics: "off", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    wait_until("served", &daemon, || lab.try_metrics().is_some_and(|page| page.contains("200 OK")));
    assert!(said().contains("metrics at http://127.0.0.1:9843/metrics"), "{}", said());
    exporter.kill().unwrap();
    exporter.wait().unwrap();

    // The exporter also waits for an address that this host does not have, and a signal ends the wait.
    let mut command = lab.command(binary());
    die_with_parent(&mut command);
    command.args(["serve-metrics", "--listen", "192.0.2.1:9843"]).stderr(File::create(&log).unwrap());
    let mut exporter = command.spawn().unwrap();
    wait_until("told", &daemon, || said().contains("this host does not have that address"));
    kill(Pid::from_raw(exporter.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(exporter.wait().unwrap().success(), "{}", said());
}

/// CP-08.
#[test]
fn taken_metrics_address_is_named_and_retried_while_enforcing() {
    let name = "taken_metrics_address_is_named_and_retried_while_enforcing";
    let Some(lab) = Lab::new(name) else { return };
    let taken = lab.server.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 9843))).unwrap().unwrap();
    let daemon = Daemon::spawn(&lab);
    let message = daemon.wait_ready();
    assert!(
        message.contains("metrics-unserved: ") && message.contains("Address already in use"),
        "{message}"
    );
    assert!(message.contains("pomguard.toml:"), "it names the line: {message}");
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    let status = lab.pomguard(&["status"]);
    assert_eq!(status.status.code(), Some(3));
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("metrics-unserved: "), "{said}");
    drop(taken);
    wait_until("served", &daemon, || lab.try_metrics().is_some());
    wait_until("as it should be", &daemon, || !is_state(&lab, "metrics-unserved"));
    assert!(daemon.log().contains("metrics-unserved: no more"), "{}", daemon.log());
    assert!(lab.pomguard(&["status"]).status.success());
}
