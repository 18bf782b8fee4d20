//! The measured figures, as they are stored, printed and drawn.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::policy::Family;

/// The repeats of one measurement: their median and their range.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Computes the spread of samples. Returns `None` if there are no samples.
    pub(super) fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let median = *samples.get(samples.len() / 2)?;
        Some(Self { least: *samples.first()?, median, most: *samples.last()? })
    }
}

/// The place and the conditions of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Circumstances {
    /// Day, UTC.
    pub(super) date: String,
    /// `uname -r`.
    pub(super) kernel: String,
    /// The processor's own name.
    pub(super) processor: String,
    /// Number of processors.
    pub(super) processors: usize,
    /// The command line.
    pub(super) command: String,
}

/// The figures of one part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured<T> {
    pub(super) circumstances: Circumstances,
    pub(super) figures: Vec<T>,
}

/// Nanoseconds per run of a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ProgramFigure {
    pub(super) case: String,
    pub(super) family: Family,
    pub(super) tuples: usize,
    /// True for the POM site, false for a random policy.
    #[serde(default)]
    pub(super) pom: bool,
    /// `enforce` or `audit`.
    pub(super) inbound: String,
    /// Nanoseconds of the program that does nothing.
    pub(super) floor: f64,
    /// Nanoseconds beyond the floor.
    pub(super) over: Spread,
    /// The same of the reference, in the same turns, if the reference knows the case.
    #[serde(default)]
    pub(super) reference: Option<Spread>,
}

/// Processor time per packet of the whole receive path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LiveFigure {
    pub(super) family: Family,
    pub(super) tuples: usize,
    /// True for the POM site, false for a random policy.
    #[serde(default)]
    pub(super) pom: bool,
    pub(super) mix: String,
    pub(super) filter: String,
    /// Nanoseconds of the receiving processor per packet.
    pub(super) cost: Spread,
}

/// Repeated replacement of the policy under full load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ChangeFigure {
    pub(super) filter: String,
    pub(super) tuples: usize,
    pub(super) changes: usize,
    /// Milliseconds per change, from the command to its end, while no packets arrive.
    pub(super) at_rest: Spread,
    /// Milliseconds per change under load, while sender and receiver take a processor each.
    pub(super) under_load: Spread,
    /// Packets that both policies allow.
    pub(super) allowed: u64,
    /// Packets that both policies allow and that were dropped.
    pub(super) lost: u64,
    /// Packets that neither policy allows.
    pub(super) denied: u64,
    /// Packets that neither policy allows and that passed.
    pub(super) let_in: u64,
}

/// The effects that an application notices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ServiceFigure {
    pub(super) filter: String,
    /// Gbit/s of one TCP connection into the host.
    pub(super) throughput: Spread,
    /// Microseconds per request and answer on an open connection.
    pub(super) request: Spread,
    /// Microseconds per connection that is opened, used once and closed.
    pub(super) connection: Spread,
}

/// Resources of the daemon and the maps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FootprintFigure {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) unit: String,
}

/// The figures of all parts that were measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) program: Option<Measured<ProgramFigure>>,
    pub(super) live: Option<Measured<LiveFigure>>,
    pub(super) change: Option<Measured<ChangeFigure>>,
    pub(super) service: Option<Measured<ServiceFigure>>,
    pub(super) footprint: Option<Measured<FootprintFigure>>,
}

impl Figures {
    /// Reads the figures of a file. Returns no figures if the file does not exist.
    pub(super) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Writes the figures to a file.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Returns these figures, with the parts of `earlier` where these have none.
    pub(super) fn over(self, earlier: Self) -> Self {
        Self {
            program: self.program.or(earlier.program),
            live: self.live.or(earlier.live),
            change: self.change.or(earlier.change),
            service: self.service.or(earlier.service),
            footprint: self.footprint.or(earlier.footprint),
        }
    }
}

impl Circumstances {
    /// Combines figures with the circumstances of their measurement.
    pub(super) fn measured<T>(&self, figures: Vec<T>) -> Measured<T> {
        Measured { circumstances: self.clone(), figures }
    }

    /// Returns the circumstances of this machine, now.
    pub(super) fn now() -> Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let mut names = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let words: Vec<String> = std::env::args().skip(1).collect();
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            kernel: release.trim().to_owned(),
            processor: names.next().map_or("unknown", |(_, name)| name.trim()).to_owned(),
            processors: std::thread::available_parallelism()?.get(),
            command: format!("cargo xtask bench {}", words.join(" ")).trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_least_the_middle_and_the_most() {
        let spread = Spread::of(vec![3.0, 1.0, 9.0]).unwrap();
        assert_eq!(format!("{} {} {}", spread.least, spread.median, spread.most), "1 3 9");
        assert!(Spread::of(Vec::new()).is_none());
    }

    #[test]
    fn a_run_of_one_part_keeps_the_others() {
        let circumstances = Circumstances {
            date: "2026-11-25".to_owned(),
            kernel: "6.18".to_owned(),
            processor: "one".to_owned(),
            processors: 2,
            command: "cargo xtask bench".to_owned(),
        };
        let part = |value| {
            let figure = FootprintFigure { what: "memory".to_owned(), value, unit: "MB".to_owned() };
            Some(Measured { circumstances: circumstances.clone(), figures: vec![figure] })
        };
        let earlier = Figures { footprint: part(1.0), ..Figures::default() };
        let other = Figures::default().over(earlier.clone());
        assert!(other.footprint.is_some_and(|part| part.figures[0].value < 2.0));
        let newer = Figures { footprint: part(3.0), ..Figures::default() }.over(earlier);
        assert!(newer.footprint.is_some_and(|part| part.figures[0].value > 2.0));
    }
}
