//! The targets, and the check whether they are met.

use super::tables::{Sheet, cost, grid, situations};
use crate::{
    figures::{Figures, LiveFigure, ProgramFigure},
    filter::Filter,
    mix::Mix,
    policy::Family,
};

/// One target with its measured value.
struct Target {
    case: String,
    aim: String,
    found: Option<f64>,
    unit: &'static str,
    met: Option<bool>,
}

impl Target {
    fn new(case: &str, aim: &str, unit: &'static str, found: Option<f64>, met: impl Fn(f64) -> bool) -> Self {
        Self { case: case.to_owned(), aim: aim.to_owned(), found, unit, met: found.map(met) }
    }
}

/// Makes the table of all targets with the measured values.
pub(super) fn sheet(figures: &Figures) -> Sheet {
    let mut all = Vec::new();
    if let Some(part) = &figures.program {
        all.extend(of_programs(&part.figures));
    }
    if let Some(part) = &figures.live {
        all.extend(of_receive_path(&part.figures));
    }
    all.extend(of_changes(figures));
    all.extend(of_footprint(figures));
    let row = |target: Target| {
        let found =
            target.found.map_or_else(|| "not measured".to_owned(), |it| format!("{it:.1} {}", target.unit));
        let met = target.met.map_or("", |met| if met { "met" } else { "**not met**" });
        vec![target.case, target.aim, found, met.to_owned()]
    };
    Sheet {
        title: "What is aimed at".to_owned(),
        table: grid(&["case", "aim", "found", ""], all.into_iter().map(row).collect(), 4),
    }
}

/// The names of the cases in which a packet is denied, and those in which a peer's packet passes.
const DENIED: [&str; 5] = [
    "denied: port not listed",
    "denied: port not listed, UDP",
    "denied: stranger, listed port",
    "denied: ACK of no flow",
    "denied: ACK of no flow, at ports with flows",
];
const ALLOWED: [&str; 2] = ["allowed inbound, opening", "allowed inbound, established"];
/// Nanoseconds that a denied packet and an allowed packet may cost beyond one and a half times the reference.
const MORE_THAN_REFERENCE: [f64; 2] = [15.0, 20.0];

fn find<'a>(
    figures: &'a [ProgramFigure],
    case: &str,
    family: Family,
    tuples: usize,
    inbound: &str,
) -> Option<&'a ProgramFigure> {
    figures.iter().find(|it| {
        it.case == case && it.family == family && it.tuples == tuples && it.inbound == inbound && !it.pom
    })
}

fn of_programs(figures: &[ProgramFigure]) -> Vec<Target> {
    let enforced = |case: &str, family, tuples| find(figures, case, family, tuples, "enforce");
    let mut targets = Vec::new();
    let both = [(&DENIED[..], MORE_THAN_REFERENCE[0]), (&ALLOWED[..], MORE_THAN_REFERENCE[1])];
    for (cases, more) in both {
        for case in cases {
            for tuples in [10, 10_000, 100_000] {
                let figure = enforced(case, Family::V4, tuples);
                let most = figure.and_then(|it| it.reference.as_ref()).map(|it| it.median.mul_add(1.5, more));
                let aim = most.map_or_else(String::new, |most| format!(" = {most:.0} ns"));
                targets.push(Target::new(
                    &format!("{case}, {tuples} tuples"),
                    &format!("≤ 1.5 × reference + {more:.0}{aim}"),
                    "ns",
                    figure.filter(|_| most.is_some()).map(|it| it.over.median),
                    |it| most.is_some_and(|most| it <= most),
                ));
            }
        }
    }
    let alone =
        [("answer to our flow", 90.0), ("egress, reply to a peer", 50.0), ("egress, our flow", 100.0)];
    for (case, most) in alone {
        let found = enforced(case, Family::V4, 10_000).map(|it| it.over.median);
        let name = format!("{case}, 100,000 live flows");
        targets.push(Target::new(&name, &format!("≤ {most:.0} ns"), "ns", found, |it| it <= most));
    }
    for case in DENIED {
        let [audit, enforce] =
            ["audit", "enforce"].map(|mode| find(figures, case, Family::V4, 10_000, mode).map(|it| &it.over));
        let more = audit.zip(enforce).map(|(audit, enforce)| {
            (audit.median - enforce.median, (audit.most - audit.least).max(enforce.most - enforce.least))
        });
        let spread = more.map_or(0.0, |(_, spread)| spread);
        targets.push(Target::new(
            &format!("audit: {case}, more than in enforce"),
            &format!("≤ the spread = {spread:.0} ns"),
            "ns",
            more.map(|(more, _)| more),
            |it| it <= spread,
        ));
    }
    for case in DENIED.iter().chain(&ALLOWED) {
        let ratio = enforced(case, Family::V6, 10_000)
            .zip(enforced(case, Family::V4, 10_000))
            .map(|(six, four)| six.over.median / four.over.median);
        let name = format!("IPv6 alongside IPv4: {case}");
        targets.push(Target::new(&name, "≤ 1.3 times", "times", ratio, |it| it <= 1.3));
    }
    targets
}

fn of_receive_path(figures: &[LiveFigure]) -> Vec<Target> {
    let situations = situations(figures);
    let median = |mix: Mix, filter: Filter| {
        let of = situations.iter().find(|it| {
            it.first().is_some_and(|figure| {
                figure.family == Family::V4 && figure.tuples == 10_000 && figure.mix == mix.name()
            })
        });
        of.and_then(|situation| cost(situation, filter)).map(|cost| cost.median)
    };
    let times =
        |mix, filter| median(mix, filter).zip(median(mix, Filter::Pomguard)).map(|(other, own)| other / own);
    let less =
        |mix, filter| median(mix, filter).zip(median(mix, Filter::Pomguard)).map(|(other, own)| other - own);
    let (stateless, stateful) = (Filter::NftStateless, Filter::NftStateful);
    vec![
        Target::new(
            "receive path, denied port: nftables' best form alongside pomguard",
            "≥ 5 times",
            "times",
            times(Mix::Port, stateless),
            |it| it >= 5.0,
        ),
        Target::new(
            "receive path, denied source: nftables' best form alongside pomguard",
            "≥ 5 times",
            "times",
            times(Mix::Stranger, stateless),
            |it| it >= 5.0,
        ),
        Target::new(
            "receive path, generic mode, denied source: alongside nftables' concatenated set",
            "≤ 0.6 times",
            "times",
            median(Mix::Stranger, Filter::PomguardGeneric)
                .zip(median(Mix::Stranger, stateless))
                .map(|(own, other)| own / other),
            |it| it <= 0.6,
        ),
        Target::new(
            "receive path, allowed: nftables' best form",
            "≥ 150 ns more than pomguard",
            "ns",
            less(Mix::Established, stateless),
            |it| it >= 150.0,
        ),
        Target::new(
            "receive path, allowed, established: nftables' stateful form",
            "≥ 600 ns more than pomguard",
            "ns",
            less(Mix::Established, stateful),
            |it| it >= 600.0,
        ),
        Target::new(
            "receive path, allowed, opening: nftables' stateful form",
            "≥ 600 ns more than pomguard",
            "ns",
            less(Mix::Opening, stateful),
            |it| it >= 600.0,
        ),
        Target::new(
            "packets per core of a scan, alongside a host with no filter",
            "≥ 4 times",
            "times",
            times(Mix::Scan, Filter::Nothing),
            |it| it >= 4.0,
        ),
    ]
}

fn of_changes(figures: &Figures) -> Vec<Target> {
    let Some(part) = &figures.change else { return Vec::new() };
    let own = part.figures.iter().filter(|figure| figure.filter == Filter::Pomguard.name());
    let Some(figure) = own.max_by_key(|figure| figure.tuples) else { return Vec::new() };
    let large = figure.tuples == 100_000;
    vec![
        Target::new(
            "policy change, 100,000 tuples, in all",
            "≤ 100 ms",
            "ms",
            large.then_some(figure.at_rest.median),
            |it| it <= 100.0,
        ),
        Target::new(
            "packets lost or let in while policies are replaced under load",
            "none",
            "packets",
            Some((figure.lost + figure.let_in) as f64),
            |it| it < 1.0,
        ),
    ]
}

fn of_footprint(figures: &Figures) -> Vec<Target> {
    let Some(part) = &figures.footprint else { return Vec::new() };
    let find = |what: &str| part.figures.iter().find(|figure| figure.what == what).map(|figure| figure.value);
    vec![
        Target::new(
            "daemon, resident, POM site",
            "≤ 30 MB",
            "MB",
            find("daemon, resident, POM site"),
            |it| it <= 30.0,
        ),
        Target::new(
            "daemon, resident, 100,000 tuples",
            "≤ 40 MB",
            "MB",
            find("daemon, resident, 100,000 tuples"),
            |it| it <= 40.0,
        ),
        Target::new(
            "`pomguard stats` on 4,096 rows",
            "≤ 20 ms",
            "ms",
            find("`pomguard stats`, 4,096 rows"),
            |it| it <= 20.0,
        ),
        Target::new(
            "resolving and compiling 100,000 tuples, reading them included",
            "≤ 200 ms",
            "ms",
            find("read, resolve and compile 100,000 tuples"),
            |it| it <= 200.0,
        ),
        Target::new(
            "daemon, at rest",
            "≤ 10 ms per s: 1 % of a core",
            "ms per s",
            find("daemon, at rest, POM site"),
            |it| it <= 10.0,
        ),
        Target::new(
            "scrape under a flood",
            "≤ 100 ms",
            "ms",
            find("scrape under a flood, POM site"),
            |it| it <= 100.0,
        ),
    ]
}
