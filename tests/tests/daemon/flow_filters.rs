//! The tables that a look-up of a flow asks first stay correct, whatever happens to their pins: the local ports
//! at which a flow can exist, and the prints of the flows.

use std::fs;

use aya::maps::{Array, Map, MapData};
use pomguard_common::{
    flow::{ports, prints},
    limits,
    names::{MAP_FLOW_PORTS, MAP_FLOW_PRINTS},
};
use pomguard_tests::daemon::{Connection, Daemon, LISTED_OUT, Lab, PEER};

/// Returns the pinned table: the times of TCP and of UDP.
fn pinned(lab: &Lab) -> Array<MapData, [u32; 2]> {
    let data = MapData::from_pin(lab.pins().join("maps").join(MAP_FLOW_PORTS)).unwrap();
    Map::from_map_data(data).and_then(Array::try_from).unwrap()
}

/// Returns the number of ports that may have TCP flows.
fn ports_with_flows(lab: &Lab) -> usize {
    let table = pinned(lab);
    (0..ports::COMPLETE as u32).filter(|port| table.get(port, 0).unwrap()[0] != 0).count()
}

#[test]
fn flow_ports_that_are_new_deny_no_flow_that_is_older() {
    let Some(lab) = Lab::new("flow_ports_that_are_new_deny_no_flow_that_is_older") else { return };
    let daemon = Daemon::start(&lab);
    assert_eq!(ports_with_flows(&lab), 0, "a new flow table has no flow");
    let mut connection = Connection::open(&lab.server, PEER, LISTED_OUT);
    assert!(connection.answers());
    assert_eq!(ports_with_flows(&lab), 1, "that of the flow");
    daemon.kill();

    let daemon = Daemon::start(&lab);
    assert_eq!(ports_with_flows(&lab), 1, "a restart keeps what is known");
    assert!(connection.answers());
    daemon.kill();

    fs::remove_file(lab.pins().join("maps").join(MAP_FLOW_PORTS)).unwrap();
    let daemon = Daemon::start(&lab);
    assert_eq!(ports_with_flows(&lab), ports::COMPLETE, "of a table that is new every port may have flows");
    assert!(connection.answers());
    daemon.kill();

    // Simulates a start that ended before it had filled the table.
    let mut table = pinned(&lab);
    for port in 0..ports::COUNT as u32 {
        table.set(port, [0; 2], 0).unwrap();
    }
    let _daemon = Daemon::start(&lab);
    assert_eq!(ports_with_flows(&lab), ports::COMPLETE, "a start that was cut short is made up for");
    assert!(connection.answers());
}

/// Returns the pinned prints, a word for each bucket.
fn pinned_prints(lab: &Lab) -> Array<MapData, u64> {
    let data = MapData::from_pin(lab.pins().join("maps").join(MAP_FLOW_PRINTS)).unwrap();
    Map::from_map_data(data).and_then(Array::try_from).unwrap()
}

/// Returns the number of prints of flows, and the number of unknown prints.
fn count_prints(lab: &Lab) -> [usize; 2] {
    let table = pinned_prints(lab);
    let all =
        (0..limits::FLOW_BUCKETS as u32).flat_map(|bucket| table.get(&bucket, 0).unwrap().to_le_bytes());
    let all: Vec<u8> = all.collect();
    let count = |is: fn(u8) -> bool| all.iter().filter(|print| is(**print)).count();
    [
        count(|print| print != prints::FREE && print != prints::UNKNOWN),
        count(|print| print == prints::UNKNOWN),
    ]
}

#[test]
fn flow_prints_that_are_new_or_old_hide_no_flow() {
    let Some(lab) = Lab::new("flow_prints_that_are_new_or_old_hide_no_flow") else { return };
    let daemon = Daemon::start(&lab);
    assert_eq!(count_prints(&lab), [0, 0], "a new flow table has no flow");
    let mut connection = Connection::open(&lab.server, PEER, LISTED_OUT);
    assert!(connection.answers());
    assert_eq!(count_prints(&lab), [1, 0], "that of the flow");
    daemon.kill();

    fs::remove_file(lab.pins().join("maps").join(MAP_FLOW_PRINTS)).unwrap();
    let daemon = Daemon::start(&lab);
    assert_eq!(count_prints(&lab), [1, 0], "a table that is new gets the prints of the flows");
    assert!(connection.answers());
    daemon.kill();

    // Nothing is known while no daemon runs: every answer comes in.
    let mut table = pinned_prints(&lab);
    for bucket in 0..limits::FLOW_BUCKETS as u32 {
        table.set(bucket, 0, 0).unwrap();
    }
    assert!(connection.answers(), "unknown prints stand for every flow");

    // An older version, which knows no prints, has entered the flow where another one was.
    for bucket in 0..limits::FLOW_BUCKETS as u32 {
        table.set(bucket, u64::from_le_bytes([prints::FREE; 8]), 0).unwrap();
    }
    let daemon = Daemon::start(&lab);
    assert!(
        daemon.log().contains("1 flows were hidden, because an older version entered them"),
        "{}",
        daemon.log()
    );
    // A late ACK of this host may have entered the hidden flow once more.
    let [flows, unknown] = count_prints(&lab);
    assert!((1..=2).contains(&flows) && unknown == 0, "{flows} and {unknown}");
    assert!(connection.answers());
}
