//! Line and bar plots as SVG.
//!
//! Series differ by colour, by the shape of their points and by the dashes of their lines, and each has a
//! label at its end: nobody has to tell colours apart. The colours are Okabe and Ito's.

use std::fmt::Write as _;

use anyhow::Result;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 236.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 64.0;
/// Least distance between the labels of two series.
const LINE: f64 = 16.0;

/// Colour, dashes, and shape of the points.
const STYLES: [(&str, &str, Shape); 9] = [
    ("#0072b2", "", Shape::Circle),
    ("#d55e00", "", Shape::Square),
    ("#009e73", "8 4", Shape::Triangle),
    ("#cc79a7", "3 3", Shape::Diamond),
    ("#000000", "10 3 2 3", Shape::Cross),
    ("#e69f00", "6 2", Shape::Circle),
    ("#56b4e9", "2 2", Shape::Square),
    ("#666666", "", Shape::Diamond),
    ("#0072b2", "1 3", Shape::Triangle),
];

#[derive(Clone, Copy)]
enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
}

/// One line of a plot.
pub(super) struct Series {
    pub(super) name: String,
    /// From left to right, both coordinates positive.
    pub(super) points: Vec<(f64, f64)>,
}

/// The texts of a plot.
pub(super) struct Words<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// Draws lines over a logarithmic horizontal axis. The vertical axis is logarithmic if `logarithmic`.
pub(super) fn lines(words: &Words<'_>, series: &[Series], logarithmic: bool) -> Result<String> {
    let points = || series.iter().flat_map(|line| &line.points);
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0, f64::max);
    let (first, last) = (least(&mut points().map(|p| p.0)), most(&mut points().map(|p| p.0)));
    let (low, high) = (least(&mut points().map(|p| p.1)), most(&mut points().map(|p| p.1)));
    let across = Axis { from: first.log10(), to: last.log10(), at: LEFT, end: WIDTH - RIGHT };
    let (ticks, from, to) = if logarithmic { decades(low, high) } else { steps(high) };
    let scale = |value: f64| if logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
    let up = Axis { from: scale(from), to: scale(to), at: HEIGHT - BOTTOM, end: TOP };

    let mut svg = begin(words, HEIGHT)?;
    for tick in ticks {
        let y = up.place(scale(tick));
        writeln!(
            svg,
            r##"<line x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="#ddd"/>"##,
            across.end
        )?;
        text(&mut svg, LEFT - 8.0, y + 4.0, "end", &grouped(tick))?;
    }
    let mut tick = first;
    while tick <= last * 1.01 {
        let x = across.place(tick.log10());
        writeln!(svg, r##"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{:.1}" stroke="#eee"/>"##, up.at)?;
        text(&mut svg, x, up.at + 20.0, "middle", &grouped(tick))?;
        tick *= 10.0;
    }
    frame(&mut svg, HEIGHT)?;
    // Labels alongside the last points, moved apart where they would overlap.
    let mut names: Vec<(f64, f64, usize)> = Vec::new();
    for (number, (line, style)) in series.iter().zip(STYLES.iter().cycle()).enumerate() {
        let (colour, dashes, shape) = style;
        let placed: Vec<_> =
            line.points.iter().map(|p| (across.place(p.0.log10()), up.place(scale(p.1)))).collect();
        let path: Vec<String> = placed.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>"#,
            path.join(" ")
        )?;
        for (x, y) in &placed {
            point(&mut svg, *shape, *x, *y, colour)?;
        }
        if let Some((x, y)) = placed.last() {
            names.push((*y, *x, number));
        }
    }
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP - LINE;
    let room = HEIGHT - BOTTOM - LINE * names.len() as f64;
    for (turn, (y, x, number)) in names.into_iter().enumerate() {
        // As near to the point as the labels above and below allow.
        let label = y.max(free + LINE).min(room + LINE * (turn + 1) as f64);
        free = label;
        let (Some(line), Some((colour, ..))) = (series.get(number), STYLES.iter().cycle().nth(number)) else {
            continue;
        };
        let at = across.end + 14.0;
        writeln!(
            svg,
            r#"<line x1="{:.1}" y1="{y:.1}" x2="{:.1}" y2="{label:.1}" stroke="{colour}" stroke-width="0.7"/>"#,
            x + 5.0,
            at - 2.0
        )?;
        writeln!(
            svg,
            r#"<text x="{at}" y="{:.1}" fill="{colour}">{}</text>"#,
            label + 4.0,
            escape(&line.name)
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// One group of bars.
pub(super) struct Group {
    pub(super) name: String,
    /// One bar per kind; `None` where there is no value.
    pub(super) bars: Vec<Option<f64>>,
}

/// Draws horizontal bars over a logarithmic axis, in groups. Each bar shows its value.
pub(super) fn bars(words: &Words<'_>, kinds: &[&str], groups: &[Group]) -> Result<String> {
    const BAR: f64 = 15.0;
    const GAP: f64 = 14.0;
    const NAMES: f64 = 150.0;
    let values = || groups.iter().flat_map(|group| group.bars.iter().flatten());
    let (low, high) =
        (values().fold(f64::INFINITY, |a, &b| a.min(b)), values().fold(1.0, |a: f64, &b| a.max(b)));
    let (ticks, from, to) = decades(low, high);
    let across = Axis { from: from.log10(), to: to.log10(), at: NAMES, end: WIDTH - 80.0 };
    let group_height = BAR * kinds.len() as f64 + GAP;
    let height = TOP + 26.0 + group_height * groups.len() as f64 + BOTTOM;
    let bottom = height - BOTTOM;

    let mut svg = begin(&Words { y: "", ..*words }, height)?;
    writeln!(svg, "{}", pattern())?;
    for tick in ticks {
        let x = across.place(tick.log10());
        writeln!(
            svg,
            r##"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="#ddd"/>"##,
            TOP + 20.0
        )?;
        text(&mut svg, x, bottom + 20.0, "middle", &grouped(tick))?;
    }
    for (number, kind) in kinds.iter().enumerate() {
        let x = NAMES + 170.0 * number as f64;
        writeln!(svg, r#"<rect x="{x}" y="{:.1}" width="22" height="12" {}/>"#, TOP - 6.0, fill(number))?;
        text(&mut svg, x + 30.0, TOP + 4.0, "start", kind)?;
    }
    for (turn, group) in groups.iter().enumerate() {
        let top = TOP + 26.0 + group_height * turn as f64;
        let middle = top + BAR * kinds.len() as f64 / 2.0 + 4.0;
        text(&mut svg, NAMES - 8.0, middle, "end", &group.name)?;
        for (number, value) in group.bars.iter().enumerate() {
            let y = top + BAR * number as f64;
            let Some(value) = value else {
                text(&mut svg, NAMES + 4.0, y + 12.0, "start", "–")?;
                continue;
            };
            let end = across.place(value.log10());
            writeln!(
                svg,
                r#"<rect x="{NAMES}" y="{y:.1}" width="{:.1}" height="{:.1}" {}/>"#,
                end - NAMES,
                BAR - 2.0,
                fill(number)
            )?;
            text(&mut svg, end + 5.0, y + 11.0, "start", &grouped(value.round()))?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A mapping from values to positions.
struct Axis {
    from: f64,
    to: f64,
    at: f64,
    end: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let span = if self.to > self.from { self.to - self.from } else { 1.0 };
        self.at + (value - self.from) / span * (self.end - self.at)
    }
}

/// Returns ticks 1, 2, 5, 10… that enclose the values, and the first and last tick.
fn decades(low: f64, high: f64) -> (Vec<f64>, f64, f64) {
    let wide = high / low > 300.0;
    let mut all = Vec::new();
    let mut decade = 10_f64.powf(low.max(1e-3).log10().floor());
    while decade <= high * 10.0 {
        let within: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        all.extend(within.iter().map(|part| part * decade));
        decade *= 10.0;
    }
    let from = all.iter().copied().rfind(|&tick| tick <= low).unwrap_or(1.0);
    let to = all.iter().copied().find(|&tick| tick >= high).unwrap_or(high);
    all.retain(|&tick| tick >= from && tick <= to);
    (all, from, to)
}

/// Returns even ticks from 0 to beyond the highest value, and the first and last tick.
fn steps(high: f64) -> (Vec<f64>, f64, f64) {
    let rough = high / 6.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|part| part * decade).find(|&step| step >= rough);
    let step = step.unwrap_or(rough);
    let end = (high / step).ceil() * step;
    let ticks = std::iter::successors(Some(0.0), |tick| Some(tick + step));
    (ticks.take_while(|tick| *tick < end + step / 2.0).collect(), 0.0, end)
}

fn begin(words: &Words<'_>, height: f64) -> Result<String> {
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" font-family="sans-serif" font-size="13">"#
    )?;
    writeln!(svg, "<title>{}</title>", escape(words.title))?;
    writeln!(svg, r##"<rect width="100%" height="100%" fill="#fff"/>"##)?;
    writeln!(svg, r#"<text x="16" y="26" font-size="16" font-weight="bold">{}</text>"#, escape(words.title))?;
    text(&mut svg, f64::midpoint(LEFT, WIDTH - RIGHT), height - 18.0, "middle", words.x)?;
    let middle = f64::midpoint(TOP, height - BOTTOM);
    writeln!(
        svg,
        r#"<text transform="translate(22 {middle:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
        escape(words.y)
    )?;
    Ok(svg)
}

fn frame(svg: &mut String, height: f64) -> Result<()> {
    let (end, bottom) = (WIDTH - RIGHT, height - BOTTOM);
    Ok(writeln!(svg, r##"<path d="M{LEFT} {TOP} V{bottom} H{end}" fill="none" stroke="#444"/>"##)?)
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) -> Result<()> {
    Ok(writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escape(words))?)
}

fn point(svg: &mut String, shape: Shape, x: f64, y: f64, colour: &str) -> Result<()> {
    let polygon = |svg: &mut String, corners: &[(f64, f64)]| -> Result<()> {
        let corners: Vec<String> =
            corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        Ok(writeln!(svg, r#"<polygon points="{}" fill="{colour}"/>"#, corners.join(" "))?)
    };
    match shape {
        Shape::Circle => Ok(writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#)?),
        Shape::Square => polygon(svg, &[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)]),
        Shape::Triangle => polygon(svg, &[(0.0, -5.0), (5.0, 4.0), (-5.0, 4.0)]),
        Shape::Diamond => polygon(svg, &[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)]),
        Shape::Cross => Ok(writeln!(
            svg,
            r#"<path d="M{:.1} {:.1} l8 8 m0 -8 l-8 8" stroke="{colour}" stroke-width="2.5"/>"#,
            x - 4.0,
            y - 4.0
        )?),
    }
}

/// Returns the fill of a kind of bars: plain, hatched, light.
fn fill(number: usize) -> &'static str {
    const FILLS: [&str; 3] = [
        r##"fill="#0072b2""##,
        r##"fill="url(#hatched)" stroke="#d55e00""##,
        r##"fill="#bfe3d5" stroke="#009e73""##,
    ];
    FILLS[number % FILLS.len()]
}

const fn pattern() -> &'static str {
    concat!(
        r##"<defs><pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse" "##,
        r##"patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>"##,
        r##"<rect width="3" height="6" fill="#d55e00"/></pattern></defs>"##
    )
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Formats a number with commas between the thousands.
pub(super) fn grouped(value: f64) -> String {
    if value.fract() != 0.0 {
        return value.to_string();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_enclose_what_is_shown() {
        let (ticks, from, to) = decades(83.0, 450.0);
        assert!(from <= 83.0 && to >= 450.0 && ticks.len() < 8, "{ticks:?}");
        let (ticks, from, to) = decades(83.0, 180_000.0);
        assert!(from <= 83.0 && to >= 180_000.0 && ticks.len() < 8, "{ticks:?}");
        let (ticks, from, to) = steps(123.0);
        assert!(from.abs() < 1e-9 && to >= 123.0 && ticks.len() < 9, "{ticks:?}");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(100_000.0), "100,000");
        assert_eq!(grouped(10.0), "10");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }

    #[test]
    fn every_series_is_named_and_no_name_lies_upon_another() {
        let series: Vec<Series> = (0..8)
            .map(|number| Series {
                name: format!("line <{number}>"),
                points: vec![(10.0, 100.0), (100.0, 100.0 + f64::from(number))],
            })
            .collect();
        let words = Words { title: "a & b", x: "tuples", y: "ns" };
        let svg = lines(&words, &series, true).unwrap();
        let mut heights: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("line &lt;"))
            .map(|line| line.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        heights.sort_by(f64::total_cmp);
        assert_eq!(heights.len(), 8);
        assert!(heights.windows(2).all(|two| two[1] - two[0] >= LINE - 0.2), "{heights:?}");
    }
}
