//! Policies that exceed a limit are refused, with the numbers.

use std::time::Instant;

use pomguard_common::limits::{OWN_ADDRESSES, ROWS, TUPLES};

use super::*;
use crate::compile::Family;

/// Returns `count` hosts, from 10.0.0.0 up.
fn hosts(count: usize) -> Vec<IpNet> {
    (0..count as u32).map(|number| IpNet::from(address(u128::from(0x0a00_0000 + number), true))).collect()
}

fn says(error: &CompileError, parts: &[&str]) {
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

/// Catalogue id CF-09.
#[test]
fn tuples() {
    let with =
        |peers| policy(vec![row("test-1/1", Direction::Inbound, &hosts(peers), &[service(TCP, 443, 443)])]);
    assert_eq!(compiled(&with(TUPLES)).tuples(), TUPLES);
    let error = attempt(&with(TUPLES + 1)).expect_err("one too many");
    says(&error, &["100001", "100000"]);
}

#[test]
fn rows_of_each_direction() {
    let rows = |count: usize, direction: Direction| {
        let row = |number| row(&format!("test-1/{number}"), direction, &hosts(1), &[service(TCP, 443, 443)]);
        (0..count).map(row).collect::<Vec<_>>()
    };
    let mut both = rows(ROWS, Direction::Inbound);
    both.extend(rows(ROWS, Direction::Outbound));
    let image = compiled(&policy(both));
    assert_eq!(Direction::ALL.map(|direction| image.rows(direction)), [ROWS, ROWS]);
    for direction in Direction::ALL {
        let over = policy(rows(ROWS + 1, direction));
        let error = SlotTable::assign(&[], &over).expect_err("one too many");
        assert_eq!(error, CompileError::Rows { direction, found: ROWS + 1 });
        assert_eq!(compile(&over, &SlotTable::default(), CLOCK, 1), Err(error.clone()));
        says(&error, &["4097", "4096", direction.name()]);
    }
}

#[test]
fn local_addresses() {
    let mut over = policy(Vec::new());
    over.local = (0..=OWN_ADDRESSES).map(|at| IpAddr::from([10, 20, (at >> 8) as u8, at as u8])).collect();
    let error = attempt(&over).expect_err("one too many");
    assert_eq!(error, CompileError::LocalAddresses { family: Family::V4, found: 257 });
    says(&error, &["257 IPv4", "256"]);
    over.local.pop();
    assert!(attempt(&over).is_ok());
    over.local.clear();
    assert_eq!(attempt(&over), Err(CompileError::NoLocalAddress));
    over.own_addresses = OwnAddresses::Machine;
    assert!(attempt(&over).is_ok(), "an address of the machine may come later");
}

#[test]
fn vlans() {
    let mut over = policy(Vec::new());
    over.packets.vlans = (1..=32).collect();
    assert!(open(&compiled(&over)).serves_vlan(32));
    over.packets.vlans.push(33);
    says(&attempt(&over).expect_err("one too many"), &["33", "32"]);
    // The VLANs of the machine take the room that is left.
    over.packets.vlans = vec![0, 5, 5];
    over.machine.vlans = (5..60).collect();
    let compiled = compiled(&over);
    let image = open(&compiled);
    assert!(image.serves_vlan(5) && image.serves_vlan(36) && !image.serves_vlan(37) && !image.serves_vlan(4));
}

#[test]
fn client_port_ranges_of_one_pair() {
    let rows = |count: u16| {
        let row = |number: u16| Row {
            client_ports: PortRange::one(1_024 + 2 * number),
            ..tcp(&format!("test-1/{number}"), &["10.50.0.0/16"], 443, 443)
        };
        policy((0..count).map(row).collect())
    };
    assert!(attempt(&rows(4)).is_ok());
    says(&attempt(&rows(5)).expect_err("one too many"), &["5 rows", "4", "test-1/0, test-1/1", "test-1/4"]);
}

#[test]
fn columns() {
    // Row k names every port whose bit k is set: each port has a different meaning.
    let rows = |bits: u32| {
        let row_of = |bit: u32| {
            let runs = (0..1_u32 << (bits - bit - 1)).map(|at| {
                let first = (2 * at + 1) << bit;
                service(TCP, first as u16, (first + (1 << bit) - 1) as u16)
            });
            row(&format!("test-1/{bit}"), Direction::Inbound, &hosts(1), &runs.collect::<Vec<_>>())
        };
        policy((0..bits).map(row_of).collect())
    };
    assert!(attempt(&rows(15)).is_ok(), "32,767 columns");
    let error = attempt(&rows(16)).expect_err("65,535 columns");
    says(&error, &["32769 parts", "the limit is 32768"]);
}

#[test]
fn lines() {
    let six = |count: u128| (0..count).map(|number| IpNet::from(address(0xfd << 120 | number << 9, false)));
    let mut large = policy(vec![row(
        "test-1/1",
        Direction::Inbound,
        &six(TUPLES as u128).collect::<Vec<_>>(),
        &[service(TCP, 443, 443)],
    )]);
    assert!(attempt(&large).is_ok());
    // Addresses that are only known are no tuples, but need room.
    large.known = six(120_000).map(|prefix| Known { prefix, name: "".into() }).collect();
    let error = attempt(&large).expect_err("131,072 buckets and the rest");
    says(&error, &["134", "131072"]);
    assert!(matches!(error, CompileError::Lines { needed } if needed > 131_072), "{error}");
}

#[test]
fn generation_0_and_a_row_without_slot() {
    let policy = policy(vec![tcp("test-1/1", &["10.50.0.0/16"], 443, 443)]);
    assert_eq!(compile(&policy, &slots(&policy), CLOCK, 0), Err(CompileError::Generation));
    let missing = compile(&policy, &SlotTable::default(), CLOCK, 1);
    assert_eq!(missing, Err(CompileError::Slot { row: "test-1/1".to_owned() }));
}

#[test]
fn rows_that_overlap_everywhere_are_refused_in_bounded_time() {
    let begin = Instant::now();
    // Thousands of wide rows, and as many hosts inside them, each with a different meaning.
    let mut rows: Vec<Row> =
        (0..2_000).map(|number| tcp(&format!("test-1/w{number}"), &["10.0.0.0/8"], number, number)).collect();
    rows.extend((0..2_000_u16).zip(hosts(40_000).chunks(20)).map(|(number, hosts)| {
        row(
            &format!("test-1/n{number}"),
            Direction::Inbound,
            hosts,
            &[service(TCP, 9_000 + number, 9_000 + number)],
        )
    }));
    let error = attempt(&policy(rows)).expect_err("four million cells");
    says(&error, &["at least 524", "room for 524288"]);
    assert!(matches!(error, CompileError::Cells { .. }), "{error}");
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}
