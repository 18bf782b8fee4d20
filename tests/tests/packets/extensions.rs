//! IPv6 extension headers: walked up to a limit, and refused if malformed.

use pomguard_common::{limits, reason::Reason};
use pomguard_tests::{
    packet::{Packet, eth, extension},
    reference::Places,
};

use crate::case::{case, run};

fn base() -> Packet {
    let places = Places::v6();
    eth().ip(places.stranger, places.host)
}

const PAD: [u8; 2] = [1, 4];

#[test]
fn headers_before_a_port_do_not_hide_it() {
    let mut cases = Vec::new();
    let kinds = [
        ("hop-by-hop options", extension::HOP_BY_HOP, vec![1, 4]),
        ("destination options", extension::DESTINATION, vec![1, 4]),
        ("a routing header of type 3, nothing left", extension::ROUTING, vec![3, 0]),
        ("long destination options", extension::DESTINATION, vec![0; 500]),
    ];
    for (name, number, body) in kinds {
        let packet = base().ext_header(number, &body);
        let allowed = packet.clone().tcp(40_000, 443);
        cases.push(case("EH-01", name).inbound(&allowed, Reason::Row).row("A2").connects());
        let says = format!("{name}, denied port");
        cases.push(case("EH-01", says).inbound(&packet.clone().tcp(40_000, 22), Reason::Source));
        let says = format!("{name}, unlisted port");
        cases.push(case("EH-01", says).inbound(&packet.udp(40_000, 22), Reason::Port));
    }
    let all = base()
        .ext_header(extension::HOP_BY_HOP, &PAD)
        .ext_header(extension::DESTINATION, &PAD)
        .ext_header(extension::ROUTING, &[3, 0])
        .fragment(1, 0, false)
        .ext_header(extension::DESTINATION, &PAD)
        .tcp(40_000, 443);
    cases.push(case("EH-01", "all in the order of RFC 8200").inbound(&all, Reason::Row).row("A2").connects());
    run("headers_before_a_port_do_not_hide_it", &cases);
}

#[test]
fn headers_out_of_order_and_source_routes_are_refused() {
    let hop = extension::HOP_BY_HOP;
    let mut cases = vec![
        case("EH-02", "hop-by-hop options after others").both_ways(
            &base().ext_header(extension::DESTINATION, &PAD).ext_header(hop, &PAD).tcp(40_000, 443),
            Reason::ExtensionHeader,
        ),
        case("EH-02", "hop-by-hop options twice").both_ways(
            &base().ext_header(hop, &PAD).ext_header(hop, &PAD).tcp(40_000, 443),
            Reason::ExtensionHeader,
        ),
    ];
    for (kind, left) in [(0, 0), (0, 1), (2, 0), (2, 1), (3, 1), (4, 0), (4, 1), (253, 1)] {
        let packet = base().ext_header(extension::ROUTING, &[kind, left]).tcp(40_000, 443);
        let says = format!("a routing header of type {kind} with {left} left");
        cases.push(case("EH-04", says).both_ways(&packet, Reason::ExtensionHeader));
    }
    run("headers_out_of_order_and_source_routes_are_refused", &cases);
}

#[test]
fn a_chain_is_walked_up_to_the_limit_and_ends_in_a_drop_beyond() {
    let mut cases = Vec::new();
    let mut chain = base();
    for count in 1..=64 {
        chain = chain.ext_header(extension::DESTINATION, &PAD);
        let says = format!("{count} headers");
        let beyond = count > limits::EXTENSION_HEADERS;
        let denied = if beyond { Reason::ExtensionLimit } else { Reason::Source };
        let case = case("EH-03", says).inbound(&chain.clone().tcp(40_000, 22), denied);
        let allowed = chain.clone().tcp(40_000, 443);
        cases.push(if beyond {
            case.inbound(&allowed, Reason::ExtensionLimit)
        } else {
            case.inbound(&allowed, Reason::Row).row("A2").connects()
        });
    }
    run("a_chain_is_walked_up_to_the_limit_and_ends_in_a_drop_beyond", &cases);
}

#[test]
fn upper_header_is_searched_up_to_a_limit_in_the_frame() {
    // Seven headers of 256 bytes and one more, after 54 bytes: the upper layer begins at `place`.
    let stands_at = |place: usize| {
        let long = (0..7).fold(base(), |packet, _| packet.ext_header(extension::DESTINATION, &[1; 254]));
        let rest = place - 54 - 7 * 256;
        long.ext_header(extension::DESTINATION, &vec![0; rest - 2]).tcp(40_000, 443)
    };
    let mut cases = Vec::new();
    for place in [2_014, 2_046, 2_054, 2_086] {
        let says = format!("at {place}");
        let packet = stands_at(place);
        cases.push(case("EH-05", says).untagged().inbound(&packet, Reason::Row).row("A2").connects());
    }
    for place in [2_094, 2_102] {
        let says = format!("at {place}");
        cases.push(case("EH-05", says).untagged().both_ways(&stands_at(place), Reason::ExtensionLimit));
    }
    run("upper_header_is_searched_up_to_a_limit_in_the_frame", &cases);
}

#[test]
fn lengths_in_a_chain_lead_nowhere_else() {
    let longest = base().ext_header(extension::DESTINATION, &[0; 2_046]);
    let cases = [
        case("EH-05", "the longest header, then an allowed port")
            .both_ways(&longest.clone().tcp(40_000, 443), Reason::ExtensionLimit),
        case("EH-05", "the longest header, then a denied port")
            .both_ways(&longest.tcp(40_000, 22), Reason::ExtensionLimit),
        case("EH-05", "a chain that ends with the packet")
            .both_ways(&base().ext_header(extension::DESTINATION, &PAD), Reason::Truncated),
        case("EH-05", "a header that ends behind the packet")
            .both_ways(&base().ext_header(extension::DESTINATION, &[0; 14]).announcing(8), Reason::Truncated),
        case("EH-05", "a header whose rest lies in the padding").both_ways(
            &base().ext_header(extension::DESTINATION, &[0; 14]).announcing(8).tcp(40_000, 443),
            Reason::Truncated,
        ),
        case("EH-05", "a chain behind a payload of four bytes").both_ways(
            &base().ext_header(extension::DESTINATION, &PAD).tcp(40_000, 443).announcing(4),
            Reason::Truncated,
        ),
        case("EH-11", "a jumbogram").both_ways(
            &base().ext_header(extension::HOP_BY_HOP, &[0xc2, 4, 0, 1, 0, 0]).tcp(40_000, 443).announcing(0),
            Reason::Malformed,
        ),
    ];
    run("lengths_in_a_chain_lead_nowhere_else", &cases);
}

#[test]
fn what_is_not_walked_ends_the_chain_under_its_own_number() {
    let segment = base().tcp(40_000, 443).quoted().split_off(40);
    let mut cases = Vec::new();
    let kinds = [("EH-07", 50), ("EH-07", 51), ("EH-08", 59)];
    let others = [135, 139, 140, 253, 254, 200].map(|number| ("EH-09", number));
    for (id, number) in kinds.into_iter().chain(others) {
        let bare = base().protocol(number).payload(&segment);
        cases.push(case(id, format!("next header {number}")).inbound(&bare, Reason::Protocol));
        // The first bytes look like a next header and a length.
        let posing = [&[6, 0, 1, 4, 0, 0, 0, 0], &segment[..]].concat();
        let packet = base().ext_header(extension::DESTINATION, &PAD).protocol(number).payload(&posing);
        let says = format!("next header {number} posing as a chain");
        cases.push(case(id, says).inbound(&packet, Reason::Protocol));
    }
    run("what_is_not_walked_ends_the_chain_under_its_own_number", &cases);
}

#[test]
fn group_membership_passes_behind_its_router_alert() {
    let link_local = "fe80::7".parse().expect("an address");
    let groups: [(u8, &str); 4] =
        [(130, "ff02::1"), (131, "ff02::1:ff00:2"), (132, "ff02::2"), (143, "ff02::16")];
    let mut cases = Vec::new();
    for (kind, group) in groups {
        let message = |source| {
            eth()
                .to([0x33, 0x33, 0, 0, 0, 1])
                .ipv6(source, group.parse().expect("an address"))
                .hops(1)
                .ext_header(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0])
                .icmp(kind, 0)
                .payload(&[0; 16])
        };
        let says = format!("type {kind}");
        let both = case("EH-10", says).inbound(&message(link_local), Reason::Multicast);
        cases.push(both.outbound(&message(link_local), Reason::Multicast));
        let far = format!("type {kind} that came through a router");
        cases.push(case("EH-10", far).inbound(&message(link_local).hops(64), Reason::IcmpType));
    }
    run("group_membership_passes_behind_its_router_alert", &cases);
}
