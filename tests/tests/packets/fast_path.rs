//! Plain packets and all others. These tests check that the fast program decides every plain packet itself,
//! because otherwise only the cost would show a change, and that all other packets need the general program.

use std::net::IpAddr;

use pomguard::policy::{Mode, Policy, PortRange};
use pomguard_common::{
    Direction::{self, Inbound, Outbound},
    control::suspension,
    counter::{Counters, RowTally, Tally},
    drops::{DropKey, PeerKind},
    reason::Reason,
};
use pomguard_tests::{
    control_state::ControlState,
    harness::{Bench, Effect, Subject as _, bench},
    host_datapath::HostDatapath,
    packet::{
        Packet, eth, ether,
        flag::{ACK, FIN, PSH, RST, SYN, URG},
    },
    reference::{self, Places},
};

/// Returns plain packets of one family, in an order in which each finds its flow.
fn ordinary(places: &Places) -> Vec<(&'static str, Direction, Packet)> {
    let (host, stranger) = (places.host, places.stranger);
    let allowed = eth().ip(stranger, host).tcp(40_000, 443);
    let question = eth().ip(places.resolver, host).udp(40_000, 53).payload(&[0; 12]);
    let ask = eth().ip(host, places.database).tcp(40_000, 5_432);
    let names = eth().ip(host, stranger).udp(40_000, 53).payload(&[0; 12]);
    vec![
        ("an allowed SYN", Inbound, allowed.clone()),
        ("one with options and data", Inbound, allowed.clone().options(&[1; 40]).payload(&[0; 9])),
        ("an allowed segment", Inbound, allowed.clone().flags(ACK | PSH)),
        ("an allowed end", Inbound, allowed.clone().flags(FIN | ACK)),
        ("an allowed reset", Inbound, allowed.clone().flags(RST)),
        ("a padded one", Inbound, allowed.clone().pad(&[0; 6])),
        ("its answer", Outbound, allowed.clone().mirrored().flags(SYN | ACK)),
        ("its data", Outbound, allowed.mirrored().flags(ACK | URG).payload(&[0; 900])),
        ("a SYN to a port that nobody serves", Inbound, eth().ip(stranger, host).tcp(40_000, 8_080)),
        ("a SYN from a stranger", Inbound, eth().ip(stranger, host).tcp(40_000, 22)),
        ("a stray segment", Inbound, eth().ip(stranger, host).tcp(40_000, 8_080).flags(ACK)),
        ("an allowed datagram", Inbound, question.clone()),
        ("its answer", Outbound, question.mirrored()),
        ("one that nobody serves", Inbound, eth().ip(stranger, host).udp(40_000, 54).payload(&[0; 12])),
        ("what we send on a flow of ours", Outbound, ask.clone().flags(ACK)),
        ("its answer", Inbound, ask.mirrored().flags(ACK | PSH)),
        ("the answer to a datagram of ours", Inbound, names.clone().mirrored()),
        ("what follows it", Outbound, names),
    ]
}

#[test]
fn plain_packet_takes_the_fast_path() {
    for places in Places::both() {
        let mut datapath = HostDatapath::new(reference::policy()).expect("the policy compiles");
        for (direction, opening) in openings(&places) {
            let taken = datapath.takes_fast_path(direction, &opening.build()).expect("the image opens");
            assert!(!taken, "what opens a flow takes the general path");
            datapath.judge(direction, &opening.build()).expect("both ways agree");
        }
        for (says, direction, packet) in ordinary(&places) {
            let frame = packet.build();
            assert!(
                datapath.takes_fast_path(direction, &frame).expect("the image opens"),
                "{says}, {places:?}"
            );
            datapath.judge(direction, &frame).expect("both ways agree");
        }
    }
}

/// Returns packets that open flows of one family.
fn openings(places: &Places) -> [(Direction, Packet); 3] {
    let ask = eth().ip(places.host, places.database).tcp(40_000, 5_432);
    [
        (Outbound, ask.clone()),
        (Inbound, ask.mirrored().flags(SYN | ACK)),
        (Outbound, eth().ip(places.host, places.stranger).udp(40_000, 53).payload(&[0; 12])),
    ]
}

/// Runs the plain packets of both families and the packets that open their flows. Returns the increase of all
/// counters.
fn counted(bench: &mut Bench) -> (Counters, Vec<(u16, RowTally)>) {
    let before = (bench.probe.counters().expect("is read"), bench.tallies().expect("are read"));
    for places in Places::both() {
        let openings = openings(&places).map(|(direction, packet)| ("opens", direction, packet));
        for (_, direction, packet) in openings.into_iter().chain(ordinary(&places)) {
            bench.probe.verdict(direction, &packet.build()).expect("the kernel runs it");
        }
    }
    let (mut counters, mut rows) =
        (bench.probe.counters().expect("is read"), bench.tallies().expect("are read"));
    let less = |now: &mut Tally, then: Tally| {
        now.packets -= then.packets;
        now.bytes -= then.bytes;
    };
    for (now, then) in counters.direction.iter_mut().zip(before.0.direction) {
        less(&mut now.seen, then.seen);
        for (now, then) in
            now.judged.iter_mut().chain(&mut now.audited).zip(then.judged.into_iter().chain(then.audited))
        {
            less(now, then);
        }
    }
    counters.flows_opened -= before.0.flows_opened;
    for ((_, now), (_, then)) in rows.iter_mut().zip(before.1) {
        (now.packets, now.bytes) = (now.packets - then.packets, now.bytes - then.bytes);
        now.connections -= then.connections;
        (now.first, now.last) = (0, 0);
    }
    (counters, rows)
}

#[test]
fn both_programs_count_ordinary_packets_alike() {
    let Some(mut bench) = bench("both_programs_count_ordinary_packets_alike", reference::policy()) else {
        return;
    };
    let fast = counted(&mut bench);
    bench.forget().expect("time goes by");
    bench.leave_all_to_general().expect("the kernel takes it");
    let general = counted(&mut bench);
    assert_eq!(fast, general);
    assert!(fast.0.direction.iter().all(|half| half.seen.packets > 10), "{fast:?}");
}

/// Runs a frame and returns its record in the table of drops.
fn record(bench: &mut Bench, direction: Direction, packet: &Packet) -> DropKey {
    bench.probe.forget_drops().expect("the kernel takes it");
    bench.probe.verdict(direction, &packet.build()).expect("the kernel runs it");
    let (entries, rest) = bench.probe.drops().expect("are read");
    assert!(entries.len() == 1 && rest.is_empty(), "one packet, one entry: {entries:?} {rest:?}");
    entries[0].key
}

/// A row for anywhere that names client ports denies strangers under `client-port`, too.
#[test]
fn stranger_with_a_wrong_client_port_is_no_known_system() {
    let mut policy = policy(Mode::Enforce);
    for row in policy.rows.iter_mut().filter(|row| row.id.0 == "A2") {
        row.client_ports = PortRange { first: 1_024, last: 65_535 };
    }
    let mut datapath = HostDatapath::new(policy.clone()).expect("the policy compiles");
    let cases = Places::both().into_iter().flat_map(|places| {
        [(places.stranger, false), (places.office, true)]
            .map(|(peer, known)| (eth().ip(peer, places.host).tcp(1_023, 443), known))
    });
    let cases: Vec<(Packet, bool)> = cases.collect();
    for (packet, known) in &cases {
        // Two packets: the host's programs judge every second one on the fast path alone.
        for _ in 0..2 {
            let effect = datapath.judge(Inbound, &packet.build()).expect("both ways agree");
            assert_eq!(effect, Effect::of(Reason::ClientPort));
            assert_eq!(datapath.recorded().expect("a drop is recorded").known(), *known, "{packet:?}");
        }
    }
    let Some(mut bench) = bench("stranger_with_a_wrong_client_port_is_no_known_system", policy) else {
        return;
    };
    let fast: Vec<DropKey> = cases.iter().map(|(packet, _)| record(&mut bench, Inbound, packet)).collect();
    assert!(fast.iter().zip(&cases).all(|(key, (_, known))| key.known() == *known), "{fast:?}");
    bench.leave_all_to_general().expect("the kernel takes it");
    let general: Vec<DropKey> = cases.iter().map(|(packet, _)| record(&mut bench, Inbound, packet)).collect();
    assert_eq!(fast, general);
}

/// Returns the reference policy with this mode in both directions.
fn policy(mode: Mode) -> Policy {
    Policy { inbound: mode, outbound: mode, ..reference::policy() }
}

#[test]
fn missing_general_program_is_a_counted_drop() {
    let name = "missing_general_program_is_a_counted_drop";
    let Some(mut bench) = bench(name, policy(Mode::Enforce)) else { return };
    bench.probe.take_out_general().expect("the kernel takes it");
    let places = &Places::both()[0];
    let arp = eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 28]);
    let allowed = eth().ip(places.stranger, places.host).tcp(40_000, 443);
    let reply = allowed.clone().mirrored().flags(SYN | ACK);
    let error = Effect::of(Reason::Internal);
    let is = |bench: &mut Bench, direction, packet: &Packet, want| {
        let found = bench.differences(direction, &packet.build(), want).expect("is judged");
        assert!(found.is_empty(), "{direction:?}: {found:?}");
    };
    for direction in [Inbound, Outbound] {
        is(&mut bench, direction, &arp, error);
    }
    is(&mut bench, Outbound, &reply, Effect::of(Reason::PeerFlow));
    // The record names the peer, as far as a frame that nobody has checked tells.
    let key = record(&mut bench, Inbound, &arp);
    assert_eq!((key.kind(), key.port()), (PeerKind::Mac, ether::ARP), "{key:?}");
    let tagged = record(&mut bench, Inbound, &allowed.clone().tag(ether::VLAN, 0));
    let IpAddr::V4(stranger) = places.stranger else { panic!("the first places are of IPv4") };
    let peer = [u64::from(u32::from(stranger)) << 32, 0];
    assert_eq!((tagged.kind(), tagged.peer, tagged.port()), (PeerKind::V4, peer, 0), "{tagged:?}");
    // While a grace period may be in force, the fast program decides nothing.
    bench.leave_all_to_general().expect("the kernel takes it");
    is(&mut bench, Outbound, &reply, error);
    // In audit and with suspension open the packets pass, without the general program, too.
    bench.enforce(policy(Mode::Audit)).expect("the kernel takes it");
    for direction in [Inbound, Outbound] {
        is(&mut bench, direction, &arp, Effect { audited: true, ..error });
    }
    bench.enforce(policy(Mode::Enforce)).expect("the kernel takes it");
    bench
        .hold(&ControlState { suspension: Some((suspension::BYPASS, 60)), ..ControlState::default() })
        .expect("the kernel takes it");
    is(&mut bench, Inbound, &arp, Effect { audited: true, ..error });
    bench
        .hold(&ControlState { suspension: Some((suspension::LOCKDOWN, 60)), ..ControlState::default() })
        .expect("the kernel takes it");
    is(&mut bench, Inbound, &arp, error);
    bench.probe.put_in_general().expect("the kernel takes it");
    is(&mut bench, Inbound, &arp, Effect::of(Reason::Arp));
}
