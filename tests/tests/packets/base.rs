//! Tests of the IP header.

use pomguard_common::reason::Reason;
use pomguard_tests::{
    packet::{Packet, Part, eth, flag},
    reference::Places,
};

use crate::case::{Case, case, run};

fn allowed(places: &Places) -> Packet {
    eth().ip(places.stranger, places.host).tcp(40_000, 443)
}

/// Expects that an opening packet passes inbound under row A2.
fn passes(id: &'static str, says: impl Into<String>, packet: &Packet) -> Case {
    case(id, says).inbound(packet, Reason::Row).row("A2").connects()
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let v4 = allowed(&Places::v4());
    let mut cases = Vec::new();
    for words in 0..5 {
        let packet = v4.clone().poke(Part::Network, 0, &[0x40 | words]);
        cases.push(case("IP-01", format!("a header of {words} words")).both_ways(&packet, Reason::Malformed));
    }
    let long = v4.clone().poke(Part::Network, 0, &[0x4f]);
    cases.push(case("IP-01", "a header longer than the packet").both_ways(&long, Reason::Malformed));
    for total in [0, 1, 19] {
        let packet = v4.clone().announcing(total);
        let says = format!("{total} bytes in all, less than the header");
        cases.push(case("IP-03", says).both_ways(&packet, Reason::Malformed));
    }
    let empty = v4.clone().announcing(20);
    cases.push(case("IP-03", "a header and nothing else").both_ways(&empty, Reason::Truncated));
    for total in [41, 60, 65_535] {
        let packet = v4.clone().announcing(total);
        let says = format!("{total} bytes are announced, 40 are there");
        cases.push(case("IP-04", says).both_ways(&packet, Reason::Truncated));
    }
    for total in 20..40 {
        let packet = v4.clone().announcing(total).pad(&[0; 6]);
        let says = format!("the rest of the header lies in the padding behind {total} bytes");
        cases.push(case("IP-05", says).both_ways(&packet, Reason::Truncated));
    }
    let v6 = allowed(&Places::v6());
    cases.push(case("IP-15", "no payload").both_ways(&v6.clone().announcing(0), Reason::Malformed));
    for length in [21, 1_400, 65_535] {
        let says = format!("{length} bytes are announced, 20 are there");
        cases.push(case("IP-15", says).both_ways(&v6.clone().announcing(length), Reason::Truncated));
    }
    for length in 1..20 {
        let says = format!("{length} bytes, less than the header behind");
        cases.push(case("IP-15", says).both_ways(&v6.clone().announcing(length), Reason::Truncated));
    }
    run("lengths_that_contradict_each_other_are_refused", &cases);
}

#[test]
fn what_does_not_concern_a_filter_changes_nothing() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let packet = allowed(&places);
        let denied = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        for hops in [0, 1, 255] {
            let says = format!("{hops} hops left");
            cases.push(passes("IP-07", says.clone(), &packet.clone().hops(hops)));
            cases.push(case("IP-07", says).inbound(&denied.clone().hops(hops), Reason::Source));
        }
        for class in 0..=255 {
            cases.push(passes("IP-16", format!("traffic class {class}"), &packet.clone().class(class)));
        }
        let answer = packet.clone().mirrored().flags(flag::SYN | flag::ACK);
        for class in [1, 3, 0xb8] {
            let says = format!("an answer of traffic class {class}");
            cases.push(case("IP-16", says).outbound(&answer.clone().class(class), Reason::PeerFlow));
        }
    }
    let v6 = allowed(&Places::v6());
    for label in [[0x60, 0, 0, 1], [0x6f, 0xff, 0xff, 0xff], [0x60, 0x0f, 0xff, 0xff]] {
        cases.push(passes(
            "IP-16",
            format!("flow label {label:02x?}"),
            &v6.clone().poke(Part::Network, 0, &label),
        ));
    }
    let v4 = allowed(&Places::v4());
    for position in [[0x80, 0], [0x40, 0], [0xc0, 0]] {
        let packet = v4.clone().poke(Part::Network, 6, &position);
        cases.push(passes("IP-08", format!("flags {position:02x?}, none a fragment's"), &packet));
    }
    for sum in [[0, 0], [0xff, 0xff], [0x12, 0x34]] {
        let packet = v4.clone().poke(Part::Network, 10, &sum);
        cases.push(passes("IP-06", "a wrong header checksum, for the host to refuse", &packet));
    }
    run("what_does_not_concern_a_filter_changes_nothing", &cases);
}

#[test]
fn ipv4_options_are_refused_whatever_they_say() {
    let options: [(&'static str, &'static str, &[u8]); 14] = [
        ("IP-09", "loose source route", &[0x83, 7, 4, 10, 9, 0, 9, 0]),
        ("IP-09", "strict source route", &[0x89, 7, 4, 10, 9, 0, 9, 0]),
        ("IP-09", "record route", &[7, 7, 4, 0, 0, 0, 0, 0]),
        ("IP-09", "timestamp", &[0x44, 8, 5, 0, 0, 0, 0, 0]),
        ("IP-09", "stream id", &[0x88, 4, 0, 1]),
        ("IP-09", "router alert", &[0x94, 4, 0, 0]),
        ("IP-09", "an unknown one", &[0x9e, 4, 0, 0]),
        ("IP-09", "end of options alone", &[0, 0, 0, 0]),
        ("IP-09", "no operation", &[1, 1, 1, 1]),
        ("IP-10", "one of length 0", &[7, 0, 0, 0]),
        ("IP-10", "one of length 1", &[7, 1, 0, 0]),
        ("IP-10", "one that ends behind the header", &[7, 40, 4, 0]),
        ("IP-10", "one that is all the header holds", &[0x44, 40, 5, 0]),
        ("IP-10", "forty bytes of them", &[1; 40]),
    ];
    let places = Places::v4();
    let mut cases: Vec<_> = options
        .into_iter()
        .map(|(id, says, bytes)| {
            let packet = eth().ip(places.stranger, places.host).options(bytes).tcp(40_000, 443);
            case(id, says).both_ways(&packet, Reason::IpOptions)
        })
        .collect();
    let bare = eth().ip(places.stranger, places.host).options(&[0x94, 4, 0, 0]).protocol(2);
    let says = "a frame that ends behind the one option that IGMP has";
    cases.push(case("IP-09", says).both_ways(&bare, Reason::Truncated));
    run("ipv4_options_are_refused_whatever_they_say", &cases);
}

#[test]
fn unlisted_protocol_does_not_pass_as_a_listed_one() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let segment = allowed(&places).quoted().split_off(if places.is_v6() { 40 } else { 20 });
        for number in 0..=255 {
            // TCP, UDP and the family's ICMP have ports or types; IPv6 extension headers are walked.
            let walked = places.is_v6() && matches!(number, 0 | 43 | 44 | 58 | 60);
            if walked || matches!(number, 6 | 17) || !places.is_v6() && number == 1 {
                continue;
            }
            let from = |peer| eth().ip(peer, places.host).protocol(number).payload(&segment);
            let says = format!("protocol {number}");
            cases.push(
                case("IP-11", says)
                    .inbound(&from(places.stranger), Reason::Protocol)
                    .inbound(&from(places.office), Reason::ProtocolKnown)
                    .outbound(&from(places.database).mirrored(), Reason::Destination),
            );
        }
    }
    run("unlisted_protocol_does_not_pass_as_a_listed_one", &cases);
}
