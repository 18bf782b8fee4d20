//! The metrics page from a process of its own.

use std::{process::Command, thread, time::Duration};

use crate::watch::wait_until;
use pomguard_netlab::die_with_parent;
use pomguard_tests::daemon::{Daemon, Lab, Settings, binary};

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
