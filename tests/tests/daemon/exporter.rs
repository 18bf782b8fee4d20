//! The metrics page from a process of its own.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Command,
    thread,
    time::Duration,
};

use crate::watch::{is_state, wait_until};
use pomguard_netlab::die_with_parent;
use pomguard_tests::daemon::{Daemon, LISTED, Lab, SERVER, Settings, UNLISTED, binary, is_shut, opens};

/// CP-13: what has no power is the process; under the unit it is another user, too.
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
    // With the daemon gone a scrape fails aloud; with the next one it works again.
    daemon.kill();
    // Longer than a page is handed out again.
    thread::sleep(Duration::from_millis(500));
    let page = lab.metrics();
    assert!(page.contains(" 500 ") && page.contains("no daemon answers"), "{page}");
    let daemon = Daemon::start(&lab);
    wait_until("served again", &daemon, || lab.metrics().contains("\npomguard_policy_generation 2\n"));
    exporter.kill().unwrap();
    exporter.wait().unwrap();
}

/// CP-08.
#[test]
fn an_address_that_somebody_else_has_is_named_tried_again_and_never_touches_enforcement() {
    let name = "an_address_that_somebody_else_has_is_named_tried_again_and_never_touches_enforcement";
    let Some(lab) = Lab::new(name) else { return };
    let taken = lab.server.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 9843))).unwrap().unwrap();
    let daemon = Daemon::spawn(&lab);
    let told = daemon.wait_ready();
    assert!(told.contains("metrics-unserved: ") && told.contains("Address already in use"), "{told}");
    assert!(told.contains("pomguard.toml:"), "it names the line: {told}");
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
