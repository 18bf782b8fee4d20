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

fn of_programs(figures: &[ProgramFigure]) -> Vec<Target> {
    let find = |case: &str, family: Family, tuples: usize| {
        let same = |it: &&ProgramFigure| {
            it.case == case && it.family == family && it.tuples == tuples && it.inbound == "enforce"
        };
        figures.iter().find(same).map(|figure| figure.over.median)
    };
    let (port, stranger) = ("denied: port not listed", "denied: stranger, listed port");
    let (opening, established) = ("allowed inbound, opening", "allowed inbound, established");
    let worst = |tuples| {
        let of = [opening, established].map(|case| find(case, Family::V4, tuples));
        of.into_iter().flatten().reduce(f64::max)
    };
    let aims = [
        ("program, denied: port not listed, 10,000 tuples", 10.0, find(port, Family::V4, 10_000)),
        (
            "program, denied: stranger on a listed port, 10,000 tuples",
            25.0,
            find(stranger, Family::V4, 10_000),
        ),
        ("program, allowed inbound, 10 tuples", 25.0, worst(10)),
        ("program, allowed inbound, 10,000 tuples", 45.0, worst(10_000)),
        ("program, allowed inbound, 100,000 tuples", 100.0, worst(100_000)),
        (
            "program, answer to a flow of ours, 100,000 flows",
            90.0,
            find("answer to our flow", Family::V4, 10_000),
        ),
        (
            "TC program, egress of a peer's connection",
            60.0,
            find("egress, reply to a peer", Family::V4, 10_000),
        ),
        ("TC program, egress of a flow of ours", 60.0, find("egress, our flow", Family::V4, 10_000)),
    ];
    let mut targets: Vec<Target> = aims
        .into_iter()
        .map(|(case, most, found)| {
            Target::new(case, &format!("≤ {most:.0} ns over the floor"), "ns", found, |it| it <= most)
        })
        .collect();
    for case in [port, stranger, opening, established] {
        let ratio =
            find(case, Family::V6, 10_000).zip(find(case, Family::V4, 10_000)).map(|(six, four)| six / four);
        let name = format!("program, IPv6 alongside IPv4: {case}");
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
            "≥ 6 times",
            "times",
            times(Mix::Port, stateless),
            |it| it >= 6.0,
        ),
        Target::new(
            "receive path, denied source: nftables' best form alongside pomguard",
            "≥ 6 times",
            "times",
            times(Mix::Stranger, stateless),
            |it| it >= 6.0,
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
            "≤ 200 ms",
            "ms",
            large.then_some(figure.at_rest.median),
            |it| it <= 200.0,
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
