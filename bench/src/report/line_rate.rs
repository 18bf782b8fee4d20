//! The line rates that one core and eight cores can sustain, computed from the measured costs.

use super::tables::{Sheet, cost, grid, situations};
use crate::{
    figures::{Figures, LiveFigure, ProgramFigure},
    filter::Filter,
    mix::Mix,
    policy::Family,
};

/// Link rates in Gbit/s.
const LINKS: [f64; 3] = [10.0, 25.0, 100.0];
/// Length of a frame in bytes, and its description.
const FRAMES: [(f64, &str); 2] = [(64.0, "64 bytes"), (600.0, "600 bytes")];
/// Preamble, start of frame and gap between frames (IEEE 802.3).
const BETWEEN_FRAMES: f64 = 20.0;
/// Nanoseconds that a native driver needs to receive a frame and recycle its page. Published rates of a
/// single core that drops in XDP are 24 to 26 million per second (mlx5, ice, i40e).
const NATIVE_DRIVER: f64 = 40.0;
const CORES: [f64; 2] = [1.0, 8.0];
const TUPLES: usize = 10_000;

/// The cost of a packet in nanoseconds, by attach mode and traffic.
struct Cost {
    mode: &'static str,
    traffic: &'static str,
    nanoseconds: f64,
}

/// Returns the sheet, or `None` if a part that it needs was not measured.
pub(super) fn sheet(figures: &Figures) -> Option<Sheet> {
    let costs = costs(&figures.program.as_ref()?.figures, &figures.live.as_ref()?.figures)?;
    let mut rows = Vec::new();
    for link in LINKS {
        for (bytes, frame) in FRAMES {
            let line_rate = link * 1e9 / ((bytes + BETWEEN_FRAMES) * 8.0);
            for cost in &costs {
                let mut row = vec![
                    format!("{link:.0} GbE"),
                    frame.to_owned(),
                    format!("{:.2}", line_rate / 1e6),
                    cost.mode.to_owned(),
                    cost.traffic.to_owned(),
                    format!("{:.0}", cost.nanoseconds),
                ];
                row.extend(CORES.map(|cores| held(cores * 1e9 / cost.nanoseconds, line_rate)));
                rows.push(row);
            }
        }
    }
    let head = ["link", "frames", "line rate, Mpps", "mode", "traffic", "ns per packet", "1 core", "8 cores"];
    Some(Sheet {
        title: "What a processor holds, of the line rate, at 10,000 tuples".to_owned(),
        table: grid(&head, rows, 2),
    })
}

/// Returns a rate as a percentage of the line rate.
fn held(rate: f64, line_rate: f64) -> String {
    if rate >= line_rate { "all".to_owned() } else { format!("{:.0} %", 100.0 * rate / line_rate) }
}

fn costs(program: &[ProgramFigure], live: &[LiveFigure]) -> Option<Vec<Cost>> {
    let of_program = |case: &str| {
        let same = |it: &&ProgramFigure| {
            it.case == case && it.family == Family::V4 && it.tuples == TUPLES && it.inbound == "enforce"
        };
        program.iter().find(same).map(|figure| figure.over.median)
    };
    let situations = situations(live);
    let of_path = |mix: Mix, filter: Filter| {
        let same = |it: &&Vec<&LiveFigure>| {
            it.first()
                .is_some_and(|it| it.family == Family::V4 && it.tuples == TUPLES && it.mix == mix.name())
        };
        situations.iter().find(same).and_then(|it| cost(it, filter)).map(|cost| cost.median)
    };
    let denied = of_program("denied: stranger, listed port")?;
    let allowed = of_program("allowed inbound, established")?;
    let stack = of_path(Mix::Established, Filter::Nothing)?;
    let mut costs = vec![
        Cost { mode: "native", traffic: "denied", nanoseconds: NATIVE_DRIVER + denied },
        Cost { mode: "native", traffic: "allowed", nanoseconds: NATIVE_DRIVER + allowed + stack },
    ];
    for (mix, traffic) in [(Mix::Stranger, "denied"), (Mix::Established, "allowed")] {
        let nanoseconds = of_path(mix, Filter::PomguardGeneric);
        costs.extend(nanoseconds.map(|nanoseconds| Cost { mode: "generic", traffic, nanoseconds }));
    }
    Some(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_processor_holds_more_than_there_is() {
        assert_eq!(held(20e6, 14.88e6), "all");
        assert_eq!(held(7.44e6, 14.88e6), "50 %");
    }
}
