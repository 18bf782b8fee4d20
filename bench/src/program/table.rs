//! The measured values and their table.

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    figures::{ProgramFigure, Spread},
    policy::Family,
};

/// Nanoseconds per packet, one sample per round.
#[derive(Debug, Default)]
pub(super) struct Measured {
    floor: Vec<f64>,
    over: Vec<f64>,
}

impl Measured {
    /// Adds a round: the values of the floor and of the subject.
    pub(super) fn add(&mut self, floor: f64, subject: f64) {
        self.floor.push(floor);
        self.over.push(subject - floor);
    }

    /// Returns the median of the floor.
    fn floor(&self) -> f64 {
        quantile(&self.floor, 50)
    }

    /// Returns the median and the range of nine of ten samples. Of forty rounds one or two are always
    /// disturbed.
    pub(super) fn spread(&self) -> Option<Spread> {
        let some = !self.over.is_empty();
        some.then(|| Spread { least: self.over(10), median: self.over(50), most: self.over(90) })
    }

    /// Returns a quantile, in percent, of the subject's time beyond the floor.
    fn over(&self, percent: usize) -> f64 {
        quantile(&self.over, percent)
    }
}

/// Returns the sample below which `percent` of all samples lie.
fn quantile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN)
}

/// One case under one policy.
pub(super) struct Line {
    pub(super) case: &'static str,
    pub(super) family: Family,
    pub(super) tuples: usize,
    pub(super) pom: bool,
    pub(super) inbound: &'static str,
    pub(super) object: String,
    pub(super) measured: Measured,
    /// The time of the reference beyond the floor, if the reference knows the case.
    pub(super) reference: Option<Spread>,
}

impl Line {
    /// Returns the line in its stored form, or `None` if nothing was measured.
    pub(super) fn figure(&self) -> Option<ProgramFigure> {
        Some(ProgramFigure {
            case: self.case.to_owned(),
            family: self.family,
            tuples: self.tuples,
            pom: self.pom,
            inbound: self.inbound.to_owned(),
            floor: self.measured.floor(),
            over: self.measured.spread()?,
            reference: self.reference,
        })
    }
}

/// Prints the lines, to compare objects.
pub(super) fn print(lines: &[Line]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let head = [
        "case",
        "family",
        "tuples",
        "inbound",
        "floor",
        "over it",
        "least",
        "10 % to 90 %",
        "reference",
        "object",
    ];
    table.set_header(head);
    for line in lines {
        let measured = &line.measured;
        table.add_row([
            line.case.to_owned(),
            line.family.name().to_owned(),
            line.tuples.to_string(),
            line.inbound.to_owned(),
            format!("{:.0}", measured.floor()),
            format!("{:.0}", measured.over(50)),
            format!("{:.0}", measured.over(0)),
            format!("{:.0} to {:.0}", measured.over(10), measured.over(90)),
            line.reference.as_ref().map_or_else(String::new, |it| format!("{:.0}", it.median)),
            line.object.clone(),
        ]);
    }
    for column in [2, 4, 5, 6, 7, 8] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("Nanoseconds per packet.\n{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_in_order() {
        let samples = [3.0, 1.0, 2.0, 5.0, 4.0];
        assert!((quantile(&samples, 0) - 1.0).abs() < f64::EPSILON);
        assert!((quantile(&samples, 50) - 3.0).abs() < f64::EPSILON);
        assert!((quantile(&samples, 100) - 5.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 50).is_nan());
    }
}
