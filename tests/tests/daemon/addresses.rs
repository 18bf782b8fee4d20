//! The host's own addresses: floating addresses, and addresses that come and go at run time.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use pomguard_netlab::Namespace;
use pomguard_tests::daemon::{Daemon, INTERFACE, LISTED, Lab, SERVER, Settings, UNLISTED, is_shut, opens};

/// An address that one of two hosts holds.
const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// An address that the site file does not have.
const EXTRA: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 77);
/// A second host, a floating address, and a failsafe row for the stranger.
const SITE: &str = r#"
[[host]]
name = "second"
addresses = ["10.77.0.4"]
systems = ["Agent Manager"]

[[floating]]
addresses = ["10.77.0.100"]
hosts = ["server", "second"]

[[allow]]
name = "way-in"
from = ["10.77.0.3"]
to = ["server"]
ports = "9000"
protocol = "tcp"
failsafe = true
"#;
/// Time within which a change of an address takes effect.
const IN_FORCE: Duration = Duration::from_secs(1);
/// Time after which the programs no longer rely on the daemon's record of the held addresses, with some
/// reserve.
const LAPSED: Duration = Duration::from_secs(5);

fn lab(test: &str) -> Option<Lab> {
    let lab = Lab::new(test)?;
    lab.write_site(SITE);
    lab.write_settings(&Settings::default());
    Some(lab)
}

/// Runs `ip address VERB ADDRESS/24` on the server.
fn address(lab: &Lab, verb: &str, address: Ipv4Addr) {
    let words = ["address", verb, &format!("{address}/24"), "dev", INTERFACE];
    let done = lab.server.command("ip").unwrap().args(words).status().unwrap();
    assert!(done.success(), "ip {words:?}");
    // The other machines resolve the address again.
    for machine in [&lab.peer, &lab.stranger] {
        machine.command("ip").unwrap().args(["neigh", "flush", "all"]).status().unwrap();
    }
}

/// Waits until a condition holds: at most a second, and the time of one check.
fn soon(about: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + IN_FORCE + Duration::from_millis(500);
    while !so() {
        assert!(Instant::now() < until, "{about}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a datagram from the floating address to a port that is not served.
fn sends(machine: &Namespace, to: Ipv4Addr) {
    let sent = machine.run(|| UdpSocket::bind((FLOATING, 0))?.send_to(b"hello", (to, UNLISTED)));
    sent.unwrap().unwrap();
}

fn said(lab: &Lab, words: &[&str]) -> (Option<i32>, String) {
    let output = lab.pomguard(words);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn floating_address_is_served_while_it_is_held() {
    let Some(lab) = lab("floating_address_is_served_while_it_is_held") else { return };
    let _daemon = Daemon::start(&lab);
    let before = lab.stats().generation();
    address(&lab, "add", FLOATING);
    soon("the floating address is served", || opens(&lab.peer, FLOATING, LISTED));
    assert!(is_shut(&lab.peer, FLOATING, UNLISTED), "rows hold there as at any address of the host");
    assert_eq!(lab.stats().generation(), before, "an address makes no change of policy");
    let (code, status) = said(&lab, &["status"]);
    assert_eq!(code, Some(0), "{status}");
    address(&lab, "del", FLOATING);
    thread::sleep(IN_FORCE);
    // Another host has the address now: a packet from there is not a spoofed source.
    let spoofed = lab.stats().reason("spoofed-source", "inbound", "drop");
    let words = ["address", "add", "10.77.0.100/24", "dev", INTERFACE];
    assert!(lab.peer.command("ip").unwrap().args(words).status().unwrap().success());
    let before = lab.stats().reason("port-known", "inbound", "drop");
    sends(&lab.peer, SERVER);
    assert!(lab.stats().reason("port-known", "inbound", "drop") > before, "{}", lab.stats());
    assert_eq!(lab.stats().reason("spoofed-source", "inbound", "drop"), spoofed, "{}", lab.stats());
}

#[test]
fn floating_address_fails_over_with_the_daemon_dead() {
    let Some(lab) = lab("floating_address_fails_over_with_the_daemon_dead") else { return };
    let daemon = Daemon::start(&lab);
    daemon.kill();
    thread::sleep(LAPSED);
    address(&lab, "add", FLOATING);
    assert!(
        opens(&lab.peer, FLOATING, LISTED),
        "nobody told the programs, and nobody has to: {}",
        lab.stats()
    );
    address(&lab, "del", FLOATING);
}

#[test]
fn unlisted_address_is_named_and_failsafe_rows_hold_there() {
    let Some(lab) = lab("unlisted_address_is_named_and_failsafe_rows_hold_there") else { return };
    let daemon = Daemon::start(&lab);
    let (code, status) = said(&lab, &["status"]);
    assert_eq!(code, Some(0), "{status}");
    address(&lab, "add", EXTRA);
    soon("the way in holds at the new address", || opens(&lab.stranger, EXTRA, UNLISTED));
    soon("`status` names it", || said(&lab, &["status"]).1.contains("address-unlisted"));
    let (code, status) = said(&lab, &["status"]);
    assert_eq!(code, Some(3), "{status}");
    assert!(status.contains("10.77.0.77"), "{status}");
    assert!(is_shut(&lab.peer, EXTRA, LISTED), "a row holds at listed addresses alone");
    assert!(lab.stats().reason("not-local-known", "inbound", "drop") > 0, "{}", lab.stats());
    for words in [&["check"][..], &["stats"]] {
        let (_, text) = said(&lab, words);
        assert!(text.contains("10.77.0.77"), "{words:?}: {text}");
    }
    assert!(said(&lab, &["stats"]).1.contains("ATTENTION"));
    assert!(lab.metrics().contains("pomguard_state{state=\"address-unlisted\"} 1"), "{}", lab.metrics());
    let (code, text) = said(&lab, &["explain", "10.77.0.2", "10.77.0.77:9970/tcp"]);
    assert!(text.contains("DROP") && text.contains("not-local-known") && code == Some(3), "{code:?} {text}");
    let (code, text) = said(&lab, &["explain", "10.77.0.3", "10.77.0.77:9000/tcp"]);
    assert!(text.contains("PASS") && text.contains("way-in") && code == Some(0), "{code:?} {text}");

    // The other value of `own_addresses`.
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("own_addresses = \"machine\"\n{config}")).unwrap();
    daemon.reload();
    assert!(opens(&lab.peer, EXTRA, LISTED), "{}", lab.stats());
    soon("nothing is to be said of it any more", || said(&lab, &["status"]).0 == Some(0));
    // An address that comes while the daemon runs, and an address that belongs to another host.
    let (later, theirs) = (Ipv4Addr::new(10, 77, 0, 78), Ipv4Addr::new(10, 77, 0, 4));
    address(&lab, "add", later);
    soon("a later address is served", || opens(&lab.peer, later, LISTED));
    address(&lab, "add", theirs);
    soon("somebody else's is not taken", || said(&lab, &["status"]).1.contains("address-conflict"));
    assert!(is_shut(&lab.peer, theirs, LISTED));
}

#[test]
fn missing_address_is_named_with_the_one_that_is_there() {
    let Some(lab) = lab("missing_address_is_named_with_the_one_that_is_there") else { return };
    let _daemon = Daemon::start(&lab);
    address(&lab, "del", SERVER);
    address(&lab, "add", EXTRA);
    soon("`status` names both", || {
        let (code, status) = said(&lab, &["status"]);
        let missing = status.contains("address-missing: 10.77.0.1 is on no");
        code == Some(3) && missing && status.contains("eth0 has 10.77.0.77")
    });
}

#[test]
fn address_that_changes_leaves_a_pending_confirmation_alone() {
    let Some(lab) = lab("address_that_changes_leaves_a_pending_confirmation_alone") else { return };
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("own_addresses = \"machine\"\n{config}")).unwrap();
    let _daemon = Daemon::start(&lab);
    lab.write_site(&format!("{SITE}\n[[row]]\nid = \"pom-4.0/15\"\nports = \"19970\"\nforce = true\n"));
    let (code, text) = said(&lab, &["apply", "--confirm-within", "6s", "--yes", "--why", "trial"]);
    assert_eq!(code, Some(0), "{text}");
    let generation = lab.stats().generation();
    address(&lab, "add", EXTRA);
    soon("the way in holds at the new address", || opens(&lab.stranger, EXTRA, UNLISTED));
    assert!(is_shut(&lab.peer, EXTRA, LISTED), "the change is in force");
    assert_eq!(lab.stats().generation(), generation);
    assert!(said(&lab, &["status"]).1.contains("not confirmed"));
    thread::sleep(Duration::from_secs(7));
    soon("the policy before returns, with the new address", || opens(&lab.peer, EXTRA, LISTED));
}
