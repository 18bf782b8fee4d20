//! Sites of every shape: IPv6 alone, the smallest, and the largest.

use std::{fmt::Write as _, fs};

use pomguard_tests::daemon::{Daemon, LISTED, Lab, SERVER, SERVER6, UNLISTED, is_shut, opens};

use super::{cli::json, watch::wait_until};

/// The limit of tuples: peer prefixes times port ranges.
const TUPLES: usize = 100_000;

/// The most bytes that a daemon with so many tuples has for itself at rest: half of what a change takes.
const MEMORY: u64 = 30 << 20;

/// Returns the bytes that the process does not share with its files.
fn own_memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

#[test]
fn site_of_ipv6_alone_is_enforced() {
    let Some(lab) = Lab::new("site_of_ipv6_alone_is_enforced") else { return };
    let site = "matrix = \"pom-4.0\"\nzones = 1\n\
                [[host]]\nname = \"server\"\naddresses = [\"fd00:77::1\"]\nsystems = [\"Agent Manager\"]\n\
                [[peer]]\naddresses = [\"fd00:77::2\"]\nsystems = [\"Agent Desktop\"]\n";
    fs::write(lab.site(), site).unwrap();
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER6, LISTED), "{}", daemon.log());
    assert!(is_shut(&lab.peer, SERVER6, UNLISTED) && is_shut(&lab.stranger, SERVER6, LISTED));
    assert!(is_shut(&lab.peer, SERVER, LISTED), "the site gives this host no IPv4 address");
    assert!(lab.stats().reason("not-local", "inbound", "drop") > 0, "{}", lab.stats());
}

#[test]
fn smallest_site_lets_nobody_in() {
    let Some(lab) = Lab::new("smallest_site_lets_nobody_in") else { return };
    let site = "matrix = \"pom-4.0\"\nzones = 1\n\
                [[host]]\nname = \"server\"\naddresses = [\"10.77.0.1\"]\nsystems = [\"Agent Manager\"]\n";
    fs::write(lab.site(), site).unwrap();
    let daemon = Daemon::start(&lab);
    assert!(is_shut(&lab.peer, SERVER, LISTED) && is_shut(&lab.stranger, SERVER, UNLISTED));
    let status = json(&lab, &["status"]);
    assert_eq!(status["host"], "server", "{status:#}\n{}", daemon.log());
    let denied = |reason| lab.stats().reason(reason, "inbound", "drop");
    assert!(denied("source") + denied("port") > 0, "{}", lab.stats());
}

#[test]
fn largest_site_is_taken_and_a_larger_one_refused() {
    let Some(lab) = Lab::new("largest_site_is_taken_and_a_larger_one_refused") else { return };
    let of = |peers: usize| {
        let mut site = "matrix = \"pom-4.0\"\nzones = 1\n\
                        [[host]]\nname = \"server\"\naddresses = [\"10.77.0.1\"]\nsystems = [\"Agent Manager\"]\n\
                        [[allow]]\nname = \"all\"\nto = [\"every-host\"]\nprotocol = \"tcp\"\nports = \"9970\"\n\
                        from = [\"10.77.0.2\""
            .to_owned();
        for number in 1..peers {
            // Each second address: neighbours would become one prefix.
            let [_, b, c, d] = (2 * number as u32).to_be_bytes();
            write!(site, ", \"11.{b}.{c}.{d}\"").unwrap();
        }
        site.push_str("]\n");
        fs::write(lab.site(), site).unwrap();
    };
    of(TUPLES);
    let daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, LISTED), "{}", daemon.log());
    assert!(is_shut(&lab.stranger, SERVER, LISTED));
    for change in ["start", "reload"] {
        // The daemon is ready before it tidies up.
        wait_until(change, &daemon, || own_memory(&daemon) < MEMORY);
        daemon.reload();
    }
    of(TUPLES + 1);
    let output = lab.pomguard(&["check"]);
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("100001") && text.contains("100000"), "{text}");
}
