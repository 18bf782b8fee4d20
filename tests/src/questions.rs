//! Random questions for `explain`, each answered from the policy and by the datapath.

use anyhow::{Context as _, Result, ensure};
use pomguard::{
    kernel::frame,
    model,
    policy::{
        Direction, Policy, RowId,
        oracle::Opening,
        precedence::{self, Alongside, Ruling},
    },
};
use pomguard_common::{
    decide::NO_ROW,
    protocol::{ICMP, ICMPV6, IGMP, TCP, UDP, VRRP},
};

use crate::{
    differential::Reasons,
    force::InForce,
    harness::{Bench, Subject as _},
    host_datapath::HostDatapath,
    operator_state::{self, OperatorState, Suspension},
    random::{self, Random},
};

/// Questions about one policy.
const PER_POLICY: usize = 100;
/// Leases of both families, and ports close to these.
const LEASES: [(u16, u16); 6] = [(67, 68), (68, 67), (547, 546), (546, 547), (68, 68), (67, 67)];

/// Asks `questions` questions and compares the answer of the policy with the datapath on the host and, if
/// there is a bench, in the kernel. Counts the questions by reason.
///
/// # Errors
/// The first disagreement.
pub fn ask(seed: u64, questions: usize, mut bench: Option<&mut Bench>) -> Result<Reasons> {
    let mut reasons = Reasons::new();
    let mut host = HostDatapath::new(crate::reference::policy())?;
    for number in 0..questions.div_ceil(PER_POLICY) {
        let mut random = Random(seed.wrapping_add(number as u64).wrapping_mul(0x9e37_79b9));
        let policy = random::policy(&mut random);
        let held = held(&mut random, &policy);
        host.renew(policy.clone())?;
        host.hold(&held.control_state())?;
        if let Some(bench) = bench.as_deref_mut() {
            bench.renew(policy.clone())?;
            bench.hold(&held.control_state())?;
        }
        let alongside = alongside(&held);
        for _ in 0..PER_POLICY {
            let opening = question(&mut random, &policy);
            let ruling = precedence::judge(&policy, &alongside, &opening);
            let about = || format!("{opening:?}\nthe policy says {ruling:?}\n{held:?}\n{policy:#?}");
            let frame = frame::opening(&opening).context("one family")?;
            let found = host.judge(opening.direction, &frame)?;
            host.forget_ports()?;
            if found.enters {
                host.forget_flows();
            }
            let row = row(host.in_force(), opening.direction, &ruling)?;
            ensure!(
                (found.reason, found.audited, found.row) == (ruling.reason, ruling.audited, row),
                "the host's datapath says {found:?} to {}",
                about()
            );
            if let Some(bench) = bench.as_deref_mut() {
                let found = bench.probe.ask(opening.direction, &frame)?;
                // The bench does not read the tallies of state alongside the policy.
                let same_row = found.row == row || operator_state::is_slot(row);
                ensure!(
                    (found.reason, found.audited, found.passes)
                        == (ruling.reason, ruling.audited, ruling.passes())
                        && same_row,
                    "the kernel says {found:?} to {}",
                    about()
                );
            }
            *reasons.entry(ruling.reason.name()).or_default() += 1;
        }
    }
    Ok(reasons)
}

/// Returns state alongside a policy, without the parts that `explain` never meets: it asks only if there is a
/// policy, and failsafe rows belong to the policy.
fn held(random: &mut Random, policy: &Policy) -> OperatorState {
    if random.once_in(2) {
        let holders = random.once_in(2).then_some(random::LATE);
        return OperatorState { holders, ..OperatorState::default() };
    }
    let mut held = random::held(random, policy);
    held.no_policy = false;
    held.rows.retain(|(row, _)| !row.failsafe);
    held
}

fn alongside(held: &OperatorState) -> Alongside {
    Alongside {
        exceptions: held.rows.iter().map(|(row, _)| row.clone()).collect(),
        suspension: held.suspension.map(|(suspension, _)| match suspension {
            Suspension::Lockdown => model::SuspensionKind::Lockdown,
            Suspension::Bypass => model::SuspensionKind::Bypass,
        }),
        holders_known: held.holders.is_some(),
    }
}

/// Returns the counter slot of the row that a ruling names.
fn row(in_force: &InForce, direction: Direction, ruling: &Ruling) -> Result<u16> {
    let Some(RowId(id)) = &ruling.row else { return Ok(NO_ROW) };
    operator_state::slot(&RowId(id.clone())).map_or_else(|| in_force.slot(id, direction), Ok)
}

/// Returns a question of any kind: about a row or nearly so, an answer, a lease, port 0, protocols with and
/// without ports, own, floating, unlisted and impossible addresses.
fn question(random: &mut Random, policy: &Policy) -> Opening {
    let direction = random.of(&Direction::ALL);
    let v6 = random.once_in(2);
    let (source, destination) = random::addresses(random, direction, v6);
    let mut opening = Opening {
        direction,
        source,
        source_port: 0,
        destination,
        destination_port: 0,
        protocol: random.of(&[TCP, TCP, UDP, UDP, UDP, ICMP, ICMPV6, IGMP, VRRP, 47, 132, 255]),
    };
    let row = policy.rows.get(random.below(2 * policy.rows.len().max(1)));
    let peer = row.and_then(|row| row.peers.get(random.below(row.peers.len().max(1))));
    if let Some((row, peer)) = row.zip(peer)
        && peer.prefix.addr().is_ipv6() == v6
        && let Some(service) = row.services.get(random.below(row.services.len().max(1)))
    {
        let peer = random::inside(random, peer.prefix);
        let answer = random.once_in(4);
        opening.protocol = service.protocol;
        opening.direction = row.direction;
        match row.direction {
            Direction::Inbound => opening.source = peer,
            Direction::Outbound => opening.destination = peer,
        }
        if row.direction != direction {
            match row.direction {
                Direction::Inbound => opening.destination = source,
                Direction::Outbound => opening.source = destination,
            }
        }
        let near = random.of(&[0, 0, 0, 1]);
        opening.destination_port = service.ports.first.saturating_add(near);
        opening.source_port = random.of(&[row.client_ports.first, 1_023, 50_000]);
        if answer {
            opening = reversed(opening);
        }
    } else {
        (opening.source_port, opening.destination_port) = (random::port(random), random::port(random));
        if opening.protocol == UDP && random.once_in(4) {
            (opening.source_port, opening.destination_port) = random.of(&LEASES);
        }
    }
    if !matches!(opening.protocol, TCP | UDP) {
        (opening.source_port, opening.destination_port) = (0, 0);
    }
    opening
}

/// Returns the packet in the other direction, from the destination to the source.
const fn reversed(opening: Opening) -> Opening {
    let Opening { direction, source, source_port, destination, destination_port, protocol } = opening;
    Opening {
        direction: match direction {
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        },
        source: destination,
        source_port: destination_port,
        destination: source,
        destination_port: source_port,
        protocol,
    }
}
