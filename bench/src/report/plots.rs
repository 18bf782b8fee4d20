//! Selects the figures to draw.

use anyhow::Result;

use super::{
    plot::{Group, Series, Words, bars, lines},
    tables::{cost, situations},
};
use crate::{
    figures::{LiveFigure, ProgramFigure},
    filter::Filter,
    mix::Mix,
    policy::Family,
};

/// The number of tuples of the policy behind the bars.
const TUPLES: usize = 10_000;

/// Draws the costs of the programs over the number of tuples.
pub(super) fn program(figures: &[ProgramFigure]) -> Result<Vec<(&'static str, String)>> {
    let mut series: Vec<Series> = Vec::new();
    for figure in figures.iter().filter(|it| !it.pom && it.family == Family::V4 && it.inbound == "enforce") {
        let point = (figure.tuples as f64, figure.over.median.max(0.0));
        match series.iter_mut().find(|line| line.name == figure.case) {
            Some(line) => line.points.push(point),
            None => series.push(Series { name: figure.case.clone(), points: vec![point] }),
        }
    }
    if series.iter().all(|line| line.points.len() < 2) {
        return Ok(Vec::new());
    }
    let words = Words {
        title: "What a decision costs beyond a program that does nothing, IPv4",
        x: "tuples",
        y: "ns per packet, median",
    };
    Ok(vec![("program-cost.svg", lines(&words, &series, false)?)])
}

/// Draws the costs of the whole receive path, by filter.
pub(super) fn live(figures: &[LiveFigure]) -> Result<Vec<(&'static str, String)>> {
    let situations = situations(figures);
    let mut plots = Vec::new();

    let mixes = [Mix::Port, Mix::Stranger, Mix::Established];
    let at = |mix: Mix, tuples: usize| {
        situations.iter().find(|it| {
            it.first().is_some_and(|figure| {
                let same = figure.family == Family::V4 && figure.tuples == tuples;
                same && !figure.pom && figure.mix == mix.name()
            })
        })
    };
    let bar = |filter: Filter, mix: Mix| {
        at(mix, TUPLES).and_then(|situation| cost(situation, filter)).map(|cost| cost.median)
    };
    let group = |&filter: &Filter| Group {
        name: filter.name().to_owned(),
        bars: mixes.iter().map(|&mix| bar(filter, mix)).collect(),
    };
    let mut groups: Vec<Group> = Filter::SHOWN.iter().map(group).collect();
    groups.retain(|group| group.bars.iter().any(Option::is_some));
    if !groups.is_empty() {
        let words = Words {
            title: "Receive path, IPv4, 10,000 tuples: cost of a packet by filter",
            x: "ns of the receiving processor per packet, median (logarithmic)",
            y: "",
        };
        plots.push(("receive-path.svg", bars(&words, &mixes.map(Mix::name), &groups)?));
    }

    let over_tuples = [
        (Mix::Stranger, "denied-by-tuples.svg", "Receive path, IPv4: a denied source, by number of tuples"),
        (
            Mix::Established,
            "allowed-by-tuples.svg",
            "Receive path, IPv4: an allowed packet, by number of tuples",
        ),
    ];
    for (mix, name, title) in over_tuples {
        let line = |&filter: &Filter| {
            let own = situations.iter().filter_map(|situation| {
                let first = situation.first()?;
                (!first.pom && first.family == Family::V4 && first.mix == mix.name())
                    .then_some(())
                    .and_then(|()| Some((first.tuples as f64, cost(situation, filter)?.median)))
            });
            Series { name: filter.name().to_owned(), points: own.collect() }
        };
        // Linear rules would press all other lines together. The bars show them.
        let shown = Filter::SHOWN.iter().filter(|&&filter| filter != Filter::Iptables);
        let series: Vec<Series> = shown.map(line).filter(|line| line.points.len() > 1).collect();
        if !series.is_empty() {
            let words =
                Words { title, x: "tuples", y: "ns of the receiving processor per packet (logarithmic)" };
            plots.push((name, lines(&words, &series, true)?));
        }
    }
    Ok(plots)
}
