//! Protocols without ports.

use pomguard::policy::{Direction, PortRange};
use pomguard_common::reason::Reason;

use super::{NO_MEMBERSHIP, NO_VRRP, Section, Set, TRACK, address, class};
use crate::{
    packet::{Packet, eth},
    reference::{Places, row},
};

/// Rows for GRE with the office.
const GRE_ROWS: Set = Set {
    message: "",
    key: None,
    apply: |policy| {
        let office = &["10.9.0.0/24", "fd00:9::/64"];
        policy.rows.push(row("G", Direction::Inbound, office, 47, PortRange::ANY));
        policy.rows.push(row(
            "H",
            Direction::Outbound,
            &["10.9.2.0/24", "fd00:9:2::/64"],
            47,
            PortRange::ANY,
        ));
    },
};

fn group(places: &Places, protocol: u8, hops: u8, ours: bool) -> Packet {
    let from = if ours { places.host } else { places.elsewhere };
    let to = address(if places.is_v6() { "ff02::12" } else { "224.0.0.18" });
    eth().ip(from, to).hops(hops).protocol(protocol).payload(&[0; 8])
}

fn carries(places: &Places, protocol: u8) -> Packet {
    eth().ip(places.stranger, places.host).protocol(protocol).payload(&[0; 40])
}

fn tunnel(places: &Places) -> Packet {
    eth().ip(places.office, places.host).protocol(47).payload(&[0; 40])
}

pub(super) fn protocols() -> Section {
    let classes = vec![
        class("IGMP or VRRP of less than 8 bytes").each_way(Reason::Truncated, |at| group(at, 112, 255, true).payload(&[0; 7])),
        class("IGMP to a group with TTL 1")
            .both("", Reason::Multicast, |at| group(at, 2, 1, false), |at| group(at, 2, 1, true))
            .inbound("", Reason::Broadcast, |at| group(at, 2, 1, false))
            .with(NO_MEMBERSHIP)
            .outbound("", Reason::Destination, |at| group(at, 2, 1, true))
            .with(NO_MEMBERSHIP)
            .v4(),
        class("VRRP to its group with TTL or hop limit 255")
            .both("", Reason::Vrrp, |at| group(at, 112, 255, false), |at| group(at, 112, 255, true))
            .inbound("", Reason::Broadcast, |at| group(at, 112, 255, false))
            .with(NO_VRRP)
            .outbound("", Reason::Destination, |at| group(at, 112, 255, true))
            .with(NO_VRRP),
        class("VRRP from afar (a lower TTL)")
            .inbound("", Reason::Broadcast, |at| group(at, 112, 254, false))
            .outbound("", Reason::Destination, |at| group(at, 112, 254, true)),
        class("tunnels and others (GRE, ESP, AH, SCTP, UDP-Lite, IP in IP, VRRP to one address, unknown numbers)")
            .inbound("when a row names the protocol", Reason::Row, tunnel)
            .with(GRE_ROWS)
            .inbound("otherwise *k*", Reason::Protocol, |at| carries(at, 47))
            .inbound("", Reason::Protocol, |at| carries(at, 4))
            .inbound("", Reason::Protocol, |at| carries(at, 50))
            .inbound("", Reason::Protocol, |at| carries(at, 132))
            .inbound("", Reason::Protocol, |at| carries(at, 255))
            .inbound("", Reason::ProtocolKnown, tunnel)
            .outbound("when a row allows what it answers", Reason::PeerFlow, |at| tunnel(at).mirrored())
            .with(GRE_ROWS)
            .outbound("when a row names the protocol", Reason::Row, |at| {
                eth().ip(at.host, at.database).protocol(47).payload(&[0; 40])
            })
            .with(GRE_ROWS)
            .outbound("otherwise", Reason::Destination, |at| carries(at, 47).mirrored())
            .outbound("otherwise", Reason::Untracked, |at| carries(at, 47).mirrored())
            .with(TRACK),
    ];
    let after = "What a tunnel carries is not looked at.";
    Section { title: "Other protocols", notes: ["", after], classes }
}
