//! The whole receive path: the cost of a packet to the receiving processor, from the driver up to TCP, for
//! each filter.
//!
//! Every host under test is a network namespace at the other end of a veth. One kernel thread on a processor
//! of its own does the receive work (threaded NAPI); its run time is the measure. The frames are made in the
//! kernel on another processor, and the sender sends more than any host can take.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
};
use pomguard_record as record;
use pomguard_workspace as workspace;

use super::{
    Setting,
    figures::{LiveFigure, Spread},
    filter::Filter,
    guard::{Guard, Order},
    host::{Host, Receipt},
    mix::{Due, Mix},
    policy::{Family, Policy, Scope},
    random::Random,
    sender::Sender,
    traffic::{Endpoints, segment},
};

/// The measured policies.
const PLANS: &[(Family, Scope)] = &[
    (Family::V4, Scope::Pom),
    (Family::V4, Scope::Random(10)),
    (Family::V4, Scope::Random(100)),
    (Family::V4, Scope::Random(1_000)),
    (Family::V4, Scope::Random(10_000)),
    (Family::V4, Scope::Random(100_000)),
    (Family::V6, Scope::Random(10_000)),
];
/// The policies of a quick run.
const QUICK: &[(Family, Scope)] = &[(Family::V4, Scope::Random(10)), (Family::V4, Scope::Random(10_000))];
/// The number of rounds per mix. A round is a burst per filter.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 3;
/// A round counts only if the host without a filter took at most this multiple of its least time, both before
/// and after the round.
const STEADY: f64 = 1.15;

/// The hosts by their filters.
type Hosts = BTreeMap<Filter, Host>;

/// Measures all filters with all policies.
pub(super) fn run(setting: &Setting) -> Result<Vec<LiveFigure>> {
    let (plans, rounds) = if setting.quick { (QUICK, QUICK_ROUNDS) } else { (PLANS, ROUNDS) };
    let mut sender = Sender::new(&workspace::root().join(record::BENCH_OBJECT))?;
    let mut guarded = Vec::new();
    for (filter, attach) in [(Filter::Pomguard, "native"), (Filter::PomguardGeneric, "generic")] {
        setting.say(&format!("the receive path: starting {}", filter.name()));
        let host = Host::new(&mut sender, filter.name())?;
        let site = Policy::random(Family::V4, 0)?.site_file()?;
        let order = Order { name: attach, site: &site, inbound: "enforce", attach };
        let guard = Guard::on(setting, &host.namespace, &host.interface, &order)?;
        guarded.push((filter, host, guard));
    }
    let mut figures = Vec::new();
    for &(family, scope) in plans {
        let policy = Policy::of(setting, family, scope)?;
        let (tuples, pom) = (policy.size(), scope == Scope::Pom);
        setting.say(&format!("the receive path: {}, {tuples} tuples{}", family.name(), scope.says()));
        for (_, _, guard) in &mut guarded {
            guard.replace(&policy.site_file()?)?;
        }
        let mut others = Hosts::new();
        for filter in Filter::PEERS.into_iter().filter(|filter| filter.holds(&policy)) {
            let host = Host::new(&mut sender, filter.name())?;
            filter.enforce(&mut sender, &host.namespace, &host.interface, &policy).context(filter.name())?;
            others.insert(filter, host);
        }
        let mut hosts: Vec<(Filter, &Host)> = others.iter().map(|(&filter, host)| (filter, host)).collect();
        hosts.extend(guarded.iter().map(|(filter, host, _)| (*filter, host)));
        let mut random = Random(tuples as u64);
        for mix in Mix::ALL {
            let flows = mix.flows(&policy, &mut random)?;
            sender.fill(&mix.headers(family, &flows))?;
            for (filter, cost) in measure(&mut sender, &hosts, mix, &flows, rounds)? {
                let (mix, filter) = (mix.name().to_owned(), filter.name().to_owned());
                figures.push(LiveFigure { family, tuples, pom, mix, filter, cost });
            }
        }
        for (_, _, guard) in &mut guarded {
            guard.check_alive()?;
        }
    }
    Ok(figures)
}

/// Sends bursts to each host in turn, and returns their costs.
///
/// A virtual machine's processor may run at two thirds of its speed for a while, and then at full speed
/// again. So every round begins and ends with the host without a filter. Rounds in which that host was slow
/// are measured again, up to twice as many rounds in all.
fn measure(
    sender: &mut Sender,
    hosts: &[(Filter, &Host)],
    mix: Mix,
    flows: &[Endpoints],
    wanted: usize,
) -> Result<Vec<(Filter, Spread)>> {
    let reference = hosts.iter().filter(|(filter, _)| *filter == Filter::Nothing);
    let mut rounds: Vec<Round> = Vec::new();
    // The first round only warms the caches and makes conntrack learn the connections.
    for turn in 0..=2 * wanted {
        let mut costs = Vec::new();
        for &(filter, host) in hosts.iter().chain(reference.clone()) {
            let before = host.idle()?;
            sender.burst(host.link)?;
            let receipt = host.idle()?.since(&before);
            let due = if filter == Filter::Nothing { Due::Passes } else { mix.due() };
            judge(due, receipt).with_context(|| format!("{}, {}", filter.name(), mix.name()))?;
            costs.push((filter, receipt.cost()));
            if turn == 0 && mix.is_established() && filter == Filter::NftStateful {
                answer(host, flows)?;
            }
        }
        if turn > 0 {
            rounds.push(Round { costs });
        }
        if steady(&rounds).count() >= wanted {
            break;
        }
    }
    let mut costs: BTreeMap<Filter, Vec<f64>> = BTreeMap::new();
    for (filter, cost) in steady(&rounds).flat_map(|round| &round.costs) {
        costs.entry(*filter).or_default().push(*cost);
    }
    Ok(costs.into_iter().filter_map(|(filter, costs)| Some((filter, Spread::of(costs)?))).collect())
}

/// One burst for each host, and a second one for the host without a filter.
struct Round {
    costs: Vec<(Filter, f64)>,
}

impl Round {
    /// Returns the longer of the two times of the host without a filter.
    fn reference(&self) -> f64 {
        let own = self.costs.iter().filter(|(filter, _)| *filter == Filter::Nothing);
        own.map(|(_, cost)| *cost).fold(0.0, f64::max)
    }
}

/// Returns the rounds in which the processor ran at the speed of the fastest of them.
fn steady(rounds: &[Round]) -> impl Iterator<Item = &Round> {
    let least = rounds.iter().map(Round::reference).fold(f64::INFINITY, f64::min);
    rounds.iter().filter(move |round| round.reference() <= STEADY * least)
}

/// Fails if a filter did not pass or drop the packets as the mix requires. A few packets of the kernel's own
/// (router solicitations, for example) are tolerated.
fn judge(due: Due, receipt: Receipt) -> Result<()> {
    let share = |percent: u64| receipt.packets * percent / 100;
    let right = match due {
        Due::Passes => receipt.delivered >= share(98),
        Due::Drops => receipt.delivered <= share(2),
        Due::Tenth => (share(7)..=share(13)).contains(&receipt.delivered),
    };
    if receipt.packets == 0 || !right {
        bail!("{} of {} packets were delivered, and that is wrong", receipt.delivered, receipt.packets);
    }
    Ok(())
}

/// Makes the host answer on each connection, so that connection tracking has seen both sides.
fn answer(host: &Host, flows: &[Endpoints]) -> Result<()> {
    host.namespace.run(|| -> Result<()> {
        let [v4, v6] = [AddressFamily::Inet, AddressFamily::Inet6]
            .map(|family| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw));
        let (v4, v6) = (v4?, v6?);
        for ends in flows {
            let header = ends.answers(segment::ACK);
            match ends.client {
                SocketAddr::V4(client) => {
                    let to = SockaddrIn::from(SocketAddrV4::new(*client.ip(), 0));
                    sendto(v4.as_raw_fd(), &header[..40], &to, MsgFlags::empty())?;
                }
                SocketAddr::V6(client) => {
                    let to = SockaddrIn6::from(SocketAddrV6::new(*client.ip(), 0, 0, 0));
                    sendto(v6.as_raw_fd(), &header[..60], &to, MsgFlags::empty())?;
                }
            }
        }
        Ok(())
    })?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rounds_of_a_slow_processor_do_not_count() {
        let round = |first, last| Round {
            costs: vec![(Filter::Nothing, first), (Filter::Pomguard, 1.0), (Filter::Nothing, last)],
        };
        let rounds = [round(600.0, 610.0), round(610.0, 960.0), round(950.0, 960.0), round(620.0, 600.0)];
        let kept: Vec<String> = steady(&rounds).map(|round| round.reference().to_string()).collect();
        assert_eq!(kept, ["610", "620"]);
    }

    #[test]
    fn a_filter_that_does_something_else_is_not_measured() {
        let receipt = |packets, delivered| Receipt { packets, delivered, time: Duration::ZERO };
        assert!(judge(Due::Passes, receipt(1_000, 1_000)).is_ok());
        assert!(judge(Due::Passes, receipt(1_000, 900)).is_err());
        assert!(judge(Due::Drops, receipt(1_000, 3)).is_ok());
        assert!(judge(Due::Drops, receipt(1_000, 100)).is_err());
        assert!(judge(Due::Tenth, receipt(1_000, 100)).is_ok());
        assert!(judge(Due::Tenth, receipt(1_000, 0)).is_err());
        assert!(judge(Due::Passes, receipt(0, 0)).is_err());
    }
}
