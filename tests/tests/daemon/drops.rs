//! `pomguard drops` and `suggest`: the denied peers, in both modes and directions, and across restarts.

use std::{os::unix::net::UnixDatagram, thread, time::Duration};

use pomguard_netlab::Offload;
use pomguard_tests::daemon::{
    Daemon, INTERFACE, LISTED, Lab, PEER, SERVER, SERVER6, STRANGER, Settings, Stats, UNLISTED, Wire, opens,
};
use serde_json::Value;

use super::{
    cli::{json, said},
    watch::{metric, wait_until},
};

/// Returns the number of packets of a peer that were denied at a port, by verdict.
fn packets(report: &Value, peer: &str, port: u16, verdict: &str) -> u64 {
    let drops = report["drops"].as_array().unwrap();
    drops
        .iter()
        .filter(|drop| drop["peer"] == peer && drop["port"] == port && drop["verdict"] == verdict)
        .map(|drop| drop["packets"].as_u64().unwrap())
        .sum()
}

/// Returns the number of all packets of a direction and verdict, including packets without a peer.
fn sum(report: &Value, direction: &str, verdict: &str) -> u64 {
    [&report["drops"], &report["rest"]]
        .iter()
        .flat_map(|list| list.as_array().unwrap())
        .filter(|drop| drop["direction"] == direction && drop["verdict"] == verdict)
        .map(|drop| drop["packets"].as_u64().unwrap())
        .sum()
}

#[test]
fn drops_name_known_systems_and_strangers_in_audit_and_enforce() {
    let Some(lab) = Lab::new("drops_name_known_systems_and_strangers_in_audit_and_enforce") else { return };
    lab.write_settings(&Settings { inbound: "audit", outbound: "audit", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, LISTED));
    assert!(opens(&lab.server, STRANGER, UNLISTED), "outbound in audit");
    assert!(opens(&lab.peer, SERVER6, UNLISTED));
    let report = json(&lab, &["drops"]);
    let (peer, stranger) = (PEER.to_string(), STRANGER.to_string());
    assert!(packets(&report, &peer, UNLISTED, "audit") > 0, "{report:#}");
    let named = json(&lab, &["drops", "--peer", "WFO"]);
    assert!(packets(&named, &peer, UNLISTED, "audit") > 0, "a system of the site file: {named:#}");
    assert_eq!(packets(&named, &stranger, LISTED, "audit"), 0, "{named:#}");
    let nobody = lab.pomguard(&["drops", "--peer", "nobody"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", said(&nobody));
    assert!(said(&nobody).contains("write an address") && said(&nobody).contains("nobody"));
    assert!(packets(&report, &stranger, LISTED, "audit") > 0, "{report:#}");
    let drops = report["drops"].as_array().unwrap();
    assert!(drops.iter().any(|drop| drop["peer"] == "fd00:77::2" && drop["port"] == UNLISTED), "{report:#}");
    let outward = |drop: &&Value| drop["direction"] == "outbound" && drop["reason"] == "destination";
    let outward = drops.iter().find(outward).unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!((&outward["peer"], &outward["port"]), (&stranger.as_str().into(), &UNLISTED.into()));
    let known = drops.iter().find(|drop| drop["reason"] == "port-known").unwrap();
    assert!(known["system"].is_string() && known["known"] == true, "{known:#}");
    let listed = drops.iter().find(|drop| drop["reason"] == "source").unwrap();
    assert_eq!((&listed["row"], &listed["known"]), (&"pom-4.0/15".into(), &false.into()), "{listed:#}");

    lab.write_settings(&Settings::default());
    daemon.reload();
    assert!(!opens(&lab.peer, SERVER, UNLISTED) && !opens(&lab.stranger, SERVER, LISTED));
    let peers = |verdict: &str| {
        metric(&lab, &format!("pomguard_known_peers_dropped{{direction=\"inbound\",verdict=\"{verdict}\"}}"))
    };
    // The peer by both families in audit, by one in enforce; the stranger counts nowhere.
    wait_until("the peers are counted", &daemon, || (peers("audit"), peers("drop")) == (2, 1));
    let report = json(&lab, &["drops"]);
    assert!(packets(&report, &peer, UNLISTED, "drop") > 0, "{report:#}");
    assert!(packets(&report, &stranger, LISTED, "drop") > 0, "{report:#}");
    // A packet may arrive between two readings.
    let totals = |stats: &Stats| {
        [("inbound", "dropped"), ("inbound", "audited"), ("outbound", "dropped"), ("outbound", "audited")]
            .map(|(direction, outcome)| stats.total(direction, outcome))
    };
    let agree = (0..20).any(|_| {
        let (before, report) = (totals(&lab.stats()), json(&lab, &["drops"]));
        let after = totals(&lab.stats());
        let recorded =
            [("inbound", "drop"), ("inbound", "audit"), ("outbound", "drop"), ("outbound", "audit")]
                .map(|(direction, verdict)| sum(&report, direction, verdict));
        println!("counted {before:?} to {after:?}, recorded {recorded:?}");
        before == after && before == recorded
    });
    assert!(agree, "what is recorded adds up to what is counted");

    // Filters, and the text output.
    let only = json(&lab, &["drops", "--strangers", "--port", &LISTED.to_string()]);
    assert!(
        only["drops"].as_array().unwrap().iter().all(|drop| drop["peer"] == stranger.as_str()),
        "{only:#}"
    );
    let only = json(&lab, &["drops", "--peer", &peer, "--reason", "port-known", "--since", "1h"]);
    assert!(only["drops"].as_array().unwrap().len() >= 2, "{only:#}");
    // A stranger is recorded by prefix: a line that could be the address says that it stands for the prefix.
    for asked in [&stranger, "10.77.0.99"] {
        let text = said(&lab.pomguard(&["drops", "--peer", asked]));
        assert!(text.contains("these lines stand for 10.77.0.0/24"), "{asked}: {text}");
        assert!(text.contains("the first packet came from 10.77.0.3"), "{asked}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
    let exact = said(&lab.pomguard(&["drops", "--peer", &peer]));
    let at = exact.find("stand for 10.77.0.0/24").unwrap_or_else(|| panic!("{exact}"));
    assert!(exact.find(&peer).is_some_and(|own| own < at), "the address itself comes first: {exact}");
    let text = said(&lab.pomguard(&["drops", "--peer", "10.77.0.0/24"]));
    assert!(!text.contains("stand for"), "the whole prefix was asked for: {text}");
    let outside = json(&lab, &["drops", "--peer", "10.77.1.3"]);
    assert_eq!(outside["drops"].as_array().map(Vec::len), Some(0), "{outside:#}");
    let rows = said(&lab.pomguard(&["suggest", "--strangers", "--peer", "10.77.0.99"]));
    assert!(!rows.contains("from = "), "nobody saw this address: {rows}");
    let text = said(&lab.pomguard(&["drops"]));
    assert!(text.lines().next().unwrap().starts_with("known systems: "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains(&peer) && text.contains(&format!("{UNLISTED}/tcp")), "{text}");
}

#[test]
fn history_of_drops_outlives_daemon_and_reboot() {
    let Some(lab) = Lab::new("history_of_drops_outlives_daemon_and_reboot") else { return };
    let daemon = Daemon::start(&lab);
    assert!(!opens(&lab.peer, SERVER, UNLISTED));
    thread::sleep(Duration::from_secs(2));
    let peer = PEER.to_string();
    let count = |since: &str| packets(&json(&lab, &["drops", "--since", since]), &peer, UNLISTED, "drop");
    let first = count("7d");
    assert!(first > 0);
    assert!(daemon.stop().success());
    assert_eq!(count("7d"), first, "the daemon is dead");
    let daemon = Daemon::start(&lab);
    assert_eq!(count("7d"), first, "no packet counts twice");
    assert!(!opens(&lab.peer, SERVER, UNLISTED));
    thread::sleep(Duration::from_secs(2));
    let second = count("7d");
    assert!(second > first);
    assert!(daemon.stop().success());
    // Simulates a reboot: nothing is left in the kernel.
    assert!(lab.pomguard(&["detach", "--yes"]).status.success());
    assert_eq!(count("7d"), second);
    let _daemon = Daemon::start(&lab);
    assert_eq!(count("7d"), second, "a new table goes on from there");
    assert!(!opens(&lab.peer, SERVER, UNLISTED));
    assert!(count("1h") > second);
}

#[test]
fn suggested_rows_let_the_denied_through() {
    let Some(lab) = Lab::new("suggested_rows_let_the_denied_through") else { return };
    let daemon = Daemon::start(&lab);
    assert!(!opens(&lab.peer, SERVER, UNLISTED) && !opens(&lab.stranger, SERVER, LISTED));
    let rows = said(&lab.pomguard(&["suggest"]));
    assert!(rows.contains(&format!("from = [\"{PEER}\"]")), "{rows}");
    assert!(!rows.contains(&STRANGER.to_string()), "a stranger is not suggested: {rows}");
    lab.write_site(&rows);
    daemon.reload();
    assert!(opens(&lab.peer, SERVER, UNLISTED), "{rows}");
    assert!(!opens(&lab.peer, SERVER, UNLISTED + 1) && !opens(&lab.stranger, SERVER, UNLISTED));
    let rows = said(&lab.pomguard(&["suggest"]));
    assert!(!rows.contains(&format!("ports = \"{UNLISTED}\"")), "it has its row by now: {rows}");
    let rows = said(&lab.pomguard(&["suggest", "--strangers"]));
    assert!(rows.contains(&format!("from = [\"{STRANGER}\"]")), "{rows}");
}

#[test]
fn tagged_frame_is_recorded_with_its_vlan() {
    let Some(lab) = Lab::with_one_cable("tagged_frame_is_recorded_with_its_vlan") else { return };
    // Otherwise the card passes the tag outside the frame.
    lab.peer.link(INTERFACE).set_offload(Offload::TxVlan, false).unwrap();
    let _daemon = Daemon::start(&lab);
    let mut frame = vec![0xff_u8; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 0x81, 0, 0, 77, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(PEER.octets());
    frame.extend(SERVER.octets());
    frame.extend([0; 20]);
    Wire::of(&lab.peer).send(&frame);
    let report = json(&lab, &["drops", "--reason", "vlan-unknown"]);
    let drop = &report["drops"][0];
    assert_eq!((&drop["vlan"], &drop["peer"]), (&77.into(), &PEER.to_string().into()), "{report:#}");
}

#[test]
fn journal_has_a_line_with_fields_for_a_known_system() {
    let Some(lab) = Lab::new("journal_has_a_line_with_fields_for_a_known_system") else { return };
    let Some(socket) = journal() else { return };
    let _daemon = Daemon::start(&lab);
    assert!(!opens(&lab.peer, SERVER, UNLISTED));
    // The daemon also tells the journal about the start.
    let mut datagram = vec![0; 4_096];
    let text = loop {
        let length = socket.recv(&mut datagram).unwrap();
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        if text.contains("POMGUARD_PEER=") {
            break text;
        }
    };
    for field in [
        "POMGUARD_REASON=port-known\n".to_owned(),
        format!("POMGUARD_PEER={PEER}\n"),
        format!("POMGUARD_PORT={UNLISTED}\n"),
        "PRIORITY=4\n".to_owned(),
    ] {
        assert!(text.contains(&field), "{field} is not in {text}");
    }
}

/// Returns a socket at the journal's path, visible only to this thread and its children. Returns `None` if
/// the folder cannot be hidden.
fn journal() -> Option<UnixDatagram> {
    use nix::mount::{MsFlags, mount};
    let nothing: Option<&str> = None;
    mount(Some("tmpfs"), "/run/systemd", Some("tmpfs"), MsFlags::empty(), nothing)
        .inspect_err(|error| eprintln!("skipped: /run/systemd cannot be hidden: {error}"))
        .ok()?;
    std::fs::create_dir_all("/run/systemd/journal").unwrap();
    let socket = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    Some(socket)
}
