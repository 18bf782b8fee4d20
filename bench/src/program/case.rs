//! One measured case: one kind of packet at one hook.

use anyhow::Result;
use pomguard_common::{Direction, reason::Reason};

use crate::{
    policy::Policy,
    random::Random,
    traffic::{self, Header, segment},
};

/// The number of packets of one kind.
const PACKETS: usize = 65_536;
/// The number of flows that are open at once.
const FLOWS: usize = 100_000;

/// Packets for a hook, in random order.
pub(super) struct Step {
    pub(super) hook: Direction,
    pub(super) headers: Vec<Header>,
}

/// One kind of packet.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) hook: Direction,
    pub(super) headers: Vec<Header>,
    /// The reason under which every packet must be counted.
    pub(super) reason: Reason,
    /// True if the packets are counted as drops that audit lets pass.
    pub(super) audited: bool,
}

/// Returns the packets that open this host's own flows before any case, since an empty flow table flatters, and
/// all cases of a policy.
pub(super) fn all(policy: &Policy, inbound: &str) -> Result<(Vec<Step>, Vec<Case>)> {
    use Direction::{Inbound, Outbound};
    let mut random = Random(42);
    let audited = inbound == "audit";
    let case = |name, hook, headers, reason| Case { name, hook, headers, reason, audited: false };
    let scan = traffic::port_scan(policy, &mut random, PACKETS);
    let strangers = traffic::strangers(policy, &mut random, PACKETS)?;
    let allowed = traffic::allowed(policy, &mut random, PACKETS)?;
    let opened = traffic::opened(policy, &mut random, FLOWS);
    let asks =
        |ends: &[traffic::Endpoints], flags| ends.iter().map(|ends| ends.asks(flags)).collect::<Vec<_>>();
    let answers =
        |ends: &[traffic::Endpoints], flags| ends.iter().map(|ends| ends.answers(flags)).collect::<Vec<_>>();
    // The order of the segments differs from the order of the openings.
    let mut shuffled = opened.clone();
    for at in (1..shuffled.len()).rev() {
        shuffled.swap(at, random.below(at + 1));
    }
    let established = vec![
        Step { hook: Outbound, headers: asks(&opened, segment::SYN) },
        Step { hook: Inbound, headers: answers(&opened, segment::SYN_ACK) },
    ];
    let knocks = traffic::at_open_ports(policy, &mut random, &opened, PACKETS);
    let datagrams = scan.iter().map(traffic::Endpoints::asks_udp).collect();
    let cases = vec![
        Case { audited, ..case("denied: port not listed", Inbound, asks(&scan, segment::SYN), Reason::Port) },
        Case { audited, ..case("denied: port not listed, UDP", Inbound, datagrams, Reason::Port) },
        Case {
            audited,
            ..case("denied: ACK of no flow", Inbound, asks(&scan, segment::ACK), Reason::NoFlow)
        },
        Case {
            audited,
            ..case(
                "denied: ACK of no flow, at ports with flows",
                Inbound,
                asks(&knocks, segment::ACK),
                Reason::NoFlow,
            )
        },
        Case {
            audited,
            ..case("denied: stranger, listed port", Inbound, asks(&strangers, segment::SYN), Reason::Source)
        },
        case("allowed inbound, opening", Inbound, asks(&allowed, segment::SYN), Reason::Row),
        case("allowed inbound, established", Inbound, asks(&allowed, segment::ACK), Reason::Row),
        case("egress, reply to a peer", Outbound, answers(&allowed, segment::ACK), Reason::PeerFlow),
        case("answer to our flow", Inbound, answers(&shuffled, segment::ACK), Reason::OwnFlow),
        case("egress, our flow", Outbound, asks(&shuffled, segment::ACK), Reason::OwnFlow),
    ];
    Ok((established, cases))
}
