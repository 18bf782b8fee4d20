//! The port space, exhaustively: every system of a site against each of its hosts, all 65,536 ports, TCP and
//! UDP, both families, both directions. The loaded program must agree with the plain oracle.

#![expect(clippy::expect_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use pomguard::{
    input::{Draft, site::Place},
    policy::{self, Direction, Policy, oracle},
};
use pomguard_common::protocol::{TCP, UDP};
use pomguard_tests::{
    harness::{Bench, Subject as _, bench},
    packet::eth,
};

const EXAMPLE: &str = include_str!("../../config/site.example.toml");
/// The site of `cargo xtask demo`; a test alongside the demo compares this copy with the demo's output.
const DEMO: &str = include_str!("../site/demo.toml");
const CLIENT_PORT: u16 = 40_000;
/// Addresses that no site has (RFC 5737, RFC 3849).
const OUTSIDERS: [&str; 2] = ["198.51.100.77", "2001:db8::77"];

#[test]
fn every_port_of_the_example_site_answers_as_the_oracle() {
    prove("every_port_of_the_example_site_answers_as_the_oracle", EXAMPLE);
}

#[test]
fn every_port_of_the_demo_site_answers_as_the_oracle() {
    prove("every_port_of_the_demo_site_answers_as_the_oracle", DEMO);
}

/// Returns the policies of all hosts of a site, each with the addresses of all other machines.
fn policies(site: &str) -> Vec<(Policy, BTreeSet<IpAddr>)> {
    let settings = |host: &str| {
        format!(
            "site = \"site.toml\"\n{host}interfaces = [\"eth0\"]\n\
             [enforcement]\ninbound = \"enforce\"\noutbound = \"enforce\"\n"
        )
    };
    let read = |host: &str| {
        let settings = settings(host);
        let draft = Draft::from_texts(("pomguard.toml", &settings), ("site.toml", site));
        draft.unwrap_or_else(|faults| panic!("the site reads: {faults:?}"))
    };
    let names: Vec<String> = read("").site.hosts.iter().map(|host| host.name.value.clone()).collect();
    names
        .iter()
        .map(|name| {
            let draft = read(&format!("host = \"{name}\"\n"));
            let policy = policy::resolve(&draft, &[]).unwrap_or_else(|faults| panic!("resolves: {faults:?}"));
            let others = others(&draft, &policy);
            (policy, others)
        })
        .collect()
}

/// Returns the first address of every system in each family, of every literal in the rows, and the outsiders.
fn others(draft: &Draft, policy: &Policy) -> BTreeSet<IpAddr> {
    let hosts = draft.site.hosts.iter().flat_map(|host| host.addresses.iter().map(|at| at.value.addr()));
    let mut found: BTreeSet<IpAddr> = hosts.collect();
    for group in &draft.site.peers {
        let prefixes = || group.addresses.iter().flat_map(|at| &at.value);
        found.extend(prefixes().map(ipnet::IpNet::addr).find(IpAddr::is_ipv4));
        found.extend(prefixes().map(ipnet::IpNet::addr).find(IpAddr::is_ipv6));
    }
    let literals = draft.site.allows.iter().flat_map(|allow| allow.from.iter().chain(&allow.to));
    for written in literals {
        if let Place::Addresses(prefixes) = &written.place {
            found.extend(prefixes.iter().filter_map(|prefix| prefix.hosts().next()));
        }
    }
    found.extend(OUTSIDERS.map(|text| text.parse::<IpAddr>().expect("an address")));
    found.retain(|address| !policy.local.contains(address));
    found
}

/// This host and one other side.
#[derive(Clone, Copy)]
struct Pair {
    host: IpAddr,
    other: IpAddr,
    direction: Direction,
    protocol: u8,
}

impl Pair {
    fn frame(&self, client: u16, port: u16) -> Vec<u8> {
        let (from, to) = match self.direction {
            Direction::Inbound => (self.other, self.host),
            Direction::Outbound => (self.host, self.other),
        };
        let packet = eth().ip(from, to);
        let packet = if self.protocol == TCP { packet.tcp(client, port) } else { packet.udp(client, port) };
        packet.build()
    }

    /// Returns the offset of the destination port. Changing the port needs no new checksum, because the
    /// programs ignore checksums.
    const fn port_at(&self) -> usize {
        14 + if self.host.is_ipv6() { 40 } else { 20 } + 2
    }

    fn opening(&self, client: u16, port: u16) -> oracle::Opening {
        let (source, destination) = match self.direction {
            Direction::Inbound => (self.other, self.host),
            Direction::Outbound => (self.host, self.other),
        };
        let Self { direction, protocol, .. } = *self;
        oracle::Opening {
            direction,
            source,
            source_port: client,
            destination,
            destination_port: port,
            protocol,
        }
    }

    fn tell(&self, host: &str) -> String {
        let (direction, name) = (self.direction.name(), if self.protocol == TCP { "TCP" } else { "UDP" });
        format!("{host} {direction} with {} over {name}", self.other)
    }
}

fn prove(what: &str, site: &str) {
    let (mut asked, mut passed) = (0_u64, 0);
    let begun = Instant::now();
    for (policy, others) in policies(site) {
        let Some(mut bench) = bench(what, policy.clone()) else { return };
        for &other in &others {
            let same = |address: &&IpAddr| address.is_ipv6() == other.is_ipv6();
            let Some(&host) = policy.local.iter().find(same) else { continue };
            for direction in Direction::ALL {
                for protocol in [TCP, UDP] {
                    let pair = Pair { host, other, direction, protocol };
                    passed += all_ports(&mut bench, &policy, pair);
                    edges(&mut bench, &policy, pair);
                    asked += 65_536;
                }
            }
        }
    }
    println!("{asked} openings in {:.1?}, {passed} of them allowed: no difference", begun.elapsed());
    assert_ne!(passed, 0, "a site that allows nothing proves nothing");
}

/// Compares the verdict of every port. Returns the number of allowed ports.
fn all_ports(bench: &mut Bench, policy: &Policy, pair: Pair) -> usize {
    let (differs, passed) = std::thread::scope(|scope| {
        let oracle = scope.spawn(|| {
            let allows = |port| oracle::judge(policy, &pair.opening(CLIENT_PORT, port)).first.is_some();
            (0..=u16::MAX).map(allows).collect::<Vec<bool>>()
        });
        let mut frame = pair.frame(CLIENT_PORT, 1);
        let at = pair.port_at();
        let found: Vec<bool> = (0..=u16::MAX)
            .map(|port| {
                frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
                bench.probe.verdict(pair.direction, &frame).expect("the frame runs")
            })
            .collect();
        let expected = oracle.join().expect("the oracle answers");
        let passed = found.iter().filter(|&&passed| passed).count();
        (found.into_iter().zip(expected).position(|(found, expected)| found != expected), passed)
    });
    assert_eq!(differs, None, "{}: the first port that differs", pair.tell(&policy.host));
    passed
}

/// Compares the counted row at every edge of the listed ports and of the client ports.
fn edges(bench: &mut Bench, policy: &Policy, pair: Pair) {
    let mut ports = BTreeSet::new();
    let mut clients = BTreeSet::from([1, CLIENT_PORT, u16::MAX]);
    for row in policy.rows_in(pair.direction) {
        let near = row.peers.iter().any(|peer| peer.prefix.contains(&pair.other));
        let services = row.services.iter().filter(|service| near && service.protocol == pair.protocol);
        for edge in services.flat_map(|service| [service.ports.first, service.ports.last]) {
            ports.extend([edge.saturating_sub(1), edge, edge.saturating_add(1)]);
        }
        let client = row.client_ports;
        clients.extend([
            client.first.saturating_sub(1),
            client.first,
            client.last,
            client.last.saturating_add(1),
        ]);
    }
    for (port, client) in ports.iter().flat_map(|&port| clients.iter().map(move |&client| (port, client))) {
        // Port 0 is always dropped, whatever a row for any client port says.
        if port == 0 || client == 0 {
            continue;
        }
        let finding = bench.probe.run(pair.direction, &pair.frame(client, port)).expect("the frame runs");
        let expected = oracle::judge(policy, &pair.opening(client, port)).first;
        let found = finding.passes.then(|| bench.in_force().row_name(finding.row).to_owned());
        let tell = pair.tell(&policy.host);
        assert_eq!(found, expected.map(|row| row.0), "{tell}: from port {client} to {port}: {finding:?}");
    }
}
