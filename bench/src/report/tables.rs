//! The figures as aligned Markdown tables, for the terminal and for the page.

use comfy_table::{CellAlignment, Table, presets};

use super::plot::grouped;
use crate::{
    figures::{ChangeFigure, FootprintFigure, LiveFigure, ProgramFigure, ServiceFigure, Spread},
    filter::Filter,
    mix::Mix,
    policy::Family,
};

/// A table with a title.
pub(super) struct Sheet {
    pub(super) title: String,
    pub(super) table: String,
}

/// Makes a table. All columns after the first `words` columns hold numbers.
pub(super) fn grid(head: &[&str], rows: Vec<Vec<String>>, words: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Formats the median and the range of the repeats.
fn spread(it: &Spread) -> String {
    let digits = usize::from(it.median < 100.0 && it.median.fract() != 0.0 && it.median < 20.0);
    format!("{:.digits$} ({:.digits$}–{:.digits$})", it.median, it.least, it.most)
}

/// Formats the size of a policy, and marks the POM site's.
fn extent(tuples: usize, pom: bool) -> String {
    let tuples = grouped(tuples as f64);
    if pom { format!("POM site: {tuples}") } else { tuples }
}

/// Makes the table of the programs.
pub(super) fn program(figures: &[ProgramFigure]) -> Sheet {
    let row = |figure: &ProgramFigure| {
        vec![
            figure.case.clone(),
            figure.family.name().to_owned(),
            extent(figure.tuples, figure.pom),
            figure.inbound.clone(),
            format!("{:.0}", figure.floor),
            spread(&figure.over),
            figure.reference.as_ref().map_or_else(|| "–".to_owned(), spread),
        ]
    };
    let head = ["case", "family", "tuples", "inbound", "floor", "over the floor", "reference"];
    Sheet {
        title: "Nanoseconds per run of a program, over packets that vary: median (10 %–90 % of the rounds)"
            .to_owned(),
        table: grid(&head, figures.iter().map(row).collect(), 2),
    }
}

/// Groups the figures by situation: family, tuples, site and mix. A group holds the figures of all filters.
pub(super) fn situations(figures: &[LiveFigure]) -> Vec<Vec<&LiveFigure>> {
    let mut all: Vec<Vec<&LiveFigure>> = Vec::new();
    for figure in figures {
        let same = |of: &&mut Vec<&LiveFigure>| {
            of.first().is_some_and(|it| {
                (it.family, it.tuples, it.pom, &it.mix)
                    == (figure.family, figure.tuples, figure.pom, &figure.mix)
            })
        };
        match all.iter_mut().find(same) {
            Some(situation) => situation.push(figure),
            None => all.push(vec![figure]),
        }
    }
    all
}

/// Returns the cost of a packet with a filter in a situation.
pub(super) fn cost<'a>(situation: &[&'a LiveFigure], filter: Filter) -> Option<&'a Spread> {
    situation.iter().find(|figure| figure.filter == filter.name()).map(|figure| &figure.cost)
}

/// Makes the table for operators: packets per second on one core, of the filters that an operator chooses among.
pub(super) fn operators(figures: &[LiveFigure]) -> Sheet {
    /// The number of tuples of a large site.
    const TUPLES: usize = 10_000;
    const CHOICE: [Filter; 5] = [
        Filter::Pomguard,
        Filter::PomguardGeneric,
        Filter::NftStateless,
        Filter::NftStateful,
        Filter::Nothing,
    ];
    const TRAFFIC: [(Mix, &str); 4] = [
        (Mix::Stranger, "a flood from strangers, all dropped"),
        (Mix::Scan, "a scan, one packet of ten allowed and answered"),
        (Mix::Established, "calls: packets of 100,000 connections"),
        (Mix::Opening, "calls: new connections"),
    ];
    let situations = situations(figures);
    let row = |(mix, what): (Mix, &str)| {
        let situation = situations.iter().find(|it| {
            it.first().is_some_and(|figure| {
                let same = figure.family == Family::V4 && figure.tuples == TUPLES;
                same && !figure.pom && figure.mix == mix.name()
            })
        });
        let cell = |filter| {
            let cost = situation.and_then(|situation| cost(situation, filter));
            cost.map_or_else(|| "–".to_owned(), |cost| format!("{:.1}", 1e3 / cost.median))
        };
        std::iter::once(what.to_owned()).chain(CHOICE.map(cell)).collect()
    };
    let mut head = vec!["million packets per second on one core"];
    head.extend(CHOICE.map(Filter::name));
    Sheet {
        title: "IPv4, a policy of 10,000 permissions".to_owned(),
        table: grid(&head, TRAFFIC.map(row).into(), 1),
    }
}

/// Makes the tables of the whole receive path: costs, packets per second, and ratios.
pub(super) fn live(figures: &[LiveFigure]) -> Vec<Sheet> {
    let mut sheets = Vec::new();
    let situations = situations(figures);
    let sheet = |family: Family, of: &dyn Fn(&[&LiveFigure], Filter) -> Option<String>| {
        let mut head = vec!["traffic", "tuples"];
        head.extend(Filter::SHOWN.iter().map(|filter| filter.name()));
        let own = situations.iter().filter(|it| it.first().is_some_and(|figure| figure.family == family));
        let rows: Vec<Vec<String>> = own
            .filter_map(|situation| {
                let first = situation.first()?;
                let mut row = vec![first.mix.clone(), extent(first.tuples, first.pom)];
                let cell = |&filter| of(situation, filter).unwrap_or_else(|| "–".to_owned());
                row.extend(Filter::SHOWN.iter().map(cell));
                Some(row)
            })
            .collect();
        (!rows.is_empty()).then(|| grid(&head, rows, 1))
    };
    for family in [Family::V4, Family::V6] {
        let costs = sheet(family, &|situation, filter| cost(situation, filter).map(spread));
        let rates = sheet(family, &|situation, filter| {
            cost(situation, filter).map(|cost| format!("{:.2}", 1e3 / cost.median))
        });
        let alongside = sheet(family, &|situation, filter| {
            let (own, other) = (cost(situation, Filter::Pomguard)?, cost(situation, filter)?);
            Some(format!("{:+.0} ns, ×{:.1}", other.median - own.median, other.median / own.median))
        });
        let name = family.name();
        for (title, table) in [
            (
                format!("{name}: nanoseconds of the receiving processor per packet, median (least–most)"),
                costs,
            ),
            (format!("{name}: million packets per second and core"), rates),
            (
                format!("{name}: what another filter's packet costs more than pomguard's, and times it"),
                alongside,
            ),
        ] {
            sheets.extend(table.map(|table| Sheet { title, table }));
        }
    }
    sheets
}

/// Makes the table of policy changes under load.
pub(super) fn change(figures: &[ChangeFigure]) -> Sheet {
    let row = |figure: &ChangeFigure| {
        vec![
            figure.filter.clone(),
            grouped(figure.tuples as f64),
            spread(&figure.at_rest),
            spread(&figure.under_load),
            figure.changes.to_string(),
            grouped(figure.allowed as f64),
            grouped(figure.lost as f64),
            grouped(figure.denied as f64),
            grouped(figure.let_in as f64),
        ]
    };
    let head = [
        "filter",
        "tuples",
        "ms per change, at rest",
        "ms per change, under load",
        "changes under load",
        "allowed packets",
        "lost",
        "denied packets",
        "let in",
    ];
    Sheet {
        title: "The policy replaced again and again under full load".to_owned(),
        table: grid(&head, figures.iter().map(row).collect(), 1),
    }
}

/// Makes the table of the effects that an application notices.
pub(super) fn service(figures: &[ServiceFigure]) -> Sheet {
    let row = |figure: &ServiceFigure| {
        vec![
            figure.filter.clone(),
            spread(&figure.throughput),
            spread(&figure.request),
            spread(&figure.connection),
        ]
    };
    let head = ["filter", "Gbit/s, one connection", "µs per request", "µs per connection"];
    Sheet {
        title: "TCP between two namespaces, 10,000 tuples".to_owned(),
        table: grid(&head, figures.iter().map(row).collect(), 1),
    }
}

/// Makes the table of resources.
pub(super) fn footprint(figures: &[FootprintFigure]) -> Sheet {
    let row = |figure: &FootprintFigure| {
        let digits = if figure.value < 10.0 { 2 } else { 1 };
        vec![figure.what.clone(), format!("{:.digits$}", figure.value), figure.unit.clone()]
    };
    Sheet {
        title: "What pomguard takes".to_owned(),
        table: grid(&["what", "value", "unit"], figures.iter().map(row).collect(), 1),
    }
}
