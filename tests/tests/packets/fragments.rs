//! Fragmented datagrams: the first fragment is judged and the others follow, in that order only.

use std::net::IpAddr;

use pomguard::policy::{Direction, PortRange};
use pomguard_common::{
    protocol::{ICMP, ICMPV6, TCP, UDP},
    reason::Reason,
};
use pomguard_tests::{
    packet::{Packet, eth, extension},
    reference::{self, Places},
};

use crate::case::{case, run, run_under};

/// Returns the first 24 bytes of a longer UDP datagram.
fn head(source: IpAddr, destination: IpAddr, port: u16, id: u32) -> Packet {
    eth().ip(source, destination).fragment(id, 0, true).udp(40_000, port).payload(&[1; 16])
}

/// Returns a later fragment, without a header.
fn follower(source: IpAddr, destination: IpAddr, id: u32, offset: u16, more: bool) -> Packet {
    eth().ip(source, destination).fragment(id, offset, more).protocol(UDP).payload(&[2; 16])
}

#[test]
fn followers_share_the_fate_of_the_first_piece() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let Places { host, resolver, stranger, database, .. } = places;
        let middle = follower(resolver, host, 7, 24, true);
        let last = follower(resolver, host, 7, 40, false);
        cases.push(
            case("FR-01", "three pieces in order")
                .inbound(&head(resolver, host, 53, 7), Reason::Row)
                .row("A3")
                .inbound(&middle, Reason::Fragment)
                .inbound(&last, Reason::Fragment)
                .inbound(&last, Reason::Fragment),
        );
        cases.push(
            case("FR-02", "the same to a denied port")
                .inbound(&head(resolver, host, 54, 7), Reason::PortKnown)
                .inbound(&middle, Reason::FragmentUnknown)
                .inbound(&last, Reason::FragmentUnknown),
        );
        cases.push(
            case("FR-02", "the same from a denied peer, followers first")
                .inbound(&follower(stranger, host, 7, 24, true), Reason::FragmentUnknown)
                .inbound(&head(stranger, host, 53, 7), Reason::Source)
                .inbound(&follower(stranger, host, 7, 24, true), Reason::FragmentUnknown),
        );
        cases.push(case("FR-03", "a follower of nothing").both_ways(&middle, Reason::FragmentUnknown));
        cases.push(
            case("FR-04", "the last piece first")
                .inbound(&last, Reason::FragmentUnknown)
                .inbound(&head(resolver, host, 53, 7), Reason::Row)
                .row("A3")
                .inbound(&middle, Reason::Fragment)
                .inbound(&last, Reason::Fragment),
        );
        cases.push(
            case("FR-11", "an identification used again when its time is over")
                .inbound(&head(resolver, host, 53, 7), Reason::Row)
                .row("A3")
                .wait(48)
                .inbound(&last, Reason::Fragment)
                .wait(14)
                .inbound(&last, Reason::FragmentUnknown),
        );
        cases.push(
            case("FR-12", "pieces of one identification between others")
                .inbound(&head(resolver, host, 53, 7), Reason::Row)
                .row("A3")
                .inbound(&follower(stranger, host, 7, 24, true), Reason::FragmentUnknown)
                .inbound(&follower(resolver, host, 8, 24, true), Reason::FragmentUnknown)
                .outbound(&follower(resolver, host, 7, 24, true).mirrored(), Reason::FragmentUnknown)
                .inbound(&follower(resolver, places.elsewhere, 7, 24, true), Reason::NotLocal)
                .inbound(&middle, Reason::Fragment),
        );
        cases.push(
            case("FR-22", "an answer leaves in pieces")
                .outbound(&head(resolver, host, 53, 7).mirrored(), Reason::PeerFlow)
                .outbound(&middle.clone().mirrored(), Reason::Fragment)
                .outbound(&last.clone().mirrored(), Reason::Fragment)
                .inbound(&last, Reason::FragmentUnknown),
        );
        cases.push(
            case("FR-20", "the answer to our question comes in pieces")
                .outbound(&eth().ip(host, database).udp(40_000, 53), Reason::Row)
                .row("E2")
                .connects()
                .enters()
                .inbound(&head(host, database, 53, 7).mirrored(), Reason::OwnFlow)
                .inbound(&follower(database, host, 7, 24, false), Reason::Fragment),
        );
    }
    let places = Places::v4();
    let other = follower(places.resolver, places.host, 7, 24, true).protocol(ICMP);
    cases.push(
        case("FR-12", "in IPv4 the protocol belongs to the identification")
            .inbound(&head(places.resolver, places.host, 53, 7), Reason::Row)
            .row("A3")
            .inbound(&other, Reason::FragmentUnknown),
    );
    let places = Places::v6();
    let other = follower(places.resolver, places.host, 7, 24, true).protocol(TCP);
    cases.push(
        case("FR-18", "in IPv6 a follower's next header means nothing")
            .inbound(&head(places.resolver, places.host, 53, 7), Reason::Row)
            .row("A3")
            .inbound(&other, Reason::Fragment),
    );
    run("followers_share_the_fate_of_the_first_piece", &cases);
}

#[test]
fn pieces_that_no_honest_sender_makes_are_refused() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let Places { host, resolver, stranger, .. } = places;
        let syn = eth().ip(stranger, host).tcp(40_000, 443).payload(&[0; 32]).quoted();
        let syn = &syn[if places.is_v6() { 40 } else { 20 }..];
        let first = |length: usize| {
            eth().ip(stranger, host).fragment(9, 0, true).protocol(TCP).payload(&syn[..length])
        };
        for length in [0, 1, 7, 8, 12, 16, 19] {
            let says = format!("a first piece with {length} bytes of TCP");
            cases.push(case("FR-05", says).both_ways(&first(length), Reason::Fragmented));
        }
        let whole = case("FR-05", "a first piece with all of TCP").inbound(&first(24), Reason::Row);
        cases.push(whole.row("A2").connects());
        let rewriting = eth().ip(stranger, host).fragment(9, 8, false).protocol(TCP).payload(&syn[8..24]);
        cases.push(
            case("FR-05", "a second piece that would rewrite the TCP flags")
                .inbound(&first(24), Reason::Row)
                .row("A2")
                .connects()
                .inbound(&rewriting, Reason::Fragmented),
        );
        for (length, says) in [(0, "no"), (1, "one"), (7, "seven")] {
            let piece =
                eth().ip(resolver, host).fragment(9, 0, true).protocol(UDP).payload(&[0; 7][..length]);
            let says = format!("a first piece with {says} bytes of UDP");
            cases.push(case("FR-05", says).both_ways(&piece, Reason::Fragmented));
        }
        for extra in 1..8 {
            let base = eth().ip(resolver, host).fragment(9, 0, true).udp(40_000, 53);
            let piece = base.payload(&[0; 24][..16 + extra]);
            let says = format!("a first piece of {extra} bytes too many");
            cases.push(case("FR-09", says).both_ways(&piece, Reason::Fragmented));
            let piece = follower(resolver, host, 9, 24, true).payload(&[0; 24][..16 + extra]);
            let says = format!("a middle piece of {extra} bytes too many");
            cases.push(case("FR-09", says).both_ways(&piece, Reason::Fragmented));
        }
        let empty = follower(resolver, host, 9, 24, true).payload(&[]);
        cases.push(case("FR-09", "an empty middle piece").both_ways(&empty, Reason::Fragmented));
        let beyond = follower(resolver, host, 9, 65_528, false);
        cases.push(case("FR-10", "a piece beyond 65,535 bytes").both_ways(&beyond, Reason::Fragmented));
        let brim = follower(resolver, host, 9, 65_528, false).payload(&[0; 7]);
        cases.push(case("FR-10", "a piece that just fits").both_ways(&brim, Reason::FragmentUnknown));
        let over = follower(resolver, host, 9, 65_528, false).payload(&[0; 8]);
        cases.push(case("FR-10", "a piece of one byte too many").both_ways(&over, Reason::Fragmented));
    }
    run("pieces_that_no_honest_sender_makes_are_refused", &cases);
}

#[test]
fn an_ipv6_fragment_header_is_walked_like_any_other_once() {
    let Places { host, resolver, stranger, .. } = Places::v6();
    let from = |source| eth().ip(source, host);
    let atomic = from(resolver).fragment(7, 0, false).udp(40_000, 53);
    let cases = [
        case("FR-15", "an atomic fragment is a packet").inbound(&atomic, Reason::Row).row("A3"),
        case("FR-15", "a denied one too")
            .inbound(&from(stranger).fragment(7, 0, false).udp(40_000, 53), Reason::Source),
        case("FR-15", "one that opens nothing for followers")
            .inbound(&atomic, Reason::Row)
            .row("A3")
            .inbound(&follower(resolver, host, 7, 24, false), Reason::FragmentUnknown),
        case("FR-15", "one with the identification of a train, which still completes")
            .inbound(&head(resolver, host, 53, 7), Reason::Row)
            .row("A3")
            .inbound(&atomic, Reason::Row)
            .row("A3")
            .inbound(&follower(resolver, host, 7, 24, false), Reason::Fragment),
        case("FR-16", "a first piece that ends between two headers").both_ways(
            &from(resolver).fragment(7, 0, true).ext_header(extension::DESTINATION, &[1, 4]).protocol(UDP),
            Reason::Fragmented,
        ),
        case("FR-16", "a first piece that ends in a header").both_ways(
            &from(resolver)
                .fragment(7, 0, true)
                .ext_header(extension::DESTINATION, &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                .announcing(16),
            Reason::Fragmented,
        ),
        case("FR-16", "a first piece that ends where its next header begins").both_ways(
            &from(resolver)
                .fragment(7, 0, true)
                .ext_header(extension::DESTINATION, &[1, 4])
                .ext_header(extension::DESTINATION, &[1, 4])
                .announcing(16),
            Reason::Fragmented,
        ),
        case("FR-16", "a first piece that holds the whole chain")
            .inbound(
                &from(resolver)
                    .fragment(7, 0, true)
                    .ext_header(extension::DESTINATION, &[1, 4])
                    .udp(40_000, 53)
                    .payload(&[0; 8]),
                Reason::Row,
            )
            .row("A3"),
        case("FR-19", "two fragment headers").both_ways(
            &from(resolver).fragment(7, 0, true).fragment(8, 0, true).udp(40_000, 53),
            Reason::Fragmented,
        ),
        case("FR-19", "an atomic one before a real one").both_ways(
            &from(resolver).fragment(7, 0, false).fragment(8, 24, true).udp(40_000, 53),
            Reason::Fragmented,
        ),
        case("FR-19", "two atomic ones").both_ways(
            &from(resolver).fragment(7, 0, false).fragment(7, 0, false).udp(40_000, 53),
            Reason::Fragmented,
        ),
    ];
    run("an_ipv6_fragment_header_is_walked_like_any_other_once", &cases);
}

#[test]
fn the_last_piece_of_an_allowed_ping_needs_no_header() {
    let ping_v4 = reference::row("ping", Direction::Inbound, &["10.9.0.0/24"], ICMP, PortRange::ANY);
    let ping_v6 = reference::row("ping6", Direction::Inbound, &["fd00:9::/64"], ICMPV6, PortRange::ANY);
    let mut policy = reference::policy();
    policy.rows.extend([ping_v4, ping_v6]);
    let mut cases = Vec::new();
    for places in Places::both() {
        let (kind, number, row) = if places.is_v6() { (128, ICMPV6, "ping6") } else { (8, ICMP, "ping") };
        let from = |offset, more| eth().ip(places.office, places.host).fragment(5, offset, more);
        let first = from(0, true).icmp(kind, 0).payload(&[0; 8]);
        for length in 1..8 {
            let last = from(16, false).protocol(number).payload(&[0; 7][..length]);
            cases.push(
                case("FR-21", format!("{length} bytes"))
                    .inbound(&first, Reason::Row)
                    .row(row)
                    .inbound(&last, Reason::Fragment),
            );
        }
    }
    run_under("the_last_piece_of_an_allowed_ping_needs_no_header", policy, &cases);
}

/// A first fragment that passed would admit later fragments without any rate limit: a stranger could fill the
/// host's reassembly memory with them.
#[test]
fn fl_19_icmp_without_a_row_never_comes_in_fragments() {
    let mut cases = Vec::new();
    let mut first_and_rest = |says: &str, whole: &Packet, reason: Reason, before: Option<&Packet>| {
        let pieces = whole.cut(7, &[48, 96]);
        let mut case = case("FL-19", says);
        if let Some(before) = before {
            case = case.outbound(before, Reason::Row).row("E1").connects().enters();
        }
        cases.push(
            case.inbound(&pieces[0], reason)
                .inbound(&pieces[1], Reason::FragmentUnknown)
                .inbound(&pieces[2], Reason::FragmentUnknown),
        );
    };
    for places in Places::both() {
        let Places { host, stranger, office, database, .. } = places;
        let v6 = places.is_v6();
        for from in [stranger, office] {
            let ping = eth().ip(from, host).icmp(if v6 { 128 } else { 8 }, 0).payload(&[7; 128]);
            first_and_rest("an echo request that no row allows", &ping, Reason::IcmpType, None);
        }
        let ask = eth().ip(host, database).tcp(40_000, 5_432).payload(&[7; 128]);
        for (kind, code) in if v6 { [(1, 4), (2, 0), (3, 0)] } else { [(3, 1), (3, 4), (11, 0)] } {
            let error = eth().ip(stranger, host).icmp(kind, code).rest(1_400).payload(&ask.quoted());
            first_and_rest("an error about a live flow", &error, Reason::Fragmented, Some(&ask));
        }
    }
    run("fl_19_icmp_without_a_row_never_comes_in_fragments", &cases);
}
