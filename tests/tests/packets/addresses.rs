//! Impossible addresses, and addresses that are not this host's.

use std::net::{IpAddr, Ipv4Addr};

use pomguard::policy::PortRange;
use pomguard_common::{
    Direction,
    protocol::{TCP, UDP},
    reason::Reason,
};
use pomguard_tests::{
    packet::{
        Packet, eth,
        flag::{ACK, SYN},
    },
    reference::{self, Places, row},
};

use crate::case::{case, run, run_under};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns a packet that row A2 would allow if its source and destination were others.
fn from_to(source: &str, destination: IpAddr) -> Packet {
    eth().ip(address(source), destination).tcp(40_000, 443)
}

#[test]
fn a_source_that_cannot_be_is_refused() {
    let (v4, v6) = (Places::v4(), Places::v6());
    let mut cases = Vec::new();
    for places in [v4, v6] {
        let land = eth().ip(places.host, places.host).tcp(443, 443);
        cases.push(case("SP-01", "from ourselves").inbound(&land, Reason::SpoofedSource));
    }
    for source in ["127.0.0.1", "127.255.255.255", "::1"] {
        let host = if address(source).is_ipv6() { v6.host } else { v4.host };
        cases.push(case("SP-02", source).inbound(&from_to(source, host), Reason::SpoofedSource));
    }
    let impossible = [
        "0.0.0.0",
        "0.0.0.1",
        "0.255.255.255",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "ff0e::1",
    ];
    for source in impossible {
        let host = if address(source).is_ipv6() { v6.host } else { v4.host };
        cases.push(case("SP-03", source).inbound(&from_to(source, host), Reason::SpoofedSource));
    }
    let control_state = [
        "1.0.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "223.255.255.255",
        "::1:0:0",
        "0:0:1::1",
        "0:0:1::",
        "fe80::1",
        // Local-use NAT64 (RFC 8215) and 6to4 around a global address: the following bytes are not an IPv4
        // address.
        "64:ff9b:1::7f00:1",
        "64:ff9b:0:1::7f00:1",
        "2002:808:808:ac10::1",
        "2002:808:808::a09:7",
    ];
    for source in control_state {
        let host = if address(source).is_ipv6() { v6.host } else { v4.host };
        let says = format!("{source} is alongside them");
        cases.push(case("SP-03", says).inbound(&from_to(source, host), Reason::Row).row("A2").connects());
    }
    for mapped in ["::ffff:10.9.0.7", "::ffff:0.0.0.0", "::ffff:127.0.0.1"] {
        cases.push(case("EH-12", mapped).inbound(&from_to(mapped, v6.host), Reason::MappedAddress));
    }
    let mapped = from_to("2001:db8::9", address("::ffff:10.9.0.2"));
    cases.push(case("EH-12", "to our mapped address").inbound(&mapped, Reason::MappedAddress));
    let leaving = eth().ip(address("::ffff:10.9.0.2"), v6.database).tcp(40_000, 5_432);
    cases.push(case("EH-12", "from our mapped address").outbound(&leaving, Reason::MappedAddress));
    let leaving = eth().ip(address("fd00:9::2"), address("::ffff:10.9.2.7")).udp(40_000, 53);
    cases.push(
        case("EH-12", "to a mapped address, under a row for anywhere")
            .outbound(&leaving, Reason::MappedAddress),
    );
    for inner in ["2002:7f00:1::1", "2002:a09:7::1", "64:ff9b::7f00:1", "::127.0.0.1"] {
        let embeds = from_to(inner, address("fd00:9::2"));
        cases.push(
            case("SP-07", "an IPv6 source around a private IPv4 one").inbound(&embeds, Reason::SpoofedSource),
        );
    }
    for nobody in ["127.0.0.1", "224.0.0.251", "255.255.255.255"] {
        let leaving = eth().ip(address("10.9.0.2"), address(nobody)).udp(40_000, 53);
        cases.push(
            case("SP-03", "to nobody, under a row for anywhere").outbound(&leaving, Reason::Destination),
        );
    }
    run("a_source_that_cannot_be_is_refused", &cases);
}

#[test]
fn what_is_not_for_or_from_this_host_is_refused() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let other = eth().ip(places.stranger, places.elsewhere).tcp(40_000, 443);
        cases.push(case("SP-04", "for a neighbour").inbound(&other, Reason::NotLocal));
        let query = eth().ip(places.elsewhere, places.database);
        cases.push(
            case("SP-06", "under a neighbour's address")
                .outbound(&query.clone().tcp(40_000, 5_432), Reason::SourceNotOurs)
                .outbound(&query.udp(40_000, 53), Reason::SourceNotOurs),
        );
    }
    for (source, places) in [("127.0.0.1", Places::v4()), ("::1", Places::v6())] {
        let loopback = eth().ip(places.stranger, address(source)).tcp(40_000, 443);
        cases.push(case("SP-02", "for the loopback").inbound(&loopback, Reason::NotLocal));
        let leaving = eth().ip(address(source), places.database).udp(40_000, 53);
        cases.push(case("SP-06", "from the loopback").outbound(&leaving, Reason::SourceNotOurs));
    }
    run("what_is_not_for_or_from_this_host_is_refused", &cases);
}

#[test]
fn leases_pass_and_what_only_looks_like_one_does_not() {
    let v4 = |source: &str, destination: &str| eth().to([0xff; 6]).ip(address(source), address(destination));
    let v6 = |source: &str, destination: &str| eth().ip(address(source), address(destination));
    let cases = [
        case("SP-03", "a DHCP offer to everybody")
            .inbound(&v4("10.9.0.1", "255.255.255.255").udp(67, 68), Reason::Dhcp),
        case("SP-03", "a DHCP acknowledgement to this host")
            .inbound(&v4("10.9.0.1", "10.9.0.2").to([2, 0, 0, 0, 0, 2]).udp(67, 68), Reason::Dhcp),
        case("SP-03", "a DHCP acknowledgement as long as they are").inbound(
            &v4("10.9.0.1", "10.9.0.2").to([2, 0, 0, 0, 0, 2]).udp(67, 68).payload(&[0; 240]),
            Reason::Dhcp,
        ),
        case("SP-03", "a DHCPv6 answer as long as they are")
            .inbound(&v6("fe80::1", "fd00:9::2").udp(547, 546).payload(&[0; 80]), Reason::Dhcp),
        case("SP-03", "our DHCP discovery")
            .outbound(&v4("0.0.0.0", "255.255.255.255").udp(68, 67), Reason::Dhcp),
        case("SP-03", "a DHCPv6 answer").inbound(&v6("fe80::1", "fd00:9::2").udp(547, 546), Reason::Dhcp),
        case("SP-04", "a lease for somebody else")
            .inbound(&v4("198.51.100.9", "10.9.0.3").udp(67, 68), Reason::NotLocal),
        case("SP-04", "a DHCPv6 answer from afar")
            .inbound(&v6("2001:db8::9", "fd00:9::2").udp(547, 546), Reason::Port),
        case("SP-06", "a question for a lease in somebody else's name")
            .outbound(&v4("10.9.0.99", "198.51.100.9").udp(68, 67), Reason::SourceNotOurs),
        case("SP-06", "a neighbour's advertisement in somebody else's name")
            .outbound(&v6("fd00:9::77", "2001:db8::9").hops(255).icmp(136, 0), Reason::SourceNotOurs),
        case("SP-06", "our advertisement from an address that the site file gives to nobody")
            .outbound(&v6("2001:db8::77", "2001:db8::9").hops(255).icmp(136, 0), Reason::Neighbour),
        case("SP-03", "a DHCP acknowledgement to an address that the site file gives to nobody")
            .inbound(&v4("10.9.0.1", "10.9.7.7").to([2, 0, 0, 0, 0, 2]).udp(67, 68), Reason::Dhcp),
        case("SP-03", "the same in a frame to everybody")
            .inbound(&v4("10.9.0.1", "10.9.7.7").udp(67, 68), Reason::NotLocal),
        case("SP-03", "our DHCPv6 question")
            .outbound(&v6("fe80::2", "ff02::1:2").udp(546, 547), Reason::Dhcp),
        case("SP-03", "somebody else's discovery")
            .inbound(&v4("0.0.0.0", "255.255.255.255").udp(68, 67), Reason::SpoofedSource),
        case("SP-03", "an offer in TCP")
            .inbound(&v4("10.9.0.1", "255.255.255.255").tcp(67, 68), Reason::Broadcast),
        case("SP-03", "an offer in a piece").inbound(
            &v4("10.9.0.1", "255.255.255.255").fragment(1, 0, true).udp(67, 68).payload(&[0; 8]),
            Reason::Broadcast,
        ),
        case("SP-03", "ports of the other family")
            .inbound(&v6("fe80::1", "fd00:9::2").udp(67, 68), Reason::Port),
    ];
    run("leases_pass_and_what_only_looks_like_one_does_not", &cases);
}

/// Prefixes of a row, and addresses inside and outside of them.
type Edges = (&'static [&'static str], &'static [(&'static str, bool)]);

#[test]
fn prefixes_and_ranges_have_exact_edges() {
    let mut policy = reference::policy();
    policy.rows.clear();
    policy.known.clear();
    let edges: [Edges; 7] = [
        (
            &["10.0.0.5/32", "10.0.0.6/31", "10.0.0.8/31"],
            &[("10.0.0.4", false), ("10.0.0.5", true), ("10.0.0.9", true), ("10.0.0.10", false)],
        ),
        (&["192.0.2.7/32"], &[("192.0.2.6", false), ("192.0.2.7", true), ("192.0.2.8", false)]),
        (&["192.0.2.8/31"], &[("192.0.2.7", false), ("192.0.2.9", true), ("192.0.2.10", false)]),
        (&["128.0.0.0/1"], &[("127.255.255.254", false), ("128.0.0.0", true), ("223.255.255.255", true)]),
        (
            &["fd01::/64"],
            &[
                ("fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
                ("fd01::", true),
                ("fd01::ffff:ffff:ffff:ffff", true),
                ("fd01:0:0:1::", false),
            ],
        ),
        (&["fd01::2/127"], &[("fd01::1", false), ("fd01::2", true), ("fd01::3", true), ("fd01::4", false)]),
        (&["fd01::7/128"], &[("fd01::6", false), ("fd01::7", true), ("fd01::8", false)]),
    ];
    for (peers, asked) in edges {
        policy.rows = vec![row("edge", Direction::Inbound, peers, TCP, PortRange { first: 100, last: 200 })];
        let mut cases = Vec::new();
        for &(peer, inside) in asked {
            let peer = address(peer);
            let host = if peer.is_ipv6() { Places::v6().host } else { Places::v4().host };
            for (port, listed) in [(99, false), (100, true), (200, true), (201, false)] {
                let packet = eth().ip(peer, host).tcp(40_000, port);
                let case = case("SP-09", format!("{peer} to port {port}, rows for {peers:?}"));
                let spoofed = peer == IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254));
                cases.push(match (spoofed, inside, listed) {
                    (true, ..) => case.inbound(&packet, Reason::SpoofedSource),
                    (_, true, true) => case.inbound(&packet, Reason::Row).row("edge").connects(),
                    (_, _, false) => case.inbound(&packet, Reason::Port),
                    (_, false, true) => case.inbound(&packet, Reason::Source),
                });
            }
        }
        run_under("prefixes_and_ranges_have_exact_edges", policy.clone(), &cases);
    }
}

#[test]
fn a_lease_is_renewed_though_a_row_names_its_port() {
    let mut policy = reference::policy();
    policy.rows.push(row("A4", Direction::Inbound, &["0.0.0.0/0", "::/0"], UDP, PortRange::ANY));
    let mut cases = Vec::new();
    for places in Places::both() {
        let (server, client) = if places.is_v6() { (547, 546) } else { (67, 68) };
        let renewal = eth().ip(places.host, places.resolver).udp(client, server).payload(&[0; 240]);
        let other = eth().ip(places.host, places.resolver).udp(client, client).payload(&[0; 240]);
        cases.push(
            case("SP-03", "our question").outbound(&renewal, Reason::Dhcp).outbound(&other, Reason::PeerFlow),
        );
    }
    run_under("a_lease_is_renewed_though_a_row_names_its_port", policy, &cases);
}

#[test]
fn metadata_service_answers_questions_and_opens_nothing() {
    let services = ["169.254.169.254", "fd00:ec2::254"];
    let mut policy = reference::policy();
    let peers = ["169.254.169.254/32", "fd00:ec2::254/128"];
    policy.rows.push(row("metadata", Direction::Outbound, &peers, TCP, PortRange::one(80)));
    let mut cases = Vec::new();
    for (places, service) in Places::both().into_iter().zip(services.map(address)) {
        let ask = eth().ip(places.host, service).tcp(40_000, 80);
        let answer = |flags| ask.clone().mirrored().flags(flags);
        cases.push(
            case("SP-08", "what this host asks for")
                .outbound(&ask, Reason::Row)
                .row("metadata")
                .connects()
                .enters()
                .inbound(&answer(SYN | ACK), Reason::OwnFlow)
                .inbound(&answer(ACK), Reason::OwnFlow),
        );
        cases.push(
            case("SP-08", "what nobody asked for")
                .inbound(&answer(SYN | ACK), Reason::NoFlow)
                .inbound(&answer(SYN), Reason::Port)
                .inbound(&eth().ip(service, places.host).udp(80, 40_000), Reason::Port),
        );
        let unlisted = eth().ip(places.host, service).tcp(40_000, 443);
        cases.push(case("SP-08", "a port that no row lists").outbound(&unlisted, Reason::Destination));
    }
    run_under("metadata_service_answers_questions_and_opens_nothing", policy, &cases);
}
