//! The table of local ports at which a flow can exist stays correct, whatever happens to its pin.

use std::fs;

use aya::maps::{Array, Map, MapData};
use pomguard_common::{flow::ports, names::MAP_FLOW_PORTS};
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
