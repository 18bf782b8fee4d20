use std::collections::BTreeMap;

use pomguard_common::{
    decide::Decision,
    drops::{DropKey, End, PeerKind},
};

use super::*;
use crate::{
    input::Draft,
    observe::drops::{
        Counts,
        ledger::Hour,
        report::{DropsReport, Query},
    },
    policy::{oracle::judge, resolve},
};

const SETTINGS: &str = include_str!("../../../../config/pomguard.toml");
pub(in crate::render) const SITE: &str = "matrix = \"pom-4.0\"\nzones = 3\n\
    [[host]]\nname = \"pom1\"\naddresses = [\"10.20.0.11\", \"fd00:20::11\"]\nsystems = [\"Agent Manager\"]\n\
    [[peer]]\nname = \"backup\"\nsystems = [\"WFO\"]\naddresses = [\"10.30.0.0/24\", \"fd00:30::/64\"]\n\
    [[allow]]\nname = \"seen-tcp-from-10.30.0.9\"\nfrom = [\"10.9.0.1\"]\nto = [\"pom1\"]\nports = \"22\"\n\
    protocol = \"tcp\"\n[end]\n";

fn draft(site: &str) -> Draft {
    Draft::from_texts(("pomguard.toml", SETTINGS), ("site.toml", site))
        .unwrap_or_else(|faults| panic!("{faults}"))
}

pub(in crate::render) fn policy(site: &str) -> Policy {
    resolve(&draft(site), &[IpAddr::from([10, 20, 0, 11])]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Returns drops by direction, reason, peer, protocol and port.
pub(in crate::render) fn items(policy: &Policy, drops: &[(Direction, Reason, &str, u8, u16)]) -> Vec<Item> {
    let mut hour = Hour::default();
    for (direction, reason, peer, protocol, port) in drops {
        let (words, kind) = match peer.parse::<IpAddr>().unwrap() {
            IpAddr::V4(v4) => ([u64::from(v4.to_bits()) << 32, 0], PeerKind::V4),
            IpAddr::V6(v6) => ([(v6.to_bits() >> 64) as u64, v6.to_bits() as u64], PeerKind::V6),
        };
        let end =
            End { peer: words, kind, port: *port, other_port: 40_000, protocol: *protocol, ..End::NOBODY };
        let known = u64::from(reason.concerns_known_system() || *reason == Reason::Destination);
        let key = DropKey::new(*direction, Decision::because(*reason), known, end);
        let counts = Counts { packets: 3, bytes: 180, first: 7, last: 9, peer: words, other_port: 40_000 };
        hour.table.insert(key, counts);
    }
    DropsReport::new(&hour, &Query::default(), Some(policy), 100).drops
}

pub(in crate::render) const DROPS: &[(Direction, Reason, &str, u8, u16)] = &[
    (Direction::Inbound, Reason::PortKnown, "10.30.0.9", 6, 13_724),
    (Direction::Inbound, Reason::PortKnown, "10.30.0.9", 6, 13_725),
    (Direction::Inbound, Reason::PortKnown, "10.30.0.9", 6, 65_535),
    (Direction::Inbound, Reason::PortKnown, "10.30.0.9", 17, 161),
    (Direction::Inbound, Reason::PortKnown, "fd00:30::9", 6, 13_724),
    (Direction::Inbound, Reason::ProtocolKnown, "10.30.0.10", 47, 0),
    (Direction::Inbound, Reason::IcmpType, "10.30.0.11", 1, 0x0800),
    (Direction::Outbound, Reason::Destination, "10.30.0.12", 6, 1_556),
    (Direction::Inbound, Reason::Port, "192.0.2.7", 6, 8_080),
    (Direction::Inbound, Reason::NoFlowKnown, "10.30.0.9", 6, 443),
    (Direction::Inbound, Reason::IcmpType, "10.30.0.11", 1, 0x0d00),
];

#[test]
fn rows_let_these_packets_pass_and_no_others() {
    let before = policy(SITE);
    let items = items(&before, DROPS);
    let taken = draft(SITE).site.allows.iter().map(|allow| allow.name.value.clone()).collect();
    let suggestion = suggest(&items, &before, &taken);
    let after = policy(&with_rows(SITE, &suggestion.text()));
    assert_eq!(suggestion.left, BTreeMap::from([("no-flow-known", 3), ("icmp-type", 3)]));
    assert_eq!(suggestion.rows.len(), 7, "{}", suggestion.text());
    assert!(
        suggestion.text().contains("seen-tcp-from-10.30.0.9-2"),
        "the name was taken: {}",
        suggestion.text()
    );
    assert!(suggestion.text().contains("13724-13725, 65535"), "{}", suggestion.text());
    let passes = |policy: &Policy, opening: &Opening| judge(policy, opening).first.is_some();
    let mut wanted = BTreeSet::new();
    for item in &items {
        let local = if item.peer.contains(':') { before.local[1] } else { before.local[0] };
        let Some(opening) = opening(item, local) else { continue };
        assert!(!passes(&before, &opening) && passes(&after, &opening), "{opening:?}\n{}", suggestion.text());
        wanted.insert((
            opening.direction as u8,
            opening.source,
            opening.destination,
            opening.protocol,
            opening.destination_port,
        ));
    }
    // All neighbours: other addresses, ports, protocols, and the other direction.
    let near = |address: IpAddr| match address {
        IpAddr::V4(v4) => {
            [0, 1, u32::MAX].map(|by| IpAddr::from(v4.to_bits().wrapping_add(by).to_be_bytes()))
        }
        IpAddr::V6(v6) => {
            [0, 1, u128::MAX].map(|by| IpAddr::from(v6.to_bits().wrapping_add(by).to_be_bytes()))
        }
    };
    let mut tried = 0;
    for item in &items {
        let local = if item.peer.contains(':') { before.local[1] } else { before.local[0] };
        let port = item.port.unwrap_or_default();
        for peer in near(item.peer.parse().unwrap()) {
            for port in [port.wrapping_sub(1), port, port.wrapping_add(1)] {
                for protocol in [1, 6, 17, 47, 58] {
                    for direction in Direction::ALL {
                        let (source, destination) =
                            if direction == Direction::Inbound { (peer, local) } else { (local, peer) };
                        let has_ports = matches!(protocol, 6 | 17);
                        let opening = Opening {
                            direction,
                            source,
                            source_port: if has_ports { 50_000 } else { 0 },
                            destination,
                            destination_port: if has_ports { port } else { 0 },
                            protocol,
                        };
                        let asked = (direction as u8, source, destination, protocol);
                        let seen = wanted
                            .iter()
                            .any(|(a, b, c, d, p)| (*a, *b, *c, *d) == asked && (!has_ports || *p == port));
                        let expected = passes(&before, &opening) || seen;
                        assert_eq!(passes(&after, &opening), expected, "{opening:?}\n{}", suggestion.text());
                        tried += 1;
                    }
                }
            }
        }
    }
    assert!(tried > 900, "{tried}");
}

#[test]
fn evidence_and_doubts_stand_alongside_the_rows() {
    let before = policy(SITE);
    let text = suggest(&items(&before, DROPS), &before, &BTreeSet::new()).text();
    assert!(
        text.contains("# 13724/tcp drop: 3 packets, port-known\n#   first 1970-01-01 00:00 UTC"),
        "{text}"
    );
    assert!(text.contains("# ---- backup") && text.contains("# ---- strangers"), "{text}");
    assert!(text.contains("Anybody can send UDP packets under this address"), "{text}");
    assert!(text.contains("counted for all of 192.0.2.0/24"), "{text}");
}

#[test]
fn rows_go_before_the_mark_at_the_end_of_a_file() {
    assert_eq!(with_rows("a\n[end]\n", "rows"), "a\n\nrows\n[end]\n");
    assert_eq!(with_rows("a\n", "rows"), "a\n\nrows");
}
