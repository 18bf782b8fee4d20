//! Tests with more than eight prefix lengths, and with nested prefixes.

use super::*;

fn host(written: &str) -> IpAddr {
    written.parse().expect("an address")
}

#[test]
fn a_narrow_prefix_never_hides_a_wide_one() {
    let wide = tcp("test-1/1", &["10.0.0.0/8"], 443, 443);
    let narrow = tcp("test-1/2", &["10.1.2.0/24"], 80, 80);
    let policy = Policy { known: known(&["10.1.2.3/32"]), ..policy(vec![wide, narrow]) };
    let case = Case::new(policy);
    let image = &case.image;
    for (other, port, granted) in [
        ("10.1.2.3", 443, true),
        ("10.1.2.3", 80, true),
        ("10.1.2.4", 443, true),
        ("10.9.9.9", 443, true),
        ("10.9.9.9", 80, false),
        ("11.0.0.0", 443, false),
    ] {
        let opening = opening(Direction::Inbound, host(other), TCP, port, 5_000);
        case.agrees(&opening);
        assert_eq!(row_match(image, &opening).is_ok(), granted, "{other}:{port}");
    }
    assert!(class(image, host("10.1.2.3")).known());
    assert!(!class(image, host("10.1.2.4")).known());
}

#[test]
fn known_address_without_a_row_is_known_and_denied() {
    let policy = Policy {
        known: known(&["10.9.0.0/24", "fd00:9::/64"]),
        ..policy(vec![tcp("test-1/1", &["10.50.0.0/16"], 443, 443)])
    };
    let image = compiled(&policy);
    for other in ["10.9.0.7", "fd00:9::7"] {
        let found = class(&image, host(other));
        assert!(found.known() && found.offset() == 0, "{other}: {found:?}");
        let opening = opening(Direction::Inbound, host(other), TCP, 443, 5_000);
        assert_eq!(row_match(&image, &opening), refused(MissReason::Peer, false));
    }
    assert_eq!(class(&image, host("10.9.1.0")), Class::NONE);
    assert_eq!(class(&image, host("fd00:9:0:1::")), Class::NONE);
}

#[test]
fn what_covers_everything_needs_no_bucket() {
    let policy = Policy {
        known: known(&["0.0.0.0/0"]),
        ..policy(vec![tcp("test-1/1", &["::/0"], 443, 443), tcp("test-1/2", &["0.0.0.0/0"], 443, 443)])
    };
    let case = Case::new(policy);
    assert_eq!(case.image.record().prefixes, [1, 0], "the host's own address alone");
    for other in ["203.0.113.7", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "ffff::"] {
        case.agrees(&opening(Direction::Inbound, host(other), TCP, 443, 1));
        assert_eq!(class(&case.image, host(other)).known(), host(other).is_ipv4());
    }
}

/// Returns a row per length, each at a different port, around one address.
fn nested(lengths: impl Iterator<Item = u8>, around: IpAddr) -> Policy {
    let rows = lengths.map(|length| {
        let prefix = IpNet::new(around, length).expect("a length").trunc();
        let port = 1_000 + u16::from(length);
        row(&format!("test-1/{length}"), Direction::Inbound, &[prefix], &[service(TCP, port, port)])
    });
    policy(rows.collect())
}

fn every_edge_agrees(policy: &Policy) {
    let case = Case::new(policy.clone());
    for at in policy.rows.iter().flat_map(|row| edges(row.peers[0].prefix)) {
        for length in 0..=128 {
            case.agrees(&opening(Direction::Inbound, at, TCP, 1_000 + length, 5_000));
        }
    }
}

#[test]
fn every_ipv4_length_at_once_is_folded_and_answers_as_before() {
    let policy = nested(0..=32, host("10.20.30.41"));
    let image = compiled(&policy);
    assert_eq!(image.lines()[image::LEVELS_V4 as usize].word(7) & 1, 0, "the shortest kept level");
    assert!(image.record().prefixes[0] > 33, "{:?}", image.record());
    every_edge_agrees(&policy);
}

#[test]
fn neighbouring_ipv6_lengths_are_folded() {
    every_edge_agrees(&nested((40..=56).chain(120..=128), host("fd00:20:1:2:3:4:5:6789")));
}

#[test]
fn a_real_longer_prefix_wins_over_a_folded_one() {
    // Nine lengths; /24 and /25 are adjacent and are folded first.
    let mut policy = nested([8, 10, 12, 14, 16, 20, 24, 25, 32].into_iter(), host("10.20.30.41"));
    policy.known = known(&["10.20.30.0/25"]);
    let image = compiled(&policy);
    assert!(class(&image, host("10.20.30.127")).known());
    assert!(!class(&image, host("10.20.30.128")).known());
    every_edge_agrees(&policy);
}

#[test]
fn prefix_lengths_too_far_to_fold_are_refused_with_numbers() {
    let lengths = |step: u8| (1..=9).map(move |level| step * level).collect::<Vec<u8>>();
    // One prefix that is 13 bits shorter than the next becomes 8,192; 20 bits shorter, more than a million.
    let image = compiled(&nested(lengths(13).into_iter(), host("fd00:20::1")));
    assert!(image.record().prefixes[1] > 8_192, "{image:?}");
    let far = [4, 24, 44, 64, 84, 104, 124].into_iter().chain([0, 128]);
    assert!(attempt(&nested(far, host("fd00:20::1"))).is_ok(), "eight lengths, and one that covers all");
    let far: Vec<IpNet> = [8_u8, 22, 36, 50, 64, 78, 92, 106, 120]
        .iter()
        .flat_map(|&length| (0..64_u128).map(move |number| (length, number)))
        .map(|(length, number)| {
            IpNet::new(address(number << (128 - length), false), length).expect("a length")
        })
        .collect();
    let rows = (0_u16..).zip(far).map(|(port, prefix)| {
        row(&format!("test-1/{port}"), Direction::Inbound, &[prefix], &[service(TCP, port, port)])
    });
    let error = attempt(&policy(rows.collect())).expect_err("nine lengths, many of each");
    assert!(matches!(error, CompileError::PrefixLengths { lengths: 9, .. }), "{error}");
    assert!(
        error.to_string().contains("9 different IPv6 prefix lengths; bringing them down to 8"),
        "{error}"
    );
}
