//! The daemon dies, and another starts.

use std::os::unix::process::ExitStatusExt as _;

use nix::sys::signal::Signal;
use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, LISTED_OUT, Lab, PEER, SERVER, UNLISTED, is_shut, opens,
};

const ROW: &str = "pom-4.0/15";

/// LC-01, CP-09.
#[test]
fn basic_killed_daemon_leaves_enforcement_to_its_successor() {
    let Some(lab) = Lab::new("basic_killed_daemon_leaves_enforcement_to_its_successor") else {
        return;
    };
    let daemon = Daemon::start(&lab);
    let mut inbound = Connection::open(&lab.peer, SERVER, LISTED);
    let mut outbound = Connection::open(&lab.server, PEER, LISTED_OUT);
    assert!(inbound.answers() && outbound.answers());
    let program = lab.xdp_program();
    let alive = lab.stats();
    daemon.kill();

    assert!(opens(&lab.peer, SERVER, LISTED), "the listed port answers without a daemon");
    assert!(is_shut(&lab.peer, SERVER, UNLISTED), "the unlisted one does not");
    assert!(inbound.answers() && outbound.answers(), "what was established goes on");
    assert_eq!(lab.xdp_program(), program);
    let dead = lab.stats();
    dead.assert_not_behind(&alive);
    let connections = |stats: &pomguard_tests::daemon::Stats| stats.row(ROW, "inbound", "connections");
    assert_eq!(connections(&dead), connections(&alive) + 1, "counting goes on");
    assert!(dead.total("inbound", "dropped") > alive.total("inbound", "dropped"));

    let daemon = Daemon::start(&lab);
    assert!(inbound.answers() && outbound.answers(), "what was established goes on with the next daemon");
    let taken_over = lab.stats();
    taken_over.assert_not_behind(&dead);
    assert_eq!(taken_over.attached(), ["native"]);
    assert!(
        lab.xdp_program().is_some_and(|next| Some(next) != program),
        "the next one's program replaced it"
    );
    daemon.reload();
    assert!(inbound.answers() && outbound.answers(), "and with a reload");
    lab.stats().assert_not_behind(&taken_over);
    assert!(is_shut(&lab.peer, SERVER, UNLISTED));
}

/// A panic in any task aborts the process in a release build, and the unit starts another.
#[test]
fn cp_12_aborted_daemon_leaves_enforcement_to_its_successor() {
    let name = "cp_12_aborted_daemon_leaves_enforcement_to_its_successor";
    let Some(lab) = Lab::new(name) else { return };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let manifest = read("Cargo.toml");
    let release = manifest.split("[profile.release]").nth(1).unwrap().split("\n[").next().unwrap();
    assert!(release.contains("panic = \"abort\""), "{release}");
    let unit = read("config/systemd/pomguard.service");
    assert!(unit.contains("\nRestart=always\n") && unit.contains("\nStartLimitIntervalSec=0\n"), "{unit}");

    let mut daemon = Daemon::start(&lab);
    let mut outbound = Connection::open(&lab.server, PEER, LISTED_OUT);
    let before = lab.stats();
    daemon.signal(Signal::SIGABRT);
    assert_eq!(daemon.wait_end().signal(), Some(Signal::SIGABRT as i32), "{}", daemon.log());
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(outbound.answers());
    lab.stats().assert_not_behind(&before);
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(outbound.answers());
}
