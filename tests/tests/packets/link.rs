//! The frame around the packet: truncated, tagged, of another protocol, or for the link itself.

use pomguard::policy::{PacketSettings, Policy};
use pomguard_common::{Direction, reason::Reason};
use pomguard_tests::{
    harness::Effect,
    packet::{Packet, Part, eth, ether, flag},
    reference::{self, Places},
};

use crate::case::{case, everywhere, run, run_under};

fn allowed(places: &Places) -> Packet {
    eth().ip(places.stranger, places.host).tcp(40_000, 443)
}

fn arp(body: &[u8]) -> Packet {
    eth().ether_type(ether::ARP).payload(body)
}

#[test]
fn a_frame_that_is_cut_short_never_passes() {
    everywhere("a_frame_that_is_cut_short_never_passes", reference::policy(), |subject, place| {
        for (places, tags) in Places::both().into_iter().flat_map(|places| [(places, 0), (places, 1)]) {
            let packet = if tags == 0 { allowed(&places) } else { allowed(&places).vlan(0) };
            let whole = packet.build().len();
            // The kernel's test run accepts no frames below the Ethernet header.
            let least = if place == "on the host" { 0 } else { 14 };
            for length in least..=90 {
                let frame = packet.clone().pad(&[0; 40]).truncate(length).build();
                let effect = if length < whole {
                    Effect::of(Reason::Truncated)
                } else {
                    let row = subject.in_force().slot("A2", Direction::Inbound).unwrap();
                    Effect { row, connection: true, ..Effect::of(Reason::Row) }
                };
                let found = subject.differences(Direction::Inbound, &frame, effect).unwrap();
                assert!(found.is_empty(), "L2-01: {places:?} inbound {place}, cut at {length}: {found:?}");
                // The test run sends no packets that end within an IP header.
                if length < 14 + if places.is_v6() { 40 } else { 20 } {
                    continue;
                }
                let frame = packet.clone().mirrored().flags(flag::SYN | flag::ACK).pad(&[0; 40]);
                let reason = if length < whole { Reason::Truncated } else { Reason::PeerFlow };
                let frame = frame.truncate(length).build();
                let found = subject.differences(Direction::Outbound, &frame, Effect::of(reason)).unwrap();
                assert!(found.is_empty(), "L2-01: {places:?} outbound {place}, cut at {length}: {found:?}");
            }
        }
    });
}

#[test]
fn address_resolution_passes_and_leaves_no_trace() {
    let request = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 9, 0, 7, 0, 0, 0, 0, 0, 0, 10, 9, 0, 2];
    let reply = [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 9, 0, 7, 2, 0, 0, 0, 0, 2, 10, 9, 0, 2];
    let gratuitous = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 9, 0, 7, 0, 0, 0, 0, 0, 0, 10, 9, 0, 7];
    run(
        "address_resolution_passes_and_leaves_no_trace",
        &[
            case("L2-02", "a request").both_ways(&arp(&request).to([0xff; 6]), Reason::Arp),
            case("L2-02", "a reply, padded").both_ways(&arp(&reply).pad(&[0; 18]), Reason::Arp),
            case("L2-02", "a gratuitous one").both_ways(&arp(&gratuitous).to([0xff; 6]), Reason::Arp),
            case("L2-02", "one that is cut short").both_ways(&arp(&request[..27]), Reason::Truncated),
        ],
    );
}

#[test]
fn what_is_neither_ip_nor_the_links_own_is_dropped() {
    let mut cases = Vec::new();
    for places in Places::both() {
        for number in [0x0600, 0x0801, 0x88b5, 0x8847, 0x8848, 0x8863, 0x8864, 0x88e5, 0x9100, 0x22f3, 0xffff]
        {
            let packet = allowed(&places).ether_type(number);
            let says = format!("EtherType {number:#06x} over an allowed packet");
            cases.push(case("L2-04", says).both_ways(&packet, Reason::EtherType));
        }
        let inside = allowed(&places).quoted();
        let snap = [&[0xaa, 0xaa, 0x03, 0, 0, 0, 8, 0][..], &inside].concat();
        let packet = eth().ether_type(snap.len() as u16).payload(&snap);
        cases.push(case("L2-06", "IP in an LLC and SNAP frame").both_ways(&packet, Reason::EtherType));
        let reversed = if places.is_v6() { ether::IPV4 } else { ether::IPV6 };
        let packet = allowed(&places).ether_type(reversed).pad(&[0; 20]);
        cases.push(case("L2-14", "the EtherType of the other version").both_ways(&packet, Reason::Malformed));
        let nibble = if places.is_v6() { 0x45 } else { 0x65 };
        let packet = allowed(&places).poke(Part::Network, 0, &[nibble]);
        cases.push(case("L2-14", "the version of the other EtherType").both_ways(&packet, Reason::Malformed));
    }
    run("what_is_neither_ip_nor_the_links_own_is_dropped", &cases);
}

#[test]
fn priority_tags_make_no_difference_and_other_tags_are_not_ours() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let denied = eth().ip(places.stranger, places.host).tcp(40_000, 8_080);
        for priority in 0..16_u16 {
            let says = format!("a priority tag, priority and eligibility {priority}");
            let tagged = allowed(&places).vlan(priority << 12);
            cases.push(case("L2-07", says.clone()).inbound(&tagged, Reason::Row).row("A2").connects());
            cases.push(case("L2-07", says).inbound(&denied.clone().vlan(priority << 12), Reason::Port));
        }
        let foreign = allowed(&places).vlan(5);
        cases.push(case("L2-09", "a VLAN that is not ours").both_ways(&foreign, Reason::VlanUnknown));
        let inside = foreign.vlan(0);
        cases.push(case("L2-09", "the same inside a priority tag").both_ways(&inside, Reason::VlanUnknown));
        let outside = allowed(&places).vlan(0).vlan(5);
        cases.push(case("L2-09", "the same around a priority tag").both_ways(&outside, Reason::VlanUnknown));
        let mut stack = allowed(&places);
        for _ in 0..2 {
            stack = stack.vlan(0).tag(ether::SERVICE_VLAN, 0);
        }
        let four = case("L2-07", "four priority tags of both sorts").untagged();
        cases.push(four.inbound(&stack, Reason::Row).row("A2").connects());
        let five = case("L2-07", "five priority tags").untagged();
        cases.push(five.both_ways(&stack.vlan(0), Reason::VlanLimit));
        let cut = allowed(&places).vlan(0).truncate(16);
        cases.push(case("L2-07", "a frame that ends in its tag").inbound(&cut, Reason::Truncated));
    }
    run("priority_tags_make_no_difference_and_other_tags_are_not_ours", &cases);
}

#[test]
fn a_vlan_that_is_served_is_judged_like_no_vlan() {
    let packets = PacketSettings { vlans: vec![5, 4_094], ..PacketSettings::default() };
    let policy = Policy { packets, ..reference::policy() };
    let mut cases = Vec::new();
    for places in Places::both() {
        for vlan in [5, 4_094, 5 | 7 << 13] {
            let packet = allowed(&places).vlan(vlan);
            cases.push(case("L2-09", "ours").inbound(&packet, Reason::Row).row("A2").connects());
        }
        for vlan in [4, 6, 4_095, 1] {
            let packet = allowed(&places).vlan(vlan);
            cases.push(case("L2-09", "its neighbour").both_ways(&packet, Reason::VlanUnknown));
        }
    }
    run_under("a_vlan_that_is_served_is_judged_like_no_vlan", policy, &cases);
}

#[test]
fn a_group_station_does_not_carry_what_is_for_this_host_alone() {
    let mut cases = Vec::new();
    for places in Places::both() {
        for station in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [3, 0, 0, 0, 0, 2]] {
            let packet = allowed(&places).to(station);
            let says = format!("an allowed packet to station {station:02x?}");
            cases.push(case("L2-13", says).inbound(&packet, Reason::Broadcast));
        }
    }
    run("a_group_station_does_not_carry_what_is_for_this_host_alone", &cases);
}

/// The network card and the stack decide which MAC addresses a machine answers for.
#[test]
fn frame_for_another_station_is_judged_and_leaves_no_trace() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let other = |packet: Packet| packet.to([2, 0, 0, 0, 0, 0x77]);
        cases.push(
            case("L2-12", "to an allowed port")
                .inbound(&other(allowed(&places)), Reason::Row)
                .row("A2")
                .connects(),
        );
        let denied = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        cases.push(case("L2-12", "to a denied port").inbound(&other(denied), Reason::Source));
        let foreign = eth().ip(places.stranger, places.elsewhere).tcp(40_000, 443);
        cases.push(case("L2-12", "to another address too").inbound(&other(foreign), Reason::NotLocal));
    }
    run("frame_for_another_station_is_judged_and_leaves_no_trace", &cases);
}

/// Returns frames of the link's own protocols, with their names.
fn link_control() -> Vec<(&'static str, Packet)> {
    let bridge = |last| [1, 0x80, 0xc2, 0, 0, last];
    let frame = |last, number: u16, body: &[u8]| eth().to(bridge(last)).ether_type(number).payload(body);
    vec![
        ("LLDP", frame(0x0e, 0x88cc, &[2, 7, 4])),
        ("LACP", frame(0x02, 0x8809, &[1, 1])),
        ("spanning tree", frame(0x00, 38, &[0x42, 0x42, 3, 0, 0])),
        ("EAPOL", frame(0x03, 0x888e, &[1, 1, 0, 0])),
    ]
}

#[test]
fn the_links_own_protocols_pass_unless_they_are_switched_off() {
    let mut cases = Vec::new();
    for (name, frame) in link_control() {
        cases.push(case("L2-04", name).both_ways(&frame, Reason::LinkControl));
    }
    for (name, frame) in link_control().into_iter().filter(|(name, _)| *name != "EAPOL") {
        let says = format!("{name} to a station of no bridge");
        cases.push(case("L2-04", says).both_ways(&frame.to([2, 0, 0, 0, 0, 2]), Reason::EtherType));
    }
    let bridges = eth().to([1, 0x80, 0xc2, 0, 0, 0]).payload(&[0x42, 0x42, 3, 0, 0]);
    let longest = bridges.clone().ether_type(0x05ff);
    cases.push(case("L2-06", "the largest length").both_ways(&longest, Reason::LinkControl));
    let first = bridges.ether_type(0x0600);
    cases.push(case("L2-06", "the first EtherType").both_ways(&first, Reason::EtherType));
    let bare = eth().to([1, 0x80, 0xc2, 0, 0, 0]).ether_type(0x88b5);
    cases.push(case("L2-01", "nothing but a header").untagged().both_ways(&bare, Reason::EtherType));
    let cut = eth().to([1, 0x80, 0xc2, 0, 0, 0]).ether_type(38).payload(&[0x42, 0x42]);
    cases.push(case("L2-01", "a spanning tree frame cut short").both_ways(&cut, Reason::Truncated));
    let other = eth().to([1, 0x80, 0xc2, 0, 0, 0]).ether_type(38).payload(&[0xaa, 0xaa, 3]);
    cases.push(case("L2-06", "SNAP to the bridges").both_ways(&other, Reason::EtherType));
    run("the_links_own_protocols_pass_unless_they_are_switched_off", &cases);

    let packets = PacketSettings { link_control: false, ..PacketSettings::default() };
    let policy = Policy { packets, ..reference::policy() };
    let off = |(name, frame): (&'static str, Packet)| {
        case("L2-04", format!("{name}, switched off")).both_ways(&frame, Reason::EtherType)
    };
    let cases: Vec<_> = link_control().into_iter().map(off).collect();
    run_under("the_links_own_protocols_pass_unless_they_are_switched_off", policy, &cases);
}
