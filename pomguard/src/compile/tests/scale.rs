//! Tests with a hundred thousand tuples, in shapes that sites have.

use std::time::Instant;

use pomguard_common::limits::{IMAGE_LINES, TUPLES};

use super::*;

/// A simple random generator (Knuth's MMIX constants): the shapes are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }
}

/// Returns distinct prefixes from `make`.
fn distinct(count: usize, mut make: impl FnMut() -> IpNet) -> Vec<IpNet> {
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count {
        seen.insert(make().trunc());
    }
    seen.into_iter().collect()
}

fn random_v4(numbers: &mut Numbers, length: u8) -> IpNet {
    IpNet::new(address(u128::from(numbers.next() as u32), true), length).expect("a length")
}

fn random_v6(numbers: &mut Numbers, length: u8) -> IpNet {
    let low = u128::from(numbers.next()) << 60 ^ u128::from(numbers.next());
    IpNet::new(address(0xfd << 120 | low, false), length).expect("a length")
}

/// Returns rows of `width` peers each, all with the same services.
fn rows(peers: &[IpNet], width: usize, services: &[Service]) -> Policy {
    let rows = peers
        .chunks(width)
        .zip(0..)
        .map(|(peers, number)| row(&format!("test-1/{number}"), Direction::Inbound, peers, services));
    policy(rows.collect())
}

/// Compiles, prints the duration, and compares some of the answers.
fn fits(shape: &str, policy: &Policy) {
    let slots = slots(policy);
    let begin = Instant::now();
    let image = compile(policy, &slots, CLOCK, 1).unwrap_or_else(|error| panic!("{shape}: {error}"));
    println!(
        "{shape}: {:?}, {:?} seed {}",
        begin.elapsed(),
        image.record(),
        image.lines()[0].word(image::head::SEED)
    );
    assert!(image.used() <= IMAGE_LINES && image.tuples() <= TUPLES, "{shape}");
    let mut numbers = Numbers(7);
    let peers: usize = policy.rows.iter().map(|row| row.peers.len()).sum();
    for _ in 0..(1_000_000 / peers).clamp(8, 60) {
        let row = &policy.rows[numbers.next() as usize % policy.rows.len()];
        let prefix = row.peers[numbers.next() as usize % row.peers.len()].prefix;
        let service = &row.services[numbers.next() as usize % row.services.len()];
        for at in edges(prefix) {
            for port in [service.ports.first.wrapping_sub(1), service.ports.first, service.ports.last] {
                let opening = opening(Direction::Inbound, at, service.protocol, port, 5_000);
                let difference = difference(policy, &image, &slots, &opening);
                assert_eq!(difference, None, "{shape}");
            }
        }
    }
    // Every prefix is found, whatever bucket it was moved to.
    for row in &policy.rows {
        for peer in &row.peers {
            assert_ne!(class(&image, peer.prefix.network()).0, 0, "{shape}: {}", peer.prefix);
        }
    }
}

#[test]
fn hosts_at_one_port() {
    let one = [service(TCP, 9_970, 9_970)];
    let mut numbers = Numbers(1);
    fits("v4 hosts, one row", &rows(&distinct(TUPLES, || random_v4(&mut numbers, 32)), TUPLES, &one));
    fits("v4 hosts, 4,000 rows", &rows(&distinct(TUPLES, || random_v4(&mut numbers, 32)), 25, &one));
    fits("v6 hosts, one row", &rows(&distinct(TUPLES, || random_v6(&mut numbers, 128)), TUPLES, &one));
    fits("v6 hosts, 4,000 rows", &rows(&distinct(TUPLES, || random_v6(&mut numbers, 128)), 25, &one));
}

#[test]
fn prefixes_at_many_ports() {
    let mut numbers = Numbers(2);
    let twenty: Vec<Service> = (0..20).map(|at| service(TCP, 9_000 + 3 * at, 9_001 + 3 * at)).collect();
    let five_thousand = distinct(5_000, || random_v4(&mut numbers, 24));
    fits("5,000 prefixes × 20 ports, one row", &rows(&five_thousand, 5_000, &twenty));
    fits("5,000 prefixes × 20 ports, 2,500 rows", &rows(&five_thousand, 2, &twenty));
    // Each row has its own ports, so that no two columns are alike.
    let own = five_thousand.chunks(2).zip(0_u16..).map(|(peers, number)| {
        let services: Vec<Service> =
            (0..20).map(|at| service(TCP, at * 3_000 + number, at * 3_000 + number)).collect();
        row(&format!("test-1/{number}"), Direction::Inbound, peers, &services)
    });
    fits("2,500 rows of their own ports", &policy(own.collect()));
    // Ports drawn from fifty, so that columns differ and cells interleave.
    let drawn = five_thousand.iter().zip(0..4_000).map(|(&peer, number)| {
        let services: Vec<Service> = (0..20)
            .map(|_| 9_000 + (numbers.next() % 50) as u16)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .map(|port| service(TCP, port, port))
            .collect();
        row(&format!("test-1/{number}"), Direction::Inbound, &[peer], &services)
    });
    fits("4,000 rows of ports drawn from fifty", &policy(drawn.collect()));
}

#[test]
fn prefixes_of_random_lengths() {
    let mut numbers = Numbers(3);
    let one = [service(TCP, 9_970, 9_973)];
    let lengths = [8, 16, 20, 22, 24, 26, 28, 30, 32];
    let mixed = distinct(50_000, || {
        let length = lengths[(numbers.next() as usize % 81).isqrt()];
        random_v4(&mut numbers, length)
    });
    fits("50,000 v4 prefixes of nine lengths", &rows(&mixed, 50, &one));
    let near = distinct(TUPLES, || {
        let length = 24 + (numbers.next() % 9) as u8;
        random_v4(&mut numbers, length)
    });
    fits("100,000 v4 prefixes of nine long lengths", &rows(&near, 500, &one));
    let six = distinct(50_000, || {
        let length = [32, 48, 56, 60, 64, 112, 120, 128][(numbers.next() as usize) % 8];
        random_v6(&mut numbers, length)
    });
    fits("50,000 v6 prefixes of eight lengths", &rows(&six, 50, &one));
}

#[test]
fn addresses_in_order() {
    let one = [service(TCP, 9_970, 9_973)];
    let v4 = |step: u32, length: u8, count: u32| -> Vec<IpNet> {
        let prefix = |number: u32| {
            let at = 0x0a00_0000_u32.wrapping_add(number.wrapping_mul(step));
            IpNet::new(address(at.into(), true), length).expect("a length").trunc()
        };
        (0..count).map(prefix).collect()
    };
    for step in [1, 2, 3, 4, 16, 64, 255, 256, 257, 1_000, 4_096, 10_000, 65_537] {
        let count = (u32::MAX / step).min(TUPLES as u32);
        fits(&format!("v4 hosts, step {step}"), &rows(&v4(step, 32, count), TUPLES, &one));
    }
    fits("v4 /24 side by side", &rows(&v4(256, 24, 100_000), TUPLES, &one));
    fits("v4 /16 side by side", &rows(&v4(65_536, 16, 50_000), TUPLES, &one));
    for shift in [0, 8, 16, 32, 64, 80] {
        let prefix = |number: u128| IpNet::from(address((0xfd00_u128 << 112) + (number << shift), false));
        let hosts: Vec<IpNet> = (0..TUPLES as u128).map(prefix).collect();
        fits(&format!("v6 hosts, shifted by {shift}"), &rows(&hosts, TUPLES, &one));
    }
}
