//! Changes of the XDP mode of a guarded interface: no denied packet reaches a socket meanwhile. Packet
//! sockets see the packets that the bridging program drops, because that program runs after them, at TC
//! ingress.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use pomguard::kernel::interface;
use pomguard_tests::daemon::{
    Connection, Daemon, INTERFACE, LISTED, Lab, SERVER, Settings, UNLISTED, is_shut, opens,
};

use crate::{
    layout::{Denied, Raise},
    watch::{metric, wait_until},
};

/// The longest time, in milliseconds, for which a change may drop everything.
const LONGEST: u64 = 50;

/// Returns the milliseconds for which each change of mode dropped everything, from the daemon's log.
fn closings(daemon: &Daemon) -> Vec<u64> {
    let log = daemon.log();
    let message = log.lines().filter_map(|line| line.split_once("mode; for ")?.1.split(' ').next());
    message.map(|number| number.parse().unwrap()).collect()
}

/// Runs `act` while denied datagrams come, and asserts that none arrives.
fn under_denied(lab: &Lab, when: &str, act: impl FnOnce()) {
    let (denied, over) = (Denied::at(lab), AtomicBool::new(false));
    let sent = thread::scope(|scope| {
        let stream = scope.spawn(|| denied.stream(|| !over.load(Ordering::Relaxed)));
        let end = Raise(&over);
        act();
        drop(end);
        stream.join().unwrap()
    });
    assert!(sent > 100, "{when}: {sent} were sent");
    assert!(denied.none_was_heard(), "{when}: of {sent} denied datagrams one got in");
}

#[test]
fn mode_changed_by_the_settings_delivers_no_denied_packet() {
    let Some(lab) = Lab::new("mode_changed_by_the_settings_delivers_no_denied_packet") else { return };
    let daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attached(), ["native"]);
    let mut connection = Connection::open(&lab.peer, SERVER, LISTED);
    for mode in ["generic", "native", "generic", "native"] {
        lab.write_settings(&Settings { attach: mode, ..Settings::default() });
        under_denied(&lab, mode, || {
            let message = daemon.reload();
            assert!(!message.contains("refused"), "{mode}: {message}: {}", daemon.log());
        });
        assert_eq!(lab.stats().attached(), [mode], "{}", daemon.log());
        assert!(connection.answers(), "{mode}: what is allowed goes on");
        let output = lab.command("tc").args(["filter", "show", "dev", "eth0", "ingress"]).output().unwrap();
        assert!(output.stdout.is_empty(), "{mode}: the bridge is gone");
        assert!(lab.pinned().iter().all(|pin| !pin.ends_with("bridge-eth0")), "{:?}", lab.pinned());
    }
    let closings = closings(&daemon);
    println!("everything was dropped for {closings:?} ms");
    assert_eq!(closings.len(), 4, "{}", daemon.log());
    // A single change may have been delayed by the machine's load. It says nothing about the others.
    assert!(closings.iter().any(|&closed| closed < LONGEST), "{closings:?}");
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
    assert!(daemon.stop().success());
}

#[test]
fn mode_changed_at_a_start_delivers_no_denied_packet() {
    let Some(lab) = Lab::new("mode_changed_at_a_start_delivers_no_denied_packet") else { return };
    lab.write_settings(&Settings { attach: "generic", ..Settings::default() });
    assert!(Daemon::start(&lab).stop().success());
    lab.write_settings(&Settings { attach: "native", ..Settings::default() });
    let mut started = None;
    under_denied(&lab, "by a start", || started = Some(Daemon::start(&lab)));
    let daemon = started.unwrap();
    assert_eq!(lab.stats().attached(), ["native"], "{}", daemon.log());
    assert!(opens(&lab.peer, SERVER, LISTED) && is_shut(&lab.peer, SERVER, UNLISTED));
}

#[test]
fn packets_that_came_in_are_counted_by_interface() {
    let Some(lab) = Lab::new("packets_that_came_in_are_counted_by_interface") else { return };
    for mode in ["native", "generic"] {
        lab.write_settings(&Settings { attach: mode, ..Settings::default() });
        let daemon = Daemon::start(&lab);
        let name = "pomguard_interface_seen_packets_total{interface=\"eth0\"}";
        let index = lab.server.link(INTERFACE).index().unwrap();
        let received = || lab.server.run(|| interface::received(index)).unwrap().unwrap().unwrap();
        let (before, took) = (metric(&lab, name), received());
        assert!(opens(&lab.peer, SERVER, LISTED));
        let took = received() - took;
        wait_until("counted", &daemon, || metric(&lab, name) >= before + 4);
        println!("{mode}: the card took {took}, the guard saw {}", metric(&lab, name) - before);
        let output = lab.pomguard(&["stats"]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("packets in"), "{mode}: {shown}");
        assert!(daemon.stop().success());
    }
}
