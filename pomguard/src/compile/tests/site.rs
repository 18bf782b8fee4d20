//! Compiles the text of the example site into an image.

use super::*;
use crate::{compile::labels, input::Draft, policy::resolve};

const SITE: &str = include_str!("../../../../config/site.example.toml");
const SETTINGS: &str = include_str!("../../../../config/pomguard.toml");

fn pom1() -> Policy {
    let draft = Draft::from_texts(("pomguard.toml", SETTINGS), ("site.toml", SITE)).expect("the example");
    resolve(&draft, &[IpAddr::from([10, 20, 0, 11])]).expect("pom1")
}

#[test]
fn every_port_of_every_peer_is_judged_as_the_policy_says() {
    let case = Case::new(pom1());
    let policy = &case.policy;
    // One address of each system is enough: addresses of one system share a class, or are compared below.
    let mut peers: Vec<IpAddr> = Vec::new();
    let mut systems = std::collections::BTreeSet::new();
    for known in &policy.known {
        if systems.insert((&known.name, known.prefix.addr().is_ipv4())) {
            peers.push(known.prefix.network());
        }
    }
    peers.extend([IpAddr::from([203, 0, 113, 9]), "2001:db8::9".parse().expect("an address")]);
    assert!(peers.len() > 15, "{peers:?}");
    for &other in &peers {
        for direction in Direction::ALL {
            for protocol in [6, 17] {
                for port in 0..=u16::MAX {
                    let opening = opening(direction, other, protocol, port, 40_000);
                    case.agrees(&opening);
                }
            }
        }
    }
}

#[test]
fn every_prefix_of_the_example_is_judged_at_its_edges() {
    let case = Case::new(pom1());
    let policy = &case.policy;
    let ports: Vec<(u8, u16)> = policy
        .rows
        .iter()
        .flat_map(|row| &row.services)
        .flat_map(|service| [(service.protocol, service.ports.first), (service.protocol, service.ports.last)])
        .chain([(58, 0), (112, 0)])
        .collect();
    let all = policy.rows.iter().flat_map(|row| row.peers.iter().map(|peer| peer.prefix));
    let all: std::collections::BTreeSet<IpNet> =
        all.chain(policy.known.iter().map(|known| known.prefix)).collect();
    for at in all.into_iter().flat_map(edges) {
        assert_eq!(class(&case.image, at).known(), is_known(policy, at), "{at}");
        for direction in Direction::ALL {
            for &(protocol, port) in &ports {
                let clients: &[u16] =
                    if matches!(protocol, 6 | 17) { &[1_023, 1_024, u16::MAX] } else { &[0] };
                for &client in clients {
                    let port = if matches!(protocol, 6 | 17) { port } else { 0 };
                    let opening = opening(direction, at, protocol, port, client);
                    case.agrees(&opening);
                }
            }
        }
    }
}

#[test]
fn the_labels_say_what_is_enforced() {
    let policy = pom1();
    let slots = slots(&policy);
    let labels = labels(&policy, &slots);
    assert_eq!(labels.len(), policy.rows.len());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let find = |id: &str| {
        let found = labels.iter().find(|(_, label)| text(&label.id) == id);
        found.map_or_else(|| panic!("no {id}"), |(_, label)| *label)
    };
    let desktops = find("pom-4.0/15");
    assert_eq!(text(&desktops.ports), "9970-9973 tcp");
    assert_eq!(text(&desktops.source), "Agent Desktop");
    assert_eq!((desktops.live, desktops.failsafe), (1, 0));
    assert_eq!(find("site/ssh-ops").failsafe, 1);
    assert_eq!(text(&find("site/dns").ports), "53 tcp/udp");
    assert_eq!(text(&find("site/ping-ops").ports), "icmp");
}
