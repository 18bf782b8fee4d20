//! Room in the flow table: the share that one user of the host can take from others. Only on the host,
//! because filling a flow table takes hundreds of thousands of packets.

use std::net::{IpAddr, Ipv4Addr};

use pomguard::policy::{Mode, PortRange, Row};
use pomguard_common::{
    Direction::{Inbound, Outbound},
    limits,
    protocol::{ICMP, TCP},
    reason::Reason,
};
use pomguard_tests::{
    harness::{Effect, Subject as _},
    host_datapath::HostDatapath,
    packet::{Packet, eth, flag},
    reference::{self, row},
};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// The number of packets of a flood: more than the table has slots.
const FLOOD: u32 = 400_000;

/// Returns a host that may ask anybody for names, may ping anybody, and may connect to databases.
fn host(change: impl FnOnce(&mut Row)) -> HostDatapath {
    let mut policy = reference::policy();
    policy.rows.push(row("E3", Outbound, &["0.0.0.0/0"], ICMP, PortRange::ANY));
    let mut failsafe = row("E4", Outbound, &["10.9.3.0/24"], TCP, PortRange::one(636));
    change(&mut failsafe);
    policy.rows.push(failsafe);
    HostDatapath::new(policy).expect("the policy compiles")
}

/// Returns the peer and the local port of connection `number`.
fn ends(network: u8, number: u32) -> (IpAddr, u16) {
    (Ipv4Addr::new(10, 9, network, (number / 60_000) as u8).into(), 1_024 + (number % 60_000) as u16)
}

fn connection(number: u32) -> Packet {
    let (peer, port) = ends(2, number);
    eth().ip(HOST, peer).tcp(port, 5_432)
}

fn query(number: u32) -> Packet {
    let (peer, port) = ends(200, number);
    eth().ip(HOST, peer).udp(port, 53)
}

fn echo(number: u32) -> Packet {
    let peer = Ipv4Addr::from_bits(0xac10_0000 + number);
    eth().ip(HOST, peer.into()).icmp(8, 0)
}

fn judge(datapath: &mut HostDatapath, direction: pomguard_common::Direction, packet: &Packet) -> Reason {
    datapath.judge(direction, &packet.build()).expect("both ways agree").reason
}

/// Opens a connection and lets the peer answer. Returns true if the table had room.
fn connect(datapath: &mut HostDatapath, number: u32) -> bool {
    if judge(datapath, Outbound, &connection(number)) == Reason::FlowTableFull {
        return false;
    }
    let answer = connection(number).mirrored().flags(flag::SYN | flag::ACK);
    assert_eq!(judge(datapath, Inbound, &answer), Reason::OwnFlow, "connection {number} is answered");
    true
}

/// Returns the number of open connections when the first one finds no room.
fn until_full(datapath: &mut HostDatapath) -> u32 {
    (0..limits::FLOWS as u32).find(|&number| !connect(datapath, number)).expect("the table has an end")
}

#[test]
fn f05_a_flood_of_udp_takes_no_room_from_connections() {
    for answered in [false, true] {
        let mut datapath = host(|_| {});
        let open: Vec<u32> = (0..1_000).collect();
        assert!(open.iter().all(|&number| connect(&mut datapath, number)));
        for number in 0..FLOOD {
            assert_eq!(judge(&mut datapath, Outbound, &query(number)), Reason::Row, "query {number} leaves");
            if answered {
                judge(&mut datapath, Inbound, &query(number).mirrored());
            }
        }
        for number in 1_000..2_000 {
            assert!(
                connect(&mut datapath, number),
                "FL-05, FL-18: connection {number}, answered: {answered}"
            );
        }
        for number in 0..2_000 {
            let answer = connection(number).mirrored().flags(flag::ACK);
            assert_eq!(
                judge(&mut datapath, Inbound, &answer),
                Reason::OwnFlow,
                "FL-18: connection {number} lives"
            );
        }
    }
}

#[test]
fn unanswered_connections_take_no_room_from_udp_and_icmp() {
    let mut datapath = host(|_| {});
    for number in 0..FLOOD {
        assert_eq!(judge(&mut datapath, Outbound, &connection(number)), Reason::Row);
    }
    for number in 0..10_000 {
        assert_eq!(judge(&mut datapath, Outbound, &query(number)), Reason::Row, "FL-18: query {number}");
        assert_eq!(judge(&mut datapath, Inbound, &query(number).mirrored()), Reason::OwnFlow);
        assert_eq!(judge(&mut datapath, Outbound, &echo(number)), Reason::Row, "FL-18: echo {number}");
    }
    let lost = (0..10_000)
        .filter(|&number| judge(&mut datapath, Inbound, &query(number).mirrored()) != Reason::OwnFlow);
    assert_eq!(lost.count(), 0, "FL-18: what was answered stays");
}

/// Returns the numbers of open connections when the first one finds no room, and when one of a hundred finds
/// none.
fn limits_of(datapath: &mut HostDatapath) -> (u32, u32) {
    const THOUSAND: u32 = 1_000;
    let (mut first, mut open) = (None, 0);
    for thousand in 0..limits::FLOWS as u32 / THOUSAND {
        let numbers = thousand * THOUSAND..(thousand + 1) * THOUSAND;
        let mut refused = 0;
        for number in numbers {
            if connect(datapath, number) {
                open += 1;
            } else {
                refused += 1;
                first = first.or(Some(open));
            }
        }
        if refused * 100 >= THOUSAND {
            return (first.unwrap_or(open), open);
        }
    }
    unreachable!("the table has an end")
}

/// The numbers that docs/policy.md states.
#[test]
fn fl_18_open_connections_needed_to_fill_the_table() {
    let alone = limits_of(&mut host(|_| {}));
    let mut datapath = host(|_| {});
    for number in 0..FLOOD {
        judge(&mut datapath, Outbound, &query(number));
        judge(&mut datapath, Inbound, &query(number).mirrored());
        judge(&mut datapath, Outbound, &echo(number));
    }
    let alongside_floods = limits_of(&mut datapath);
    println!(
        "open when the first, and one of a hundred, finds no room: {alone:?} of {}; alongside floods {alongside_floods:?}",
        limits::FLOWS
    );
    assert!(alone.0 >= 175_000 && alone.1 >= 200_000, "FL-18: {alone:?}");
    assert!(alongside_floods.0 >= 20_000 && alongside_floods.1 >= 50_000, "FL-18: {alongside_floods:?}");
    // A closed connection makes room at once.
    for number in 0..1_000 {
        let reset = connection(number).flags(flag::RST);
        assert_eq!(judge(&mut datapath, Outbound, &reset), Reason::OwnFlow);
    }
    let opened = (500_000..510_000).filter(|&number| connect(&mut datapath, number)).count();
    assert!(opened > 500, "FL-18: {opened} after 1,000 were closed");
}

/// FL-04: with nothing but open connections in the table.
#[test]
fn a_failsafe_row_outbound_always_finds_room() {
    let mut datapath = host(|row| row.failsafe = true);
    for number in 0..300_000 {
        connect(&mut datapath, number);
    }
    datapath.wait(10).expect("time goes by");
    let mut refused = 0;
    for number in 0..10_000 {
        refused += usize::from(!connect(&mut datapath, 300_000 + number));
        let (peer, port) = ends(3, number);
        let login = eth().ip(HOST, peer).tcp(port, 636);
        let effect = datapath.judge(Outbound, &login.build()).expect("both ways agree");
        assert_eq!((effect.reason, effect.enters), (Reason::Failsafe, true), "FL-04: {number}");
        let answer = login.mirrored().flags(flag::SYN | flag::ACK);
        assert_eq!(judge(&mut datapath, Inbound, &answer), Reason::OwnFlow, "FL-04: {number} is answered");
    }
    assert!(refused > 5_000, "others find none: {refused}");
}

/// A packet whose flow finds no room leaves nevertheless if outbound is not enforced, and is counted.
#[test]
fn what_finds_no_room_leaves_in_track() {
    let mut policy = reference::policy();
    policy.outbound = Mode::Track;
    let mut datapath = HostDatapath::new(policy).expect("the policy compiles");
    let full = until_full(&mut datapath);
    let effect = datapath.judge(Outbound, &connection(full).build()).expect("both ways agree");
    assert_eq!(effect, Effect { audited: true, ..Effect::of(Reason::FlowTableFull) }, "FL-04");
}
