//! Plain packets and all others. These tests check that the fast program decides every plain packet itself,
//! because otherwise only the cost would show a change, and that all other packets need the general program.

use pomguard::policy::{Mode, Policy};
use pomguard_common::{
    Direction::{self, Inbound, Outbound},
    control::panic,
    counter::{Counters, RowTally, Tally},
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
    // While a grace period may be in force, the fast program decides nothing.
    bench.leave_all_to_general().expect("the kernel takes it");
    is(&mut bench, Outbound, &reply, error);
    // In audit and with panic open the packets pass, without the general program, too.
    bench.enforce(policy(Mode::Audit)).expect("the kernel takes it");
    for direction in [Inbound, Outbound] {
        is(&mut bench, direction, &arp, Effect { audited: true, ..error });
    }
    bench.enforce(policy(Mode::Enforce)).expect("the kernel takes it");
    bench
        .hold(&ControlState { panic: Some((panic::OPEN, 60)), ..ControlState::default() })
        .expect("the kernel takes it");
    is(&mut bench, Inbound, &arp, Effect { audited: true, ..error });
    bench
        .hold(&ControlState { panic: Some((panic::ISOLATE, 60)), ..ControlState::default() })
        .expect("the kernel takes it");
    is(&mut bench, Inbound, &arp, error);
    bench.probe.put_in_general().expect("the kernel takes it");
    is(&mut bench, Inbound, &arp, Effect::of(Reason::Arp));
}
