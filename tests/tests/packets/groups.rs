//! Group membership: queries and reports pass in both directions unless the setting is off.

use std::net::IpAddr;

use pomguard::policy::{PacketSettings, Policy};
use pomguard_common::{protocol::IGMP, reason::Reason};
use pomguard_tests::{
    packet::{Packet, eth, extension},
    reference::{self, Places},
};

use crate::case::{Case, case, run, run_under};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns an IGMP message with its Router Alert.
fn igmp(source: IpAddr, group: &str, kind: u8) -> Packet {
    eth()
        .to([1, 0, 0x5e, 0, 0, 1])
        .ip(source, address(group))
        .ip_options(&[0x94, 4, 0, 0])
        .hops(1)
        .protocol(IGMP)
        .payload(&[kind, 0, 0, 0, 0, 0, 0, 0])
}

/// Returns an MLD message with its Router Alert.
fn mld(source: &str, group: &str, kind: u8) -> Packet {
    eth()
        .to([0x33, 0x33, 0, 0, 0, 1])
        .ip(address(source), address(group))
        .hops(1)
        .ext_header(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0])
        .icmp(kind, 0)
        .payload(&[0; 16])
}

/// Returns the queries of a router.
fn queries() -> Vec<(&'static str, Packet)> {
    let router = Places::v4().office;
    vec![
        ("an IGMP query to all", igmp(router, "224.0.0.1", 0x11)),
        ("an IGMP query about a group", igmp(router, "239.1.2.3", 0x11)),
        ("an MLD query to all", mld("fe80::7", "ff02::1", 130)),
        ("an MLD query about a group", mld("fe80::7", "ff02::1:3", 130)),
    ]
}

/// Returns the messages of this host when it joins, stays and leaves.
fn reports() -> Vec<(&'static str, Packet)> {
    let host = Places::v4().host;
    vec![
        ("an IGMPv2 report", igmp(host, "239.1.2.3", 0x16)),
        ("an IGMPv3 report", igmp(host, "224.0.0.22", 0x22)),
        ("an IGMP leave message", igmp(host, "224.0.0.2", 0x17)),
        ("an MLD report", mld("fe80::2", "ff02::1:3", 131)),
        ("an MLD done message", mld("fe80::2", "ff02::2", 132)),
        ("an MLDv2 report", mld("fe80::2", "ff02::16", 143)),
        ("an MLDv2 report before there is an address", mld("::", "ff02::16", 143)),
    ]
}

fn all(expected: impl Fn(Case, &Packet) -> Case, messages: Vec<(&'static str, Packet)>) -> Vec<Case> {
    messages.into_iter().map(|(says, packet)| expected(case("UD-08", says), &packet)).collect()
}

#[test]
fn group_queries_and_reports_pass_unless_switched_off() {
    let what = "group_queries_and_reports_pass_unless_switched_off";
    let mut cases = all(|case, packet| case.inbound(packet, Reason::Multicast), queries());
    cases.extend(all(|case, packet| case.outbound(packet, Reason::Multicast), reports()));
    let far = igmp(Places::v4().office, "224.0.0.1", 0x11).hops(2);
    cases.push(case("UD-08", "an IGMP query from afar").inbound(&far, Reason::Broadcast));
    run(what, &cases);

    let packets = PacketSettings { group_membership: false, ..reference::policy().packets };
    let policy = Policy { packets, ..reference::policy() };
    let v6 = |packet: &Packet| packet.is_v6();
    let inbound = |case: Case, packet: &Packet| {
        case.inbound(packet, if v6(packet) { Reason::IcmpType } else { Reason::Broadcast })
    };
    let outbound = |case: Case, packet: &Packet| {
        case.outbound(packet, if v6(packet) { Reason::IcmpType } else { Reason::Destination })
    };
    let mut cases = all(inbound, queries());
    cases.extend(all(outbound, reports()));
    run_under(what, policy, &cases);
}
