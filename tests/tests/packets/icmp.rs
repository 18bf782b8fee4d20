//! ICMP messages other than errors: echo, the link's own messages, and unneeded messages.

use std::net::IpAddr;

use pomguard::policy::{Direction, PacketSettings, Policy, PortRange};
use pomguard_common::{
    protocol::{ICMP, ICMPV6},
    reason::Reason,
};
use pomguard_tests::{
    packet::{Packet, eth},
    reference::{self, Places, row},
};

use crate::case::{case, run, run_under};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns the types of an echo request and of its reply.
const fn echo(places: &Places) -> (u8, u8) {
    if places.is_v6() { (128, 129) } else { (8, 0) }
}

#[test]
fn an_echo_request_needs_a_row_in_ipv4_and_none_in_ipv6() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let (request, reply) = echo(&places);
        let ask = eth().ip(places.stranger, places.host).icmp(request, 0).rest(0x0007_0001);
        let answer = eth().ip(places.host, places.stranger).icmp(reply, 0).rest(0x0007_0001);
        cases.push(if places.is_v6() {
            case("IC-16", "a ping").inbound(&ask, Reason::EchoV6).outbound(&answer, Reason::PeerFlow)
        } else {
            case("IC-16", "a ping")
                .inbound(&ask, Reason::IcmpType)
                .outbound(&answer, Reason::UnsolicitedReply)
        });
        cases.push(
            case("IC-17", "replies nobody asked for")
                .inbound(&eth().ip(places.stranger, places.host).icmp(reply, 0), Reason::NoFlow)
                .inbound(&eth().ip(places.office, places.host).icmp(reply, 0), Reason::NoFlowKnown),
        );
        let ping = eth().ip(places.host, places.database).icmp(request, 0).rest(1);
        cases.push(case("IC-16", "our ping without a row").outbound(&ping, Reason::Destination));
    }
    run("an_echo_request_needs_a_row_in_ipv4_and_none_in_ipv6", &cases);

    let packets = PacketSettings { echo_v6: false, ..PacketSettings::default() };
    let places = Places::v6();
    let ask = eth().ip(places.stranger, places.host).icmp(128, 0);
    let answer = eth().ip(places.host, places.stranger).icmp(129, 0);
    let off = case("IC-16", "switched off")
        .inbound(&ask, Reason::IcmpType)
        .outbound(&answer, Reason::UnsolicitedReply);
    let policy = Policy { packets, ..reference::policy() };
    run_under("an_echo_request_needs_a_row_in_ipv4_and_none_in_ipv6", policy, &[off]);
}

#[test]
fn a_row_grants_echo_and_its_reply_belongs_to_the_identifier() {
    let mut policy = reference::policy();
    for (id, direction, peer, protocol) in [
        ("in4", Direction::Inbound, "10.9.0.0/24", ICMP),
        ("in6", Direction::Inbound, "fd00:9::/64", ICMPV6),
        ("out4", Direction::Outbound, "10.9.2.0/24", ICMP),
        ("out6", Direction::Outbound, "fd00:9:2::/64", ICMPV6),
    ] {
        policy.rows.push(row(id, direction, &[peer], protocol, PortRange::ANY));
    }
    let mut cases = Vec::new();
    for places in Places::both() {
        let (request, reply) = echo(&places);
        let (inbound, outbound) = if places.is_v6() { ("in6", "out6") } else { ("in4", "out4") };
        let served = eth().ip(places.office, places.host);
        cases.push(
            case("IC-16", "a ping that a row allows")
                .inbound(&served.clone().icmp(request, 0).rest(5 << 16), Reason::Row)
                .row(inbound)
                .outbound(&served.clone().mirrored().icmp(reply, 0).rest(5 << 16), Reason::PeerFlow),
        );
        cases.push(
            case("IC-20", "the row is for echo alone").inbound(&served.clone().icmp(13, 0), Reason::IcmpType),
        );
        let (unreachable, code) = if places.is_v6() { (1, 4) } else { (3, 3) };
        let error = eth().ip(places.host, places.office).icmp(unreachable, code);
        let about = |ping: Packet| error.clone().payload(&ping.rest(5 << 16).quoted());
        cases.push(
            case("IC-10", "an error about a ping that a row allows")
                .outbound(&about(served.clone().icmp(request, 0)), Reason::IcmpRelated),
        );
        cases.push(case("IC-17", "nor for replies").inbound(&served.icmp(reply, 0), Reason::NoFlowKnown));
        let ours = eth().ip(places.host, places.database);
        let ping = ours.clone().icmp(request, 0).rest(5 << 16);
        let pong = |id: u32| ours.clone().mirrored().icmp(reply, 0).rest(id << 16);
        let asked =
            |says: &str| case("IC-19", says).outbound(&ping, Reason::Row).row(outbound).connects().enters();
        cases.push(
            asked("a reply after 50 s")
                .wait(50)
                .inbound(&pong(5), Reason::OwnFlow)
                .inbound(&pong(6), Reason::NoFlowKnown),
        );
        cases.push(asked("a reply after the age").wait(63).inbound(&pong(5), Reason::NoFlowKnown));
        cases.push(
            asked("the next request keeps it")
                .wait(40)
                .outbound(&ping, Reason::OwnFlow)
                .row(outbound)
                .wait(40)
                .inbound(&pong(5), Reason::OwnFlow),
        );
        cases.push(
            asked("but no longer than one request")
                .outbound(&ping, Reason::OwnFlow)
                .row(outbound)
                .wait(63)
                .inbound(&pong(5), Reason::NoFlowKnown),
        );
    }
    run_under("a_row_grants_echo_and_its_reply_belongs_to_the_identifier", policy, &cases);
}

#[test]
fn neighbours_are_found_but_only_on_the_link() {
    let host = Places::v6().host;
    let mut cases = Vec::new();
    let link_local = address("fe80::7");
    for kind in [133, 134, 135, 136, 141, 142] {
        for destination in [host, address("ff02::1"), address("ff02::1:ff00:2")] {
            let says = format!("type {kind} to {destination}");
            let packet = eth().ip(link_local, destination).hops(255).icmp(kind, 0).payload(&[0; 16]);
            cases.push(case("IC-11", says.clone()).inbound(&packet, Reason::Neighbour));
            for hops in [0, 1, 64, 254] {
                let far = packet.clone().hops(hops);
                cases.push(case("IC-11", format!("{says}, {hops} hops")).inbound(&far, Reason::HopLimit));
            }
        }
        let ours = eth().ip(host, link_local).hops(255).icmp(kind, 0).payload(&[0; 16]);
        let reason = if kind == 134 { Reason::SpoofedSource } else { Reason::Neighbour };
        cases.push(case("EH-13", format!("type {kind} leaves")).outbound(&ours, reason));
    }
    let doubles = eth().to([0x33, 0x33, 0xff, 0, 0, 2]).ip(address("::"), address("ff02::1:ff00:2"));
    let doubles = doubles.hops(255).icmp(135, 0).payload(&[0; 16]);
    cases.push(
        case("IC-11", "is this address taken?")
            .inbound(&doubles, Reason::Neighbour)
            .outbound(&doubles, Reason::Neighbour),
    );
    let router = eth().ip(address("fd00:9::1"), address("ff02::1")).hops(255).icmp(134, 0).payload(&[0; 8]);
    cases.push(case("IC-12", "a router of no link").inbound(&router, Reason::SpoofedSource));
    let piece = eth().ip(link_local, host).hops(255).fragment(1, 0, true).icmp(135, 0).payload(&[0; 16]);
    cases.push(case("IC-11", "a solicitation in pieces (RFC 6980)").inbound(&piece, Reason::IcmpType));
    for (kind, hops) in [(148, 255), (149, 255), (151, 1), (152, 1), (153, 1)] {
        let packet = eth().ip(link_local, host).hops(hops).icmp(kind, 0);
        cases.push(case("IC-13", format!("type {kind}")).inbound(&packet, Reason::IcmpControl));
        let far = packet.hops(64);
        cases.push(case("IC-13", format!("type {kind} from afar")).inbound(&far, Reason::IcmpType));
    }
    run("neighbours_are_found_but_only_on_the_link", &cases);
}

#[test]
fn redirects_are_refused_unless_switched_on() {
    let (v4, v6) = (Places::v4(), Places::v6());
    let ours = eth().ip(v4.host, v4.database).tcp(40_000, 5_432);
    let opened = |says: &str| case("IC-14", says).outbound(&ours, Reason::Row).row("E1").connects().enters();
    let redirect4 = eth().ip(v4.stranger, v4.host).icmp(5, 1).payload(&ours.quoted());
    let redirect6 = eth().ip(address("fe80::1"), v6.host).hops(255).icmp(137, 0).payload(&[0; 32]);
    let off = [
        opened("a redirect of a live connection").inbound(&redirect4, Reason::IcmpType),
        case("IC-14", "an IPv6 redirect").inbound(&redirect6, Reason::IcmpType),
        case("IC-14", "redirects do not leave")
            .outbound(&redirect4.clone().mirrored(), Reason::IcmpType)
            .outbound(&redirect6.clone().mirrored(), Reason::IcmpType),
    ];
    run("redirects_are_refused_unless_switched_on", &off);
    let unrelated = eth().ip(v4.host, v4.stranger).tcp(40_000, 5_432);
    let on = [
        opened("switched on").inbound(&redirect4, Reason::IcmpRelated),
        case("IC-14", "of nothing that lives")
            .inbound(&redirect4.payload(&unrelated.quoted()), Reason::IcmpUnrelated),
        case("IC-14", "IPv6, switched on").inbound(&redirect6, Reason::Neighbour),
        case("IC-14", "IPv6, from afar").inbound(&redirect6.hops(254), Reason::IcmpType),
    ];
    let packets = PacketSettings { redirects: true, ..PacketSettings::default() };
    let policy = Policy { packets, ..reference::policy() };
    run_under("redirects_are_refused_unless_switched_on", policy, &on);
}

/// Returns types that nothing here needs, and unknown types.
fn needless(places: &Places) -> Vec<u8> {
    if places.is_v6() {
        let some = [0, 5, 99, 100, 101, 127, 138, 139, 140, 144, 145, 146, 147, 150];
        some.into_iter().chain(154..=255).collect()
    } else {
        let errors_and_echo = [0, 3, 8, 11, 12];
        (0..=255).filter(|kind| !errors_and_echo.contains(kind)).collect()
    }
}

#[test]
fn messages_that_nobody_needs_are_dropped() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let id = if places.is_v6() { "IC-15" } else { "IC-20" };
        for kind in needless(&places) {
            // With all properties of a message of the link.
            let near = if places.is_v6() { address("fe80::7") } else { places.office };
            for hops in [1, 64, 255] {
                let packet: Packet = eth().ip(near, places.host).hops(hops).icmp(kind, 0).payload(&[0; 40]);
                let says = format!("type {kind}, {hops} hops");
                cases.push(case(id, says).both_ways(&packet, Reason::IcmpType));
            }
        }
    }
    run("messages_that_nobody_needs_are_dropped", &cases);
}

#[test]
fn messages_to_neighbours_have_code_0_and_come_from_somebody() {
    let host = Places::v6().host;
    let mut cases = Vec::new();
    for kind in [133, 134, 135, 136, 137, 141, 142, 148, 149] {
        let message =
            |source: &str, code| eth().ip(address(source), host).hops(255).icmp(kind, code).payload(&[0; 16]);
        let coded = message("fe80::7", 1);
        cases.push(case("IC-11", format!("type {kind}, code 1")).inbound(&coded, Reason::IcmpType));
        let solicits = matches!(kind, 133 | 135);
        let reason = if solicits { Reason::Neighbour } else { Reason::SpoofedSource };
        cases.push(case("IC-11", format!("type {kind} from nobody")).inbound(&message("::", 0), reason));
    }
    run("messages_to_neighbours_have_code_0_and_come_from_somebody", &cases);
}
