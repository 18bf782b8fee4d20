//! Tests of the positions of all parts of an image.

use pomguard_common::{
    image::{cell, mode, switch},
    limits::IMAGE_LINES,
    rate::Rated,
};

use super::*;
use crate::{
    compile::{ImageFacts, record},
    policy::Rates,
};

#[test]
fn modes_switches_and_vlans_are_those_of_the_settings() {
    let packets = PacketSettings {
        redirects: true,
        dhcp: false,
        vlans: vec![200, 0, 100, 200],
        ..PacketSettings::default()
    };
    let policy = Policy { inbound: Mode::Audit, outbound: Mode::Track, packets, ..policy(Vec::new()) };
    let image = compiled(&policy);
    let image = open(&image);
    assert_eq!(image.modes(), u32::from(mode::AUDIT) | u32::from(mode::TRACK) << 8);
    assert!(image.switch(switch::REDIRECTS) && image.switch(switch::VRRP) && image.switch(switch::ECHO_V6));
    assert!(!image.switch(switch::DHCP));
    let served: Vec<u16> = (1..4_095).filter(|&id| image.serves_vlan(id)).collect();
    assert_eq!(served, [100, 200]);
}

#[test]
fn local_addresses_are_found_and_a_missing_family_has_none() {
    let mut policy = policy(Vec::new());
    let is_local = |policy: &Policy, written: &str| {
        let (family, address) = words(written.parse().expect("an address"));
        open(&compiled(policy)).class(family, &address).is_own()
    };
    for foreign in ["10.20.0.12", "0.0.0.0", "255.255.255.255", "::", "fd00:20::11", "ff02::1"] {
        assert!(!is_local(&policy, foreign), "{foreign}");
    }
    assert!(is_local(&policy, "10.20.0.11"));
    policy.local = (1..=16).map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])).collect();
    for last in 0..=17_u16 {
        assert_eq!(is_local(&policy, &format!("fd00::{last:x}")), (1..=16).contains(&last), "{last}");
    }
    for foreign in ["10.20.0.11", "0.0.0.0", "255.255.255.255", "::"] {
        assert!(!is_local(&policy, foreign), "{foreign}");
    }
}

#[test]
fn budgets_are_the_rates_of_a_tick_and_at_least_one_packet() {
    let mut policy = policy(Vec::new());
    policy.packets.rates =
        Rates { neighbours: 10_000, echo_v6: Rates::LEAST, icmp_errors: 8, path_mtu: Rates::MOST };
    for (ticks_per_1000s, budgets) in [
        (3_906, [2_560, 1, 2, 25_601_638]),
        (4_000, [2_500, 1, 2, 25_000_000]),
        (1, [10_000_000, 4_000, 8_000, u32::MAX]),
    ] {
        let image =
            compile(&policy, &slots(&policy), Clock { ticks_per_1000s, offset: 0 }, 1).expect("an image");
        let image = open(&image);
        let rated = [Rated::Neighbours, Rated::EchoV6, Rated::Errors, Rated::PathMtu];
        assert_eq!(rated.map(|rated| image.budget(rated as u32)), budgets, "{ticks_per_1000s}");
    }
}

#[test]
fn ages_last_no_less_than_their_seconds() {
    let flows = FlowAges { established: 5_400, udp_unanswered: 7, ..FlowAges::default() };
    let policy = Policy { flows, ..policy(Vec::new()) };
    let clock = Clock { ticks_per_1000s: 3_815, offset: 99 };
    let image = compile(&policy, &slots(&policy), clock, 12).expect("an image");
    let image = open(&image);
    for state in pomguard_common::flow::State::ALL {
        let ticks = u64::from(image.age(state as u32));
        let exact = u64::from(policy.flows.age(state)) * 3_815;
        assert!(ticks * 1_000 >= exact && (ticks - 1) * 1_000 < exact, "{state:?}: {ticks}");
    }
    assert_eq!((image.generation(), image.clock_offset()), (12, 99));
}

#[test]
fn saved_image_keeps_its_times_on_a_kernel_with_another_clock() {
    let flows = FlowAges { established: 30 * 86_400, icmp: 11, ..FlowAges::default() };
    let policy = Policy { flows, ..policy(vec![tcp("test-1/1", &["10.50.0.0/16"], 443, 443)]) };
    let on = |ticks_per_1000s| {
        let clock = Clock { ticks_per_1000s, offset: 0 };
        compile(&policy, &slots(&policy), clock, 1).expect("an image")
    };
    for (from, to) in [(3_906, 4_687), (4_687, 3_906), (4_000, 4_000), (4_000, 3_125)] {
        let clock = Clock { ticks_per_1000s: to, offset: 0 };
        let again = Image::again(on(from).parts().clone(), clock, 1).expect("an image");
        let fresh = on(to);
        let (again, fresh) = (open(&again), open(&fresh));
        for state in pomguard_common::flow::State::ALL {
            assert_eq!(again.age(state as u32), fresh.age(state as u32), "{from} to {to}: {state:?}");
        }
        for rated in [Rated::Neighbours, Rated::EchoV6, Rated::Errors, Rated::PathMtu] {
            let (again, fresh) = (again.budget(rated as u32), fresh.budget(rated as u32));
            assert!(again.abs_diff(fresh) <= 1, "{from} to {to}: {again}, not {fresh}");
        }
    }
}

#[test]
fn the_record_and_the_digest_can_be_read_from_the_map_alone() {
    let policy = policy(vec![tcp("test-1/1", &["10.50.0.0/16", "10.51.0.0/16"], 443, 445)]);
    let image = compiled(&policy);
    let mut map = image.lines().to_vec();
    map.resize(IMAGE_LINES, Line::ZERO);
    let record = ImageFacts::read(&map).expect("a record");
    assert_eq!(record, *image.record());
    assert_eq!((record.tuples, record.rows, record.generation), (2, [1, 0], 1));
    assert_eq!((record.lines as usize, record.hex()), (image.used(), image.digest()));
    assert_eq!((record.prefixes, record.classes, record.services), ([3, 0], 2, 1));
    assert!(record.holds(&map));
    for damaged in [0, 1, image::SECTIONS as usize + 5, image.used() - 1, image.used(), IMAGE_LINES - 1] {
        let mut map = map.clone();
        map[damaged].0[3] ^= 1 << 7;
        assert!(!record.holds(&map), "line {damaged}");
    }
    map[0].0[image::head::ABI as usize] += 1;
    assert_eq!(ImageFacts::read(&map), None);
    assert_eq!(ImageFacts::read(&[]), None);
}

#[test]
fn the_digest_tells_policies_apart_and_generations_not() {
    let policy = policy(vec![tcp("test-1/1", &["10.50.0.0/16"], 443, 443)]);
    let later = Clock { offset: 5, ..CLOCK };
    let again = compile(&policy, &slots(&policy), later, u32::MAX).expect("an image");
    let image = compiled(&policy);
    assert_eq!(image.digest(), again.digest());
    assert_ne!(image, again);
    assert_eq!(image.digest().len(), 64);
    assert_eq!(record::digest(again.lines()), image.record().digest);
    let mut other = policy.clone();
    other.rows[0].client_ports.first = 1_024;
    assert_ne!(compiled(&other).digest(), image.digest());
}

#[test]
fn the_first_row_whose_client_ports_fit_wins() {
    let ranges = [(5_060, 5_061), (1_024, 65_535), (6_000, 7_000), (0, 1_023), (0, 65_535)];
    let rows = ranges.iter().zip(1..).map(|(&(first, last), number)| Row {
        client_ports: PortRange { first, last },
        ..tcp(&format!("test-1/{number}"), &["10.50.0.0/16"], 443, 443)
    });
    let case = Case::new(policy(rows.collect()));
    for client in 0..=u16::MAX {
        case.agrees(&opening(Direction::Inbound, IpAddr::from([10, 50, 0, 1]), TCP, 443, client));
    }
}

#[test]
fn a_chain_never_answers_for_another_service() {
    // Two rows at one port form a chain; the cells behind it must not be mistaken for other columns' cells.
    let mut rows = Vec::new();
    for number in 0..40_u16 {
        let host = [format!("10.50.0.{number}/32")];
        let host: Vec<&str> = host.iter().map(String::as_str).collect();
        for (first, last) in [(5_060, 5_061), (1_024, 5_059)] {
            rows.push(Row {
                client_ports: PortRange { first, last },
                ..tcp(&format!("test-1/{}", rows.len()), &host, 1_000 + number, 1_000 + number)
            });
        }
    }
    let case = Case::new(policy(rows));
    for host in 0..40 {
        for port in 990..1_050 {
            for client in [1_023, 1_024, 5_060, 5_062] {
                let other = IpAddr::from([10, 50, 0, host]);
                case.agrees(&opening(Direction::Inbound, other, TCP, port, client));
            }
        }
    }
}

#[test]
fn a_chain_lies_beyond_the_reach_of_its_own_class() {
    let port = |number: u16| tcp(&format!("test-1/b{number}"), &["10.51.0.0/16"], number, number);
    let mut rows: Vec<Row> = (1_000..1_050).map(port).collect();
    for (first, last) in [(5_060, 5_061), (1_024, 5_059)] {
        let id = format!("test-1/a{first}");
        rows.push(Row {
            client_ports: PortRange { first, last },
            ..tcp(&id, &["10.50.0.0/16"], 1_000, 1_000)
        });
    }
    let case = Case::new(policy(rows));
    for port in 990..1_060 {
        for other in [[10, 50, 0, 1], [10, 51, 0, 1]] {
            case.agrees(&opening(Direction::Inbound, other.into(), TCP, port, 2_000));
        }
    }
}

#[test]
fn protocols_without_ports_have_no_client_ports_either() {
    let both = [service(1, 0, u16::MAX), service(TCP, 0, u16::MAX)];
    let row = Row {
        client_ports: PortRange { first: 1_024, last: u16::MAX },
        ..row("test-1/1", Direction::Inbound, &[net("10.50.0.0/16")], &both)
    };
    let image = compiled(&policy(vec![row]));
    let ask = |protocol| {
        row_match(&image, &opening(Direction::Inbound, IpAddr::from([10, 50, 0, 1]), protocol, 0, 0))
    };
    assert_eq!(ask(1), Ok(RowMatch { row: 0, failsafe: false }));
    assert_eq!(ask(TCP), refused(MissReason::ClientPort, false));
    assert_eq!(ask(47), refused(MissReason::Port, false));
}

#[test]
fn failsafe_rows_are_marked_and_equal_ports_share_a_column() {
    let ssh = Row { failsafe: true, ..tcp("site/ssh", &["10.9.0.0/24"], 22, 22) };
    let wide = row(
        "site/dns",
        Direction::Outbound,
        &[net("10.9.0.53/32")],
        &[service(TCP, 53, 53), service(17, 53, 53), service(TCP, 5_000, 6_000)],
    );
    let policy = policy(vec![ssh, wide]);
    let image = compiled(&policy);
    assert_eq!(image.record().services, 2);
    let ssh = row_match(&image, &opening(Direction::Inbound, IpAddr::from([10, 9, 0, 1]), TCP, 22, 5_000));
    assert_eq!(ssh, Ok(RowMatch { row: 0, failsafe: true }));
    let dns = opening(Direction::Outbound, IpAddr::from([10, 9, 0, 53]), 17, 53, 5_000);
    assert_eq!(row_match(&image, &dns), Ok(RowMatch { row: 1, failsafe: false }));
    const { assert!(cell::FAILSAFE > u16::MAX as u32) };
}

#[test]
fn port_of_a_row_in_audit_is_marked_whatever_other_rows_say() {
    let audit = |row: Row| Row { mode: Mode::Audit, ..row };
    let policy = policy(vec![
        tcp("test-1/1", &["10.50.0.0/16"], 9_970, 9_973),
        audit(tcp("test-1/2", &["10.51.0.0/16"], 9_972, 9_974)),
        audit(tcp("test-1/3", &[], 443, 443)),
        audit(row("test-1/4", Direction::Outbound, &[net("10.51.0.0/16")], &[service(TCP, 9_970, 9_970)])),
    ]);
    let slots = slots(&policy);
    let image = compiled(&policy);
    let ask = |direction, other: [u8; 4], port| {
        row_match(&image, &opening(direction, other.into(), TCP, port, 2_000))
    };
    let inbound = |other, port| ask(Direction::Inbound, other, port);
    let (one, two, nobody) = ([10, 50, 0, 1], [10, 51, 0, 1], [10, 52, 0, 1]);
    assert_eq!(inbound(nobody, 9_971), refused(MissReason::Peer, false), "only the row in enforce names it");
    assert_eq!(inbound(nobody, 9_972), refused(MissReason::Peer, true), "both name it");
    assert_eq!(inbound(one, 9_974), refused(MissReason::Peer, true), "only the row in audit names it");
    assert_eq!(inbound(nobody, 9_975), refused(MissReason::Port, false), "nobody names it");
    assert_eq!(inbound(one, 9_972), Ok(RowMatch { row: 0, failsafe: false }));
    assert_eq!(inbound(two, 9_972), Ok(RowMatch { row: 1, failsafe: false }));
    assert_eq!(inbound(one, 443), refused(MissReason::Peer, true), "a row without peers says so, too");
    assert_eq!(ask(Direction::Outbound, one, 9_970), refused(MissReason::Peer, true));
    let line = |index: u32| image.lines().get(index as usize).copied();
    for row in &policy.rows {
        let slot = slots.of(&row.id, row.direction).expect("a slot");
        assert_eq!(image.record().audits(slot, line), Some(row.mode == Mode::Audit), "{}", row.id);
    }
}
