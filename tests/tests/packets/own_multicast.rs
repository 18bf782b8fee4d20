//! The host's own multicast at an interface in generic mode: IP packets without an Ethernet header, and their
//! twins, frames of a wire with the same bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pomguard_common::{control::suspension, reason::Reason};
use pomguard_tests::{
    control_state::ControlState,
    packet::{Packet, Part, eth},
    reference::{self, Places},
};

use crate::case::{Case, case, run, run_under};

const GENERIC: ControlState = ControlState {
    suspension: None,
    grace: None,
    holders: None,
    overrides: Vec::new(),
    no_policy: false,
    generic: true,
};

fn groups(places: &Places) -> &'static [&'static str] {
    if places.is_v6() {
        &["ff02::fb", "ff05::1:3", "ff0e::1"]
    } else {
        &["224.0.0.251", "239.1.2.3", "255.255.255.255"]
    }
}

fn copy(from: IpAddr, group: &str) -> Packet {
    eth().ip(from, group.parse().expect("an address")).udp(40_000, 4_446).payload(b"hello").bare()
}

fn bare(says: &str) -> Case {
    case("f08", says).untagged()
}

#[test]
fn f08_own_multicast_passes_in_generic_mode_alone() {
    let mut cases = Vec::new();
    for places in Places::both() {
        for group in groups(&places) {
            let own = copy(places.host, group);
            cases.push(bare("in native mode").inbound(&own, Reason::EtherType));
            cases.push(
                bare("in generic mode")
                    .holding(GENERIC)
                    .inbound(&own, Reason::OwnMulticast)
                    .outbound(&own, Reason::EtherType)
                    .holding(ControlState::default())
                    .inbound(&own, Reason::EtherType),
            );
            let isolated = ControlState { suspension: Some((suspension::LOCKDOWN, 600)), ..GENERIC };
            cases.push(bare("in suspension, isolate").holding(isolated).inbound(&own, Reason::OwnMulticast));
            cases.push(
                bare("without a policy nobody knows the host's addresses")
                    .holding(ControlState { no_policy: true, ..GENERIC })
                    .inbound(&own, Reason::NoPolicy),
            );
        }
    }
    run("f08_own_multicast_passes_in_generic_mode_alone", &cases);
}

#[test]
fn f08_only_what_this_host_sends_to_a_group_passes_bare() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let group = groups(&places)[1];
        let Places { host, office, stranger, elsewhere, .. } = places;
        let mut refused = |says: &str, packet: Packet| {
            cases.push(bare(says).holding(GENERIC).inbound(&packet, Reason::EtherType));
        };
        for other in [office, stranger, elsewhere] {
            refused("from another host", copy(other, group));
        }
        refused("to a host", eth().ip(host, office).udp(40_000, 4_446).bare());
        refused("to itself", eth().ip(host, host).udp(40_000, 4_446).bare());
        refused("of another version", copy(host, group).poke(Part::Network, 0, &[0x55]));
        refused("longer than the frame", copy(host, group).announcing(900));
        refused("cut in its header", copy(host, group).truncate(if places.is_v6() { 39 } else { 19 }));
        if !places.is_v6() {
            refused("with a header of 16 bytes", copy(host, group).poke(Part::Network, 0, &[0x44]));
            refused("shorter than its header", copy(host, group).announcing(19));
        }
    }
    run("f08_only_what_this_host_sends_to_a_group_passes_bare", &cases);
}

/// The host's own address equals the EtherType of the twin: only the kernel can distinguish the two.
#[test]
fn f08_own_addresses_that_spell_an_ethertype_stay_refused() {
    // First halves of a host's IPv4 address, and third groups of a host's IPv6 address, that have a meaning
    // as an EtherType.
    let taken = |kind: u16| match kind {
        0..3 => false,
        3..0x0600 => true,
        _ => matches!(
            kind >> 8,
            0x08 | 0x22 | 0x43 | 0x60 | 0x65 | 0x80..=0x9f | 0xda | 0xe0 | 0xe1 | 0xed | 0xfb
        ),
    };
    let known = [0x0800, 0x0806, 0x8100, 0x86dd, 0x8809, 0x88a8, 0x88cc, 0x888e];
    let kinds = [
        0, 1, 2, 3, 0x0100, 0x05dc, 0x05ff, 0x0600, 0x07ff, 0x0900, 0x0a09, 0x2200, 0x4305, 0x6003, 0x6558,
        0x7fff, 0x8035, 0x8847, 0x8863, 0x88e5, 0x9000, 0x9988, 0xa000, 0xa9fe, 0xac10, 0xc0a8, 0xdada,
        0xdbff, 0xe001, 0xed3e, 0xfbfb, 0xffff,
    ];
    for kind in kinds {
        let mut policy = reference::policy();
        let v6 = Ipv6Addr::new(0xfd00, 9, kind, 0, 0, 0, 0, 2);
        let v4 = Ipv4Addr::from(u32::from(kind) << 16 | 0x0102);
        policy.local = vec![v6.into(), v4.into()];
        let wanted = if taken(kind) { Reason::EtherType } else { Reason::OwnMulticast };
        let says = format!("an own address that spells {kind:#06x}");
        let mut cases = vec![bare(&says).holding(GENERIC).inbound(&copy(v6.into(), "ff05::1:3"), wanted)];
        // A value below 0x0100 is not the address of a host, but this function does not check that.
        cases.push(bare(&says).holding(GENERIC).inbound(&copy(v4.into(), "239.1.2.3"), wanted));
        run_under("f08_own_addresses_that_spell_an_ethertype_stay_refused", policy, &cases);
    }
    let mut policy = reference::policy();
    let novell = Ipv6Addr::new(0xfd00, 9, 0, 0xffff, 0, 0, 0, 2);
    policy.local = vec![novell.into()];
    let cases = [bare("Novell's framing")
        .holding(GENERIC)
        .inbound(&copy(novell.into(), "ff05::1:3"), Reason::EtherType)];
    run_under("f08_own_addresses_that_spell_an_ethertype_stay_refused", policy, &cases);
    // A known EtherType is judged as the frame that it may be, with any result, and never as a copy.
    for kind in known {
        let mut policy = reference::policy();
        let own = Ipv6Addr::new(0xfd00, 9, kind, 0x4500, 0, 0, 0, 2);
        policy.local = vec![own.into()];
        crate::case::everywhere("f08_known_ethertypes", policy, |subject, place| {
            subject.hold(&GENERIC).expect("it holds");
            let frame = copy(own.into(), "ff05::1:3").build();
            let (reason, _) =
                subject.reason(pomguard::policy::Direction::Inbound, &frame).expect("the frame runs");
            assert!(reason != Reason::OwnMulticast, "{kind:#06x} {place}");
            subject.hold(&ControlState::default()).expect("it holds no more");
        });
    }
}
