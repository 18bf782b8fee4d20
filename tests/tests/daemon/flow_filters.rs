//! The tables that a look-up of a flow asks first stay correct, whatever happens to their pins: the local ports
//! at which a flow can exist, and the prints of the flows.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use pomguard_common::{
    flow::{ports, prints},
    limits,
    names::{MAP_FLOW_PORTS, MAP_FLOW_PRINTS, MAP_FLOWS},
};
use pomguard_netlab::Namespace;
use pomguard_tests::daemon::{Connection, Daemon, LISTED_OUT, Lab, PEER};

use crate::layout::Raise;

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

#[test]
fn flows_outlive_the_pin_of_their_table() {
    let Some(lab) = Lab::new("flows_outlive_the_pin_of_their_table") else { return };
    let daemon = Daemon::start(&lab);
    let mut connection = Connection::open(&lab.server, PEER, LISTED_OUT);
    assert!(connection.answers());
    // The server's last acknowledgement, which it delays, would enter the flow.
    thread::sleep(Duration::from_millis(300));
    daemon.kill();
    fs::remove_file(lab.pins().join("maps").join(MAP_FLOWS)).unwrap();
    let daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().flows("tcp_established"), 1, "from the socket table: {}", daemon.log());
    assert!(connection.answers());
}

/// A site file by which the server may ask the peer's name server.
const NAMES: &str = "[[allow]]\nname = \"names\"\nfrom = [\"server\"]\nto = [\"10.77.0.2\"]\nports = \"53\"\nprotocol = \"udp\"\n";

/// Asks the peer's name server from one socket after another until `start` returns, then has the peer answer.
/// Returns the number of questions and the number of answers that came in.
fn answers_after(lab: &Lab, start: impl FnOnce()) -> [usize; 2] {
    let bind = |namespace: &Namespace, port: u16| {
        let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    };
    let names = bind(&lab.peer, 53);
    let over = AtomicBool::new(false);
    let asking = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asking = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let socket = bind(&lab.server, 0);
                socket.send_to(b"who?", (PEER, 53)).unwrap();
                asking.push(socket);
                thread::sleep(Duration::from_millis(5));
            }
            asking
        });
        let end = Raise(&over);
        start();
        drop(end);
        asking.join().unwrap()
    });
    let mut heard = [0; 16];
    for _ in &asking {
        let (_, asker) = names.recv_from(&mut heard).unwrap();
        names.send_to(b"me", asker).unwrap();
    }
    for socket in &asking {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    let answered = asking.iter().filter(|socket| socket.recv(&mut [0; 16]).is_ok()).count();
    [asking.len(), answered]
}

#[test]
fn flows_that_programs_without_the_prints_enter_are_found() {
    let Some(lab) = Lab::new("flows_that_programs_without_the_prints_enter_are_found") else { return };
    lab.write_site(NAMES);
    Daemon::start(&lab).kill();
    // The programs of this daemon write prints that the next one does not read: as if they wrote none.
    fs::remove_file(lab.pins().join("maps").join(MAP_FLOW_PRINTS)).unwrap();
    let mut daemon = None;
    let [asked, answered] = answers_after(&lab, || daemon = Some(Daemon::start(&lab)));
    assert!(asked > 20, "the start lasts a while: {asked}");
    assert_eq!(answered, asked, "answers that came in: {}", lab.stats());
    let [_, unknown] = count_prints(&lab);
    assert_eq!(unknown, 0, "the prints are complete again");
}

/// After an upgrade, a downgrade and another upgrade, the pinned tables are those of the first upgrade: the programs
/// in force do not write them.
#[test]
fn flows_of_a_downgrade_between_upgrades_are_found() {
    let Some(lab) = Lab::new("flows_of_a_downgrade_between_upgrades_are_found") else { return };
    lab.write_site(NAMES);
    let tables = [MAP_FLOW_PORTS, MAP_FLOW_PRINTS].map(|name| {
        let path = lab.pins().join("maps").join(name);
        (path.with_file_name(format!("OLD_{name}")), path)
    });
    Daemon::start(&lab).kill();
    for (old, path) in &tables {
        fs::rename(path, old).unwrap();
    }
    let between = Daemon::start(&lab);
    let mut connection = Connection::open(&lab.server, PEER, LISTED_OUT);
    assert!(connection.answers());
    between.kill();
    for (old, path) in &tables {
        fs::remove_file(path).unwrap();
        fs::rename(old, path).unwrap();
    }
    assert_eq!((ports_with_flows(&lab), count_prints(&lab)), (0, [0, 0]), "the tables name no flow");

    let mut daemon = None;
    let [asked, answered] = answers_after(&lab, || daemon = Some(Daemon::start(&lab)));
    assert!(asked > 20, "the start lasts a while: {asked}");
    assert_eq!(answered, asked, "answers that came in: {}", lab.stats());
    assert!(connection.answers());
    let [_, unknown] = count_prints(&lab);
    assert_eq!((ports_with_flows(&lab), unknown), (ports::COMPLETE, 0));
}
