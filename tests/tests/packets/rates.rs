//! Rate limits of inbound packets. The kernel's clock continues during a test, so that a burst may meet two
//! ticks. The host's code, whose clock stands still, shows the exact limit.

use std::net::IpAddr;

use pomguard::policy::{Direction, Policy, Rates};
use pomguard_common::reason::Reason;
use pomguard_tests::{
    harness::Subject,
    packet::{Packet, eth, ether, flag::ACK},
    reference::{self, Places},
};

use crate::case::everywhere;

/// The packets that a tick allows under [`tight`].
const BUDGET: usize = 2;
/// Packets of a burst.
const BURST: usize = 20;

/// Returns the reference policy with a rate for one class, and rates for the others that no test reaches.
fn tight(change: impl FnOnce(&mut Rates)) -> Policy {
    let mut policy = reference::policy();
    change(&mut policy.packets.rates);
    policy
}

/// A rate that allows [`BUDGET`] packets in a tick, whatever the kernel's clock.
const RATE: u32 = 10;

/// Returns how many of a burst pass under `reason`. The others must be counted as over the rate.
fn passed(subject: &mut dyn Subject, packet: &Packet, reason: Reason) -> usize {
    let frame = packet.build();
    let reasons = (0..BURST).map(|_| subject.reason(Direction::Inbound, &frame).expect("the frame runs"));
    let (passed, limited): (Vec<_>, Vec<_>) = reasons.partition(|&it| it == (reason, false));
    assert!(limited.iter().all(|&it| it == (Reason::RateLimited, false)), "{packet:?}: {limited:?}");
    passed.len()
}

/// Checks that a burst exceeds the budget, and again after some time. `place` is the argument of
/// [`everywhere`].
fn meets_its_end(subject: &mut dyn Subject, place: &str, packet: &Packet, reason: Reason) {
    for _ in 0..2 {
        let passed = passed(subject, packet, reason);
        if place.contains("host") {
            assert_eq!(passed, BUDGET, "{packet:?}");
        } else {
            assert!((BUDGET..BURST).contains(&passed), "{passed} {place}: {packet:?}");
        }
        subject.wait(1).expect("time goes by");
    }
}

fn meets_no_end(subject: &mut dyn Subject, packet: &Packet, reason: Reason) {
    assert_eq!(passed(subject, packet, reason), BURST, "{packet:?}");
}

fn arp() -> Packet {
    eth().to([0xff; 6]).ether_type(ether::ARP).payload(&[0; 28])
}

fn solicitation() -> Packet {
    let link = |text: &str| text.parse::<IpAddr>().expect("an address");
    eth().ip(link("fe80::1"), link("ff02::1:ff00:2")).hops(255).icmp(135, 0).payload(&[0; 16])
}

fn ping() -> Packet {
    let places = Places::v6();
    eth().ip(places.stranger, places.host).icmp(128, 0)
}

/// Returns a packet that opens a flow, and an ICMP error about that flow.
fn complaint(places: &Places, kind: u8, code: u8, rest: u32) -> (Packet, Packet) {
    let ask = eth().ip(places.host, places.database).tcp(40_000, 5_432);
    let error = eth().ip(places.stranger, places.host).icmp(kind, code).rest(rest).payload(&ask.quoted());
    (ask, error)
}

/// Returns the error that reports the path MTU, and another one.
fn complaints(places: &Places) -> [(Packet, Packet); 2] {
    if places.is_v6() {
        [complaint(places, 2, 0, 1_400), complaint(places, 1, 4, 0)]
    } else {
        [complaint(places, 3, 4, 1_400), complaint(places, 3, 1, 0)]
    }
}

#[test]
fn neighbours_meet_the_end_of_their_rate_and_nothing_else_does() {
    let what = "neighbours_meet_the_end_of_their_rate_and_nothing_else_does";
    everywhere(what, tight(|rates| rates.neighbours = RATE), |subject, place| {
        // L2-03
        for packet in [arp(), arp().vlan(0)] {
            meets_its_end(subject, place, &packet, Reason::Arp);
        }
        for packet in [solicitation(), solicitation().vlan(0)] {
            meets_its_end(subject, place, &packet, Reason::Neighbour);
        }
        meets_no_end(subject, &ping(), Reason::EchoV6);
        for places in Places::both() {
            let call = eth().ip(places.stranger, places.host).tcp(40_000, 443).flags(ACK);
            meets_no_end(subject, &call, Reason::Row);
        }
    });
}

#[test]
fn echo_requests_that_no_row_names_meet_the_end_of_their_rate() {
    let what = "echo_requests_that_no_row_names_meet_the_end_of_their_rate";
    everywhere(what, tight(|rates| rates.echo_v6 = RATE), |subject, place| {
        // IC-16
        meets_its_end(subject, place, &ping(), Reason::EchoV6);
        meets_no_end(subject, &arp(), Reason::Arp);
        meets_no_end(subject, &solicitation(), Reason::Neighbour);
    });
    let mut policy = tight(|rates| rates.echo_v6 = RATE);
    let ports = pomguard::policy::PortRange { first: 58, last: 58 };
    policy.rows.push(reference::row("ping", Direction::Inbound, &["::/0"], 58, ports));
    everywhere(what, policy, |subject, _| meets_no_end(subject, &ping(), Reason::Row));
}

#[test]
fn icmp_errors_meet_their_rate_and_mtu_errors_their_own() {
    let what = "icmp_errors_meet_their_rate_and_mtu_errors_their_own";
    let only_errors = tight(|rates| rates.icmp_errors = RATE);
    let only_mtu = tight(|rates| rates.path_mtu = RATE);
    // IC-08, IC-22
    for (policy, mtu_is_tight) in [(only_errors, false), (only_mtu, true)] {
        everywhere(what, policy, |subject, place| {
            for places in Places::both() {
                let [(ask, mtu), (_, other)] = complaints(&places);
                let opened = subject.reason(Direction::Outbound, &ask.build()).expect("the frame runs");
                assert_eq!(opened, (Reason::Row, false));
                let (tight, free) = if mtu_is_tight { (&mtu, &other) } else { (&other, &mtu) };
                meets_its_end(subject, place, tight, Reason::IcmpRelated);
                meets_no_end(subject, free, Reason::IcmpRelated);
                // The flow that they are about continues.
                let answer = ask.clone().mirrored().flags(ACK);
                meets_no_end(subject, &answer, Reason::OwnFlow);
            }
        });
    }
}

#[test]
fn outbound_meets_no_rate_and_audit_passes_the_excess() {
    let what = "outbound_meets_no_rate_and_audit_passes_the_excess";
    let mut policy = tight(|rates| rates.neighbours = RATE);
    everywhere(what, policy.clone(), |subject, _| {
        let frame = arp().build();
        for _ in 0..BURST {
            let found = subject.reason(Direction::Outbound, &frame).expect("the frame runs");
            assert_eq!(found, (Reason::Arp, false));
        }
    });
    policy.inbound = pomguard::policy::Mode::Audit;
    everywhere(what, policy, |subject, _| {
        let frame = arp().build();
        let found: Vec<_> =
            (0..BURST).map(|_| subject.reason(Direction::Inbound, &frame).expect("the frame runs")).collect();
        assert!(found.contains(&(Reason::RateLimited, true)), "{found:?}");
        assert!(found.iter().all(|it| [(Reason::RateLimited, true), (Reason::Arp, false)].contains(it)));
    });
}
