//! ICMP errors: accepted if they quote a packet that this host sends, and never allowed to change anything.

use pomguard::policy::{Mode, Policy};
use pomguard_common::{protocol, reason::Reason};
use pomguard_tests::{
    packet::{
        Packet, Part, eth, extension,
        flag::{ACK, SYN},
    },
    reference::{self, Places},
};

use crate::case::{AGE, Case, case, run};

/// Returns a packet from this host to the database.
fn ours(places: &Places) -> Packet {
    eth().ip(places.host, places.database).tcp(40_000, 5_432)
}

/// Returns type and code of "too big" in the family.
const fn too_big(places: &Places) -> (u8, u8) {
    if places.is_v6() { (2, 0) } else { (3, 4) }
}

/// Returns an ICMP error of a router: `packet` was too big for 1,400 bytes.
fn complaint(places: &Places, packet: &Packet) -> Packet {
    let (kind, code) = too_big(places);
    eth().ip(places.stranger, places.host).icmp(kind, code).rest(1_400).payload(&packet.quoted())
}

fn opened(id: &'static str, says: impl Into<String>, places: &Places) -> Case {
    case(id, says).outbound(&ours(places), Reason::Row).row("E1").connects().enters()
}

#[test]
fn icmp_error_passes_only_about_what_this_host_sent() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let error = complaint(&places, &ours(&places));
        cases.push(opened("IC-01", "a live connection", &places).inbound(&error, Reason::IcmpRelated));
        let served = eth().ip(places.host, places.office).tcp(22, 40_000).flags(SYN | ACK);
        cases.push(
            case("IC-01", "our side of what a row allows")
                .inbound(&complaint(&places, &served), Reason::IcmpRelated),
        );
        let unserved = eth().ip(places.host, places.stranger).tcp(22, 40_000).flags(SYN | ACK);
        cases.push(
            case("IC-02", "our side of what no row allows")
                .inbound(&complaint(&places, &unserved), Reason::IcmpUnrelated),
        );
        cases.push(case("IC-02", "no such flow").inbound(&error, Reason::IcmpUnrelated));
        for other in [
            eth().ip(places.host, places.database).tcp(40_001, 5_432),
            eth().ip(places.host, places.database).tcp(40_000, 5_433),
            eth().ip(places.host, places.stranger).tcp(40_000, 5_432),
            eth().ip(places.host, places.database).udp(40_000, 5_432),
        ] {
            cases.push(
                opened("IC-02", "one that only resembles it", &places)
                    .inbound(&complaint(&places, &other), Reason::IcmpUnrelated),
            );
        }
        cases.push(
            opened("IC-03", "it quotes what the other side sends", &places)
                .inbound(&complaint(&places, &ours(&places).mirrored()), Reason::IcmpUnrelated),
        );
        let neighbour = eth().ip(places.elsewhere, places.database).tcp(40_000, 5_432);
        cases.push(
            opened("IC-03", "it quotes what a neighbour sends", &places)
                .inbound(&complaint(&places, &neighbour), Reason::IcmpUnrelated),
        );
        let query = eth().ip(places.host, places.database).udp(40_000, 53);
        cases.push(
            case("IC-01", "a UDP flow")
                .outbound(&query, Reason::Row)
                .row("E2")
                .connects()
                .enters()
                .inbound(&complaint(&places, &query), Reason::IcmpRelated),
        );
    }
    run("icmp_error_passes_only_about_what_this_host_sent", &cases);
}

#[test]
fn the_quoted_packet_is_read_as_far_as_it_goes() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let header = if places.is_v6() { 40 } else { 20 };
        let quoted = ours(&places).quoted();
        for length in 0..=quoted.len() {
            let error = complaint(&places, &ours(&places)).payload(&quoted[..length]);
            let reason = if length < header + 8 { Reason::IcmpUnrelated } else { Reason::IcmpRelated };
            let says = format!("{length} bytes are quoted");
            cases.push(opened("IC-05", says, &places).inbound(&error, reason));
        }
        let posing =
            complaint(&places, &ours(&places)).payload(&quoted[..header + 7]).pad(&quoted[header + 7..]);
        cases.push(
            opened("IC-05", "the eighth byte lies in the padding", &places)
                .inbound(&posing, Reason::IcmpUnrelated),
        );
        let later = eth().ip(places.host, places.database).fragment(1, 8, false).tcp(40_000, 5_432);
        cases.push(
            opened("IC-05", "a later piece is quoted", &places)
                .inbound(&complaint(&places, &later), Reason::IcmpUnrelated),
        );
        let first = eth().ip(places.host, places.database).fragment(1, 0, true).tcp(40_000, 5_432);
        cases.push(
            opened("IC-04", "a first piece is quoted", &places)
                .inbound(&complaint(&places, &first), Reason::IcmpRelated),
        );
        for (part, at) in [(Part::Network, 10), (Part::Upper, 16)] {
            if part == Part::Network && places.is_v6() {
                continue;
            }
            let wrong = ours(&places).poke(part, at, &[0xde, 0xad]);
            cases.push(
                opened("IC-06", "a wrong checksum inside", &places)
                    .inbound(&complaint(&places, &wrong), Reason::IcmpRelated),
            );
        }
        let version = ours(&places).poke(Part::Network, 0, &[if places.is_v6() { 0x45 } else { 0x65 }]);
        cases.push(
            opened("IC-05", "the other version inside", &places)
                .inbound(&complaint(&places, &version), Reason::IcmpUnrelated),
        );
        for number in [1, 47, 58, 132] {
            let other = ours(&places).protocol(number);
            cases.push(
                opened("IC-05", format!("protocol {number} inside"), &places)
                    .inbound(&complaint(&places, &other), Reason::IcmpUnrelated),
            );
        }
    }
    for places in Places::both() {
        for sort in errors(&places) {
            // RFC 1122 section 3.2.2 and RFC 4443 section 2.4: no error is sent about an error.
            let about = eth().ip(places.host, places.database).icmp(sort.0, sort.1);
            let error = about.payload(&ours(&places).mirrored().quoted());
            let says = format!("an error of type {} and code {} inside", sort.0, sort.1);
            cases.push(
                opened("IC-05", says, &places).inbound(&complaint(&places, &error), Reason::IcmpUnrelated),
            );
        }
    }
    let v4 = Places::v4();
    let optional = eth().ip(v4.host, v4.database).options(&[7, 7, 4, 0, 0, 0, 0]).tcp(40_000, 5_432);
    cases.push(
        opened("IC-04", "options inside", &v4).inbound(&complaint(&v4, &optional), Reason::IcmpRelated),
    );
    let short = ours(&v4).poke(Part::Network, 0, &[0x44]);
    cases.push(
        opened("IC-05", "a header of four words inside", &v4)
            .inbound(&complaint(&v4, &short), Reason::IcmpUnrelated),
    );
    let v6 = Places::v6();
    let chain = eth()
        .ip(v6.host, v6.database)
        .ext_header(extension::DESTINATION, &[0; 30])
        .fragment(1, 0, false)
        .tcp(40_000, 5_432);
    cases.push(
        opened("IC-04", "extension headers inside", &v6)
            .inbound(&complaint(&v6, &chain), Reason::IcmpRelated),
    );
    run("the_quoted_packet_is_read_as_far_as_it_goes", &cases);
}

/// Returns the errors that must arrive, by type and code.
fn errors(places: &Places) -> Vec<(u8, u8)> {
    let v4 = (0..16).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0), (12, 1), (12, 2)]);
    let v6 = (0..8).map(|code| (1, code)).chain([(2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]);
    if places.is_v6() { v6.collect() } else { v4.collect() }
}

#[test]
fn every_icmp_error_arrives_and_changes_no_flow() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let error = |(kind, code): (u8, u8)| {
            eth()
                .ip(places.stranger, places.host)
                .icmp(kind, code)
                .rest(1_400)
                .payload(&ours(&places).quoted())
        };
        let mut all = opened("IC-10", "every type and code", &places);
        for sort in errors(&places) {
            all = all.inbound(&error(sort), Reason::IcmpRelated);
        }
        cases.push(all);
        let answer = ours(&places).mirrored();
        let mut silent = opened("IC-07", "a storm of errors, then silence", &places)
            .inbound(&answer.clone().flags(SYN | ACK), Reason::OwnFlow)
            .wait(AGE - 40);
        for sort in errors(&places) {
            silent = silent.inbound(&error(sort), Reason::IcmpRelated);
        }
        cases.push(
            silent
                .wait(30)
                .inbound(&error(too_big(&places)), Reason::IcmpRelated)
                .wait(20)
                .inbound(&error(too_big(&places)), Reason::IcmpUnrelated)
                .inbound(&answer.flags(ACK), Reason::NoFlowKnown),
        );
    }
    run("every_icmp_error_arrives_and_changes_no_flow", &cases);
}

#[test]
fn a_path_may_be_narrow_but_no_narrower_than_its_family_allows() {
    let mut cases = Vec::new();
    let (v4, v6) = (Places::v4(), Places::v6());
    for mtu in [0, 68, 551, 552, 1_500] {
        let error = complaint(&v4, &ours(&v4)).rest(mtu);
        cases.push(opened("IC-08", format!("{mtu} bytes"), &v4).inbound(&error, Reason::IcmpRelated));
    }
    for (mtu, passes) in
        [(0, false), (68, false), (1_279, false), (1_280, true), (9_000, true), (u32::MAX, true)]
    {
        let error = complaint(&v6, &ours(&v6)).rest(mtu);
        let reason = if passes { Reason::IcmpRelated } else { Reason::IcmpUnrelated };
        cases.push(opened("IC-09", format!("{mtu} bytes"), &v6).inbound(&error, reason));
    }
    run("a_path_may_be_narrow_but_no_narrower_than_its_family_allows", &cases);
}

#[test]
fn icmp_error_about_an_ended_flow_is_dropped() {
    let without = |policy: Policy, id: &str| {
        let mut policy = policy;
        policy.rows.retain(|row| row.id.0 != id);
        policy
    };
    let ended = without(reference::policy(), "E1");
    let tracked = Policy { outbound: Mode::Track, ..ended.clone() };
    let audited = Policy { inbound: Mode::Audit, ..ended.clone() };
    let mut cases = Vec::new();
    for places in Places::both() {
        let (kind, code) = if places.is_v6() { (1, 4) } else { (3, 3) };
        let error = complaint(&places, &ours(&places));
        let own = eth()
            .ip(places.host, places.database)
            .icmp(kind, code)
            .payload(&ours(&places).mirrored().quoted());
        cases.push(
            opened("IC-02", "the row is gone, the entry is not", &places)
                .change(ended.clone())
                .inbound(&error, Reason::IcmpUnrelated)
                .outbound(&own, Reason::IcmpUnrelated)
                .change(reference::policy())
                .inbound(&error, Reason::IcmpRelated)
                .outbound(&own, Reason::IcmpRelated),
        );
        cases.push(
            opened("IC-01", "another row is gone", &places)
                .change(without(reference::policy(), "A1"))
                .inbound(&error, Reason::IcmpRelated)
                .outbound(&own, Reason::IcmpRelated),
        );
        cases.push(
            opened("IC-01", "the row is gone, and outbound tracks", &places)
                .change(tracked.clone())
                .inbound(&error, Reason::IcmpRelated)
                .outbound(&own, Reason::IcmpRelated),
        );
        cases.push(
            opened("IC-02", "the row is gone, and inbound audits", &places)
                .change(audited.clone())
                .inbound(&error, Reason::IcmpUnrelated)
                .audited()
                .outbound(&own, Reason::IcmpUnrelated),
        );
    }
    run("icmp_error_about_an_ended_flow_is_dropped", &cases);
}

#[test]
fn own_icmp_errors_leave_only_to_allowed_askers() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let (kind, code) = if places.is_v6() { (1, 4) } else { (3, 3) };
        let about =
            |peer, packet: &Packet| eth().ip(places.host, peer).icmp(kind, code).payload(&packet.quoted());
        let allowed = eth().ip(places.resolver, places.host).udp(40_000, 53);
        let denied = eth().ip(places.resolver, places.host).udp(40_000, 54);
        let foreign = eth().ip(places.resolver, places.elsewhere).udp(40_000, 53);
        cases.push(
            case("IC-21", "about what a row allows")
                .outbound(&about(places.resolver, &allowed), Reason::IcmpRelated),
        );
        cases.push(
            case("IC-21", "about what no row allows")
                .outbound(&about(places.resolver, &denied), Reason::IcmpUnrelated),
        );
        cases.push(
            case("IC-21", "to somebody who did not ask")
                .outbound(&about(places.stranger, &allowed), Reason::IcmpUnrelated),
        );
        cases.push(
            case("IC-21", "about what somebody else was asked")
                .outbound(&about(places.resolver, &foreign), Reason::IcmpUnrelated),
        );
        cases.push(
            opened("IC-21", "about an answer to our own question", &places)
                .outbound(&about(places.database, &ours(&places).mirrored()), Reason::IcmpRelated),
        );
    }
    let short =
        eth().ip(Places::v4().stranger, Places::v4().host).protocol(protocol::ICMP).payload(&[3, 4, 0, 0]);
    cases.push(case("IC-05", "four bytes of ICMP").both_ways(&short, Reason::Truncated));
    run("own_icmp_errors_leave_only_to_allowed_askers", &cases);
}
