//! UDP: queries, answers, and the time for which they belong together.

use pomguard::policy::PortRange;
use pomguard_common::reason::Reason;
use pomguard_tests::{
    packet::{Packet, Part, eth},
    reference::{self, Places},
};

use crate::case::{Case, case, run, run_under};

/// Returns a query of this host to a name server.
fn query(places: &Places) -> Packet {
    eth().ip(places.host, places.database).udp(40_000, 53)
}

fn asked(id: &'static str, says: &str, places: &Places) -> Case {
    case(id, says).outbound(&query(places), Reason::Row).row("E2").connects().enters()
}

#[test]
fn an_answer_comes_from_where_the_question_went() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let answer = query(&places).mirrored();
        let other = eth().ip(places.stranger, places.host).udp(53, 40_000);
        let port = eth().ip(places.database, places.host).udp(54, 40_000);
        let ours = eth().ip(places.database, places.host).udp(53, 40_001);
        cases.push(
            asked("UD-01", "a query and its answer", &places)
                .inbound(&answer, Reason::OwnFlow)
                .inbound(&other, Reason::Port)
                .inbound(&port, Reason::PortKnown)
                .inbound(&ours, Reason::PortKnown),
        );
        for source in [53, 123, 443] {
            let packet = eth().ip(places.stranger, places.host).udp(source, 50_000);
            let says = format!("unasked from port {source}");
            cases.push(case("UD-02", says).inbound(&packet, Reason::Port));
        }
        let first = |says, wait| asked("UD-03", says, &places).wait(wait);
        cases.push(first("the first answer after 20 s", 20).inbound(&answer, Reason::OwnFlow));
        cases.push(first("the first answer after 33 s", 33).inbound(&answer, Reason::PortKnown));
        let answered = |id, says: &str| asked(id, says, &places).inbound(&answer, Reason::OwnFlow);
        cases.push(answered("UD-03", "more after 119 s").wait(119).inbound(&answer, Reason::OwnFlow));
        let late = answered("UD-03", "more after the age").wait(288).inbound(&answer, Reason::OwnFlow);
        cases.push(late.wait(14).inbound(&answer, Reason::PortKnown));
        let repeated = answered("UD-03", "asked again, it stays answered").wait(200);
        let repeated = repeated.outbound(&query(&places), Reason::OwnFlow).row("E2");
        cases.push(repeated.wait(288).inbound(&answer, Reason::OwnFlow));
        let mut long = answered("UD-04", "what comes in keeps nothing alive");
        for _ in 0..4 {
            long = long.wait(70).inbound(&answer, Reason::OwnFlow);
        }
        cases.push(long.wait(25).inbound(&answer, Reason::PortKnown));
        let mut long = answered("UD-04", "what leaves does, for an hour");
        for _ in 0..15 {
            long = long.wait(240).outbound(&query(&places), Reason::OwnFlow).row("E2");
        }
        cases.push(long.inbound(&answer, Reason::OwnFlow));
        let denied = eth().ip(places.host, places.stranger).udp(40_000, 123);
        cases.push(
            case("UD-01", "a question that no row lists")
                .outbound(&denied, Reason::Destination)
                .inbound(&denied.mirrored(), Reason::Port),
        );
    }
    run("an_answer_comes_from_where_the_question_went", &cases);
}

#[test]
fn lengths_and_ports_that_cannot_be_are_refused() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let allowed = eth().ip(places.resolver, places.host).udp(40_000, 53).payload(&[0; 4]);
        for length in [0_u16, 1, 7, 13, 65_535] {
            let packet = allowed.clone().poke(Part::Upper, 4, &length.to_be_bytes());
            let says = format!("length {length} where 12 bytes are");
            cases.push(case("UD-05", says).both_ways(&packet, Reason::Malformed));
        }
        let less = allowed.clone().poke(Part::Upper, 4, &[0, 8]);
        cases.push(case("UD-05", "less than is there").inbound(&less, Reason::Row).row("A3"));
        for (source, port) in [(0, 53), (40_000, 0), (0, 0)] {
            let packet = eth().ip(places.resolver, places.host).udp(source, port);
            cases.push(
                case("UD-09", format!("UDP from {source} to {port}")).both_ways(&packet, Reason::PortZero),
            );
            let packet = eth().ip(places.stranger, places.host).tcp(source, port);
            cases.push(
                case("UD-09", format!("TCP from {source} to {port}")).both_ways(&packet, Reason::PortZero),
            );
        }
        let unsummed = allowed.poke(Part::Upper, 6, &[0, 0]);
        cases.push(case("UD-12", "no checksum").inbound(&unsummed, Reason::Row).row("A3"));
    }
    run("lengths_and_ports_that_cannot_be_are_refused", &cases);
}

#[test]
fn a_group_is_not_this_host() {
    let mut cases = Vec::new();
    let groups = ["224.0.0.5", "239.255.255.250", "255.255.255.255", "ff02::1", "ff0e::5"];
    for group in groups {
        let group: std::net::IpAddr = group.parse().expect("an address");
        let places = if group.is_ipv6() { Places::v6() } else { Places::v4() };
        for station in [[0xff; 6], [2, 0, 0, 0, 0, 2]] {
            let packet = eth().to(station).ip(places.resolver, group).udp(40_000, 53);
            cases.push(case("UD-07", format!("to {group}")).inbound(&packet, Reason::Broadcast));
            let packet = eth().to(station).ip(places.stranger, group).tcp(40_000, 443);
            cases.push(case("UD-07", format!("TCP to {group}")).inbound(&packet, Reason::Broadcast));
        }
    }
    let v4 = Places::v4();
    let subnet = eth().to([0xff; 6]).ip(v4.resolver, "10.9.0.255".parse().expect("an address"));
    cases.push(case("UD-07", "to the subnet").inbound(&subnet.udp(40_000, 53), Reason::NotLocal));
    run("a_group_is_not_this_host", &cases);
}

/// UD-04. A frame without payload is too short for the fast path.
#[test]
fn udp_payload_keeps_a_flow_alive_only_outbound() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let ask = query(&places).payload(&[7; 20]);
        let answer = ask.clone().mirrored();
        let asked = |says: &str| {
            let asked = case("UD-04", says).outbound(&ask, Reason::Row).row("E2").connects().enters();
            asked.inbound(&answer, Reason::OwnFlow)
        };
        let mut silent = asked("what comes in keeps nothing alive");
        for _ in 0..4 {
            silent = silent.wait(70).inbound(&answer, Reason::OwnFlow);
        }
        cases.push(silent.wait(25).inbound(&answer, Reason::PortKnown));
        // On the host every second plain packet takes the fast path alone: in one of the two cases the last
        // packet does.
        for again in [1, 2] {
            let mut long = asked("what leaves does, for as long as UDP is remembered").wait(200);
            for _ in 0..again {
                long = long.outbound(&ask, Reason::OwnFlow).row("E2");
            }
            cases.push(long.wait(303).inbound(&answer, Reason::PortKnown));
        }
    }
    run("udp_payload_keeps_a_flow_alive_only_outbound", &cases);
}

#[test]
fn client_port_outside_its_range_has_its_own_reason() {
    let mut policy = reference::policy();
    for row in &mut policy.rows {
        row.client_ports = PortRange { first: 1_024, last: 50_000 };
    }
    let mut cases = Vec::new();
    for places in Places::both() {
        for (port, inside) in
            [(1, false), (1_023, false), (1_024, true), (50_000, true), (50_001, false), (65_535, false)]
        {
            let packet = eth().ip(places.resolver, places.host).udp(port, 53);
            let says = format!("from port {port}");
            cases.push(if inside {
                case("UD-10", says).inbound(&packet, Reason::Row).row("A3")
            } else {
                case("UD-10", says)
                    .inbound(&packet, Reason::ClientPort)
                    .outbound(&packet.clone().mirrored(), Reason::Destination)
            });
            let query = eth().ip(places.host, places.database).udp(port, 53);
            let says = format!("our query from port {port}");
            cases.push(if inside {
                case("UD-10", says).outbound(&query, Reason::Row).row("E2").connects().enters()
            } else {
                case("UD-10", says).outbound(&query, Reason::Destination)
            });
        }
    }
    run_under("client_port_outside_its_range_has_its_own_reason", policy, &cases);
}
