//! The frame around the packet.

use pomguard_common::reason::Reason;

use super::{Class, NO_LINK_CONTROL, Section, VLANS, class};
use crate::{
    packet::{Packet, eth, ether},
    reference::Places,
};

/// Returns a packet that row A2 allows.
pub(super) fn allowed(places: &Places) -> Packet {
    eth().ip(places.stranger, places.host).tcp(40_000, 443)
}

/// Returns the answer to `allowed`.
pub(super) fn reply(places: &Places) -> Packet {
    allowed(places).mirrored().flags(0x12)
}

fn bridge(last: u8, kind: u16, body: &[u8]) -> Packet {
    eth().to([1, 0x80, 0xc2, 0, 0, last]).ether_type(kind).payload(body)
}

fn of_the_link(packet: &'static str, frame: fn(&Places) -> Packet) -> Class {
    class(packet)
        .each_way(Reason::LinkControl, frame)
        .both("", Reason::EtherType, frame, frame)
        .both_with(NO_LINK_CONTROL)
}

pub(super) fn frames() -> Section {
    let classes = vec![
        class("shorter than a header that it announces")
            .each_way(Reason::Truncated, |_| eth().ether_type(ether::ARP).payload(&[0; 27]))
            .both(
                "",
                Reason::Truncated,
                |at| allowed(at).truncate(53),
                // The kernel's test run does not send shorter frames untagged.
                |at| ask(at).vlan(0).truncate(57),
            )
            .reads("drop `truncated`"),
        class("802.1Q or 802.1ad tag with VLAN id 0 (priority), up to four in any order")
            .both("", Reason::Row, |at| allowed(at).vlan(0xe000), |at| ask(at).vlan(0))
            .both("", Reason::Port, |at| denied(at).vlan(0).tag(ether::SERVICE_VLAN, 0), |at| ask(at).vlan(0))
            .last(|it| it.reason = Reason::Row)
            .reads("judged like untagged"),
        class("tag with another VLAN id (802.1Q, or the outer one of QinQ)")
            .both("", Reason::VlanUnknown, |at| allowed(at).vlan(5), |at| ask(at).vlan(5))
            .both("judged like untagged:", Reason::Row, |at| allowed(at).vlan(5), |at| ask(at).vlan(5))
            .both_with(VLANS)
            .reads("drop `vlan-unknown`; judged like untagged when `vlans` lists the id"),
        class("more than four tags").both("", Reason::VlanLimit, |at| five(allowed(at)), |at| five(ask(at))),
        class("ARP").each_way(Reason::Arp, |_| eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 28])),
        of_the_link("LLDP to a bridge group address", |_| bridge(0x0e, 0x88cc, &[2, 7, 4])),
        of_the_link("slow protocols (LACP) to a bridge group address", |_| bridge(2, 0x8809, &[1, 1])),
        of_the_link("spanning tree (LLC 42 42 03 to a bridge group address)", |_| {
            bridge(0, 38, &[0x42, 0x42, 3, 0, 0])
        }),
        of_the_link("EAPOL", |_| bridge(3, 0x888e, &[1, 1, 0, 0])),
        class("LLDP or a slow protocol to any other address")
            .each_way(Reason::EtherType, |_| bridge(2, 0x8809, &[1, 1]).to([2, 0, 0, 0, 0, 2]))
            .each_way(Reason::EtherType, |_| bridge(2, 0x88cc, &[1, 1]).to([2, 0, 0, 0, 0, 2]))
            .reads("drop `ethertype`"),
        class("any other EtherType: MPLS, PPPoE, MACsec, unknown ones")
            .each_way(Reason::EtherType, |at| allowed(at).ether_type(0x8847))
            .each_way(Reason::EtherType, |at| allowed(at).ether_type(0x8864))
            .each_way(Reason::EtherType, |at| allowed(at).ether_type(0x88e5))
            .each_way(Reason::EtherType, |at| allowed(at).ether_type(0x88b5))
            .reads("drop `ethertype`"),
        class("any other 802.3 frame (LLC, SNAP)")
            .each_way(Reason::EtherType, |_| eth().ether_type(40).payload(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])),
    ];
    let after = "\
A bridge group address begins with 01:80:c2:00. Only tags that are in the frame are seen: not one that the network card
has taken out before XDP, nor one that is put in after TC.";
    Section { title: "The frame", notes: ["", after], classes }
}

/// Returns a packet that row E1 lets this host send.
pub(super) fn ask(places: &Places) -> Packet {
    eth().ip(places.host, places.database).tcp(40_000, 5_432)
}

/// Returns a packet that no row allows.
fn denied(places: &Places) -> Packet {
    eth().ip(places.stranger, places.host).tcp(40_000, 8_080)
}

fn five(packet: Packet) -> Packet {
    (0..5).fold(packet, |packet, _| packet.vlan(0))
}
