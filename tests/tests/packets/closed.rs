//! The rules that apply while no policy is in force.

use pomguard_common::{
    control::Override,
    protocol::{TCP, UDP},
    reason::Reason,
};
use pomguard_tests::{
    control_state::ControlState,
    packet::{
        eth,
        flag::{ACK, FIN, SYN},
    },
    reference::{self, Places},
};

use crate::{
    case::{case, run_under},
    overrides::{A3, E1, override_rule},
};

fn without_policy(lines: &[Override]) -> ControlState {
    ControlState {
        overrides: lines.iter().map(|line| (*line, 600)).collect(),
        no_policy: true,
        ..ControlState::default()
    }
}

#[test]
fn no_policy_allows_neighbour_discovery_and_no_other_link_use() {
    let [v4, v6] = Places::both();
    let mut cases = Vec::new();
    for kind in 133..=136 {
        let near = eth().ip(v6.stranger, v6.host).icmp(kind, 0).payload(&[0; 16]).hops(255);
        cases.push(
            case("CF-11", format!("neighbour discovery of type {kind}"))
                .holding(without_policy(&[]))
                .both_ways(&near, Reason::Neighbour)
                .both_ways(&near.hops(254), Reason::NoPolicy),
        );
    }
    for kind in [128, 132, 137] {
        let near = eth().ip(v6.stranger, v6.host).icmp(kind, 0).payload(&[0; 16]).hops(255);
        let nothing = case("CF-11", format!("ICMPv6 of type {kind}")).holding(without_policy(&[]));
        cases.push(nothing.both_ways(&near, Reason::NoPolicy));
    }
    let number_only = eth().ip(v4.stranger, v4.host).icmp(135, 0).payload(&[0; 16]).hops(255);
    cases.push(
        case("CF-11", "the same number in IPv4")
            .holding(without_policy(&[]))
            .both_ways(&number_only, Reason::NoPolicy),
    );
    let resolution = eth().ether_type(0x0806).payload(&[0, 1, 8, 0, 6, 4, 0, 1]).pad(&[0; 20]);
    cases.push(
        case("CF-11", "address resolution").holding(without_policy(&[])).both_ways(&resolution, Reason::Arp),
    );
    let discovery = eth().to([1, 0x80, 0xc2, 0, 0, 0x0e]).ether_type(0x88cc).payload(&[0; 46]);
    cases.push(
        case("CF-11", "link control")
            .untagged()
            .holding(without_policy(&[]))
            .both_ways(&discovery, Reason::LinkControl),
    );
    let unknown = eth().ether_type(0x88b5).payload(&[0; 46]);
    cases.push(
        case("CF-11", "what nobody knows").holding(without_policy(&[])).both_ways(&unknown, Reason::NoPolicy),
    );
    run_under("no_policy_allows_neighbour_discovery_and_no_other_link_use", reference::policy(), &cases);
}

#[test]
fn no_policy_holds_failsafe_tuples_for_possible_peers() {
    let mut cases = Vec::new();
    for places in Places::both() {
        let login = eth().ip(places.stranger, places.host).tcp(40_000, 22);
        let held = without_policy(&[override_rule(places.stranger, TCP, 22, A3, 0)]);
        cases.push(
            case("CF-11", "the end of a login opens nothing")
                .holding(held)
                .inbound(&login.clone().flags(FIN | ACK), Reason::Failsafe)
                .row("A3"),
        );
        let ask = eth().ip(places.host, places.stranger).tcp(40_000, 8_080);
        let outward = [
            override_rule(places.stranger, TCP, 8_080, E1, Override::OUTBOUND),
            override_rule(places.stranger, UDP, 123, E1, Override::OUTBOUND),
        ];
        let question = eth().ip(places.host, places.stranger).udp(40_000, 123);
        cases.push(
            case("CF-11", "what this host asks is answered")
                .holding(without_policy(&outward))
                .outbound(&ask, Reason::Failsafe)
                .row("E1")
                .connects()
                .inbound(&ask.clone().mirrored().flags(SYN | ACK), Reason::OwnFlow)
                .inbound(&ask.clone().mirrored(), Reason::NoPolicy)
                .outbound(&question, Reason::Failsafe)
                .row("E1")
                .inbound(&question.clone().mirrored(), Reason::OwnFlow),
        );
        let nobody = if places.is_v6() { "::1" } else { "127.0.0.1" };
        let nobody = nobody.parse().expect("an address");
        cases.push(
            case("SP-03", "a peer that cannot be")
                .holding(without_policy(&[override_rule(nobody, TCP, 22, A3, 0)]))
                .inbound(&eth().ip(nobody, places.host).tcp(40_000, 22), Reason::NoPolicy),
        );
    }
    run_under("no_policy_holds_failsafe_tuples_for_possible_peers", reference::policy(), &cases);
}
