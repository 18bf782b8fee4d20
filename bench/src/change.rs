//! Replaces a policy again and again, while packets come in as fast as the host takes them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use pomguard_record as record;
use pomguard_workspace as workspace;

use super::{
    Setting,
    figures::{ChangeFigure, Spread},
    filter::{self, Filter},
    guard::{Guard, Order},
    host::{Host, Receipt},
    mix::Mix,
    policy::{Family, Policy},
    random::Random,
    sender::Sender,
};

/// Sizes of the policies.
const TUPLES: &[usize] = &[10_000, 100_000];
const QUICK_TUPLES: &[usize] = &[10_000];
/// The time for which a policy is replaced under load: once with packets to pass, once with packets to drop.
const UNDER_LOAD: Duration = Duration::from_secs(4);
const QUICK_UNDER_LOAD: Duration = Duration::from_secs(2);
/// Number of changes without load.
const AT_REST: usize = 5;

/// A way to replace a policy.
enum Replacer<'a> {
    Pomguard(Box<Guard>),
    NftStateless(&'a Host),
    NftStateful(&'a Host),
}

impl<'a> Replacer<'a> {
    /// Puts a first policy in force.
    fn start(
        setting: &Setting,
        sender: &mut Sender,
        host: &'a Host,
        filter: Filter,
        policy: &Policy,
    ) -> Result<Self> {
        let (namespace, interface) = (&host.namespace, &host.interface);
        if filter == Filter::Pomguard {
            let (name, site) = (format!("change-{}", policy.tuples.len()), policy.site_file()?);
            let guard = Guard::on(setting, namespace, interface, &Order::enforce(&name, &site))?;
            return Ok(Self::Pomguard(Box::new(guard)));
        }
        filter.enforce(sender, namespace, interface, policy)?;
        Ok(if filter == Filter::NftStateless { Self::NftStateless(host) } else { Self::NftStateful(host) })
    }

    /// Puts another policy in force and returns the duration.
    fn replace(&mut self, policy: &Policy) -> Result<Duration> {
        let (host, table, rules) = match self {
            Self::Pomguard(guard) => {
                let site = policy.site_file()?;
                let begin = Instant::now();
                guard.replace(&site)?;
                return Ok(begin.elapsed());
            }
            Self::NftStateless(host) => (*host, "netdev", filter::nft_stateless(&host.interface, policy)?),
            Self::NftStateful(host) => (*host, "ip", filter::nft_stateful(policy)?),
        };
        // One transaction: each packet should see the old table or the new one.
        let text = format!("delete table {table} bench\n{rules}");
        let begin = Instant::now();
        filter::feed(&host.namespace, "nft", &["-f", "-"], &text)?;
        Ok(begin.elapsed())
    }
}

/// Measures pomguard and nftables.
pub(super) fn run(setting: &Setting) -> Result<Vec<ChangeFigure>> {
    let mut sender = Sender::new(&workspace::root().join(record::BENCH_OBJECT))?;
    let mut figures = Vec::new();
    for &tuples in if setting.quick { QUICK_TUPLES } else { TUPLES } {
        let large = Policy::random(Family::V4, tuples)?;
        let policies = [large.without_last(), large];
        for filter in [Filter::Pomguard, Filter::NftStateless, Filter::NftStateful] {
            setting.say(&format!("changes under load: {}, {tuples} tuples", filter.name()));
            let host = Host::new(&mut sender, filter.name())?;
            let mut replacer = Replacer::start(setting, &mut sender, &host, filter, &policies[0])?;
            let period = if setting.quick { QUICK_UNDER_LOAD } else { UNDER_LOAD };
            let figure = measure(&mut sender, &host, &mut replacer, &policies, period)?;
            figures.push(ChangeFigure { filter: filter.name().to_owned(), tuples, ..figure });
        }
    }
    Ok(figures)
}

fn measure(
    sender: &mut Sender,
    host: &Host,
    replacer: &mut Replacer<'_>,
    policies: &[Policy; 2],
    period: Duration,
) -> Result<ChangeFigure> {
    let mut at_rest = Vec::new();
    for policy in policies.iter().cycle().skip(1).take(AT_REST) {
        at_rest.push(replacer.replace(policy)?.as_secs_f64() * 1e3);
    }
    let mut random = Random(1);
    let mut loaded = Vec::new();
    let mut receive = |mix: Mix| -> Result<Receipt> {
        // Packets that both policies treat alike.
        let flows = mix.flows(&policies[0], &mut random)?;
        sender.fill(&mix.headers(policies[0].family, &flows))?;
        let before = host.idle()?;
        loaded.extend(under_load(sender, host, replacer, policies, period)?);
        Ok(host.idle()?.since(&before))
    };
    let (allowed, denied) = (receive(Mix::Opening)?, receive(Mix::Stranger)?);
    Ok(ChangeFigure {
        filter: String::new(),
        tuples: 0,
        changes: loaded.len(),
        at_rest: Spread::of(at_rest).context("no change was made")?,
        under_load: Spread::of(loaded).context("no change was made under load")?,
        allowed: allowed.packets,
        lost: allowed.packets.saturating_sub(allowed.delivered),
        denied: denied.packets,
        let_in: denied.delivered,
    })
}

/// Replaces the policy while packets come in. Returns the milliseconds of each change.
fn under_load(
    sender: &mut Sender,
    host: &Host,
    replacer: &mut Replacer<'_>,
    policies: &[Policy; 2],
    period: Duration,
) -> Result<Vec<f64>> {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| sender.flood(host.link, || !enough.load(Ordering::Relaxed)));
        let until = Instant::now() + period;
        let mut times = Vec::new();
        let mut change = || -> Result<()> {
            for policy in policies.iter().cycle() {
                times.push(replacer.replace(policy)?.as_secs_f64() * 1e3);
                if Instant::now() > until {
                    break;
                }
            }
            Ok(())
        };
        let changed = change();
        enough.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow!("the sender panicked"))??;
        changed?;
        Ok(times)
    })
}
