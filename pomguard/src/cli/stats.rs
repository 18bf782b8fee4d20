//! `pomguard stats`: the counters, read from the pinned maps, also if the daemon does not run.

use std::{
    io,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use serde::Serialize;

use super::{
    Usage, duration,
    output::{Output, is_dumb},
};
use crate::{
    observe::{
        counts::{CountHistory, CountReading, ReadingKind, is_mark},
        snapshot::Snapshot,
        status::Flows,
    },
    paths,
    render::{
        flows,
        stats::{Part, StatsView, print_stats, print_watch},
    },
};

/// Shows the counters of passed and dropped packets, with the reasons.
///
/// The counters are read from the kernel's pinned maps, also if the daemon does not run.
#[derive(Clone, Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct StatsArgs {
    /// The daemon's settings
    #[arg(long, value_name = "FILE", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Print one JSON object; with --watch, one per interval, each on a line
    #[arg(long)]
    pub json: bool,
    /// Show rates, every second or at the given interval
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub watch: Option<u64>,
    /// Count only from that time on: a time ago (`1h`, `7d`), in steps of an hour, the last change of policy
    /// (`change`), or a mark (NAME)
    #[arg(long, value_name = "TIME|change|NAME", conflicts_with = "watch")]
    pub since: Option<Baseline>,
    /// Print only rows with packets
    #[arg(long)]
    pub hit: bool,
    /// Set a mark with this name, for a later `--since NAME`
    #[arg(long, value_name = "NAME", value_parser = mark, conflicts_with_all = ["since", "watch", "json"])]
    pub mark: Option<String>,
    /// Print only the rows
    #[arg(long, conflicts_with_all = ["reasons_only", "json", "watch"])]
    pub rows_only: bool,
    /// Print only the reasons
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    pub reasons_only: bool,
}

/// The reading with which the counters are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// A number of seconds ago.
    Ago(u32),
    /// The last change of policy.
    Change,
    /// The mark with this name.
    Mark(String),
}

impl std::str::FromStr for Baseline {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        match duration::seconds(written) {
            _ if written == "change" => Ok(Self::Change),
            Ok(seconds) => Ok(Self::Ago(seconds)),
            Err(_) if is_mark(written) => Ok(Self::Mark(written.to_owned())),
            Err(error) => Err(format!("{error}, `change`, or the name of a mark")),
        }
    }
}

fn mark(written: &str) -> Result<String, String> {
    if is_mark(written) {
        return Ok(written.to_owned());
    }
    Err("a letter, then letters, digits, `-`, `_` and `.`, at most 40, and not `change`".to_owned())
}

/// Returns a reading of the maps for this command: with the times of the last packets, and from the baseline on.
///
/// # Errors
/// If the maps cannot be read, or the baseline is not kept.
pub fn reading(args: &StatsArgs, snapshot: Snapshot, counts: &CountHistory) -> Result<Snapshot> {
    let now = seconds_now();
    let mut snapshot = snapshot;
    counts.last().fill(&mut snapshot, now);
    if let Ok(change) = counts.at_change(snapshot.installed_at) {
        snapshot.since_change = Some(change.subtracted_from(snapshot.clone()).reasons);
    }
    let found = match &args.since {
        None => return Ok(snapshot),
        Some(Baseline::Ago(seconds)) => counts.at_time(now.saturating_sub((*seconds).into())),
        Some(Baseline::Change) => counts.at_change(snapshot.installed_at),
        Some(Baseline::Mark(name)) => counts.at_mark(name),
    };
    let baseline = match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(not_kept(args.since.as_ref(), counts));
        }
        found => found.context("read the kept counters")?,
    };
    Ok(baseline.subtracted_from(snapshot))
}

/// Returns the error of a baseline that is not kept, with the ones that can be used instead.
fn not_kept(since: Option<&Baseline>, counts: &CountHistory) -> anyhow::Error {
    let marks = counts.marks();
    let marks = if marks.is_empty() { "there is none yet".to_owned() } else { marks.join(", ") };
    match since {
        Some(Baseline::Mark(name)) => Usage(format!(
            "no mark has the name {name}: `pomguard stats --mark {name}` sets it; the marks: {marks}"
        ))
        .into(),
        _ => anyhow!(
            "the daemon has kept no reading of the counters for this time yet; `pomguard stats` without --since shows \
             all that was counted"
        ),
    }
}

/// Runs the command. `read` takes a snapshot of the maps, `flows` reads the live flows.
pub fn run(
    args: &StatsArgs,
    read: &dyn Fn() -> Result<Snapshot>,
    flows: &dyn Fn() -> Option<Flows>,
    counts: &CountHistory,
    out: &mut Output,
) -> Result<ExitCode> {
    if let Some(name) = &args.mark {
        let reading = CountReading::new(&read()?, seconds_now());
        counts.save(&ReadingKind::Mark(name.clone()), &reading).context("keep the mark")?;
        out.line(format_args!("mark {name} is set: `pomguard stats --since {name}` counts from now on"));
        return Ok(ExitCode::SUCCESS);
    }
    let read = &|| reading(args, read()?, counts);
    if args.json && args.watch.is_none() {
        out.json(&WithFlows { snapshot: read()?, flows: flows() })?;
        return Ok(ExitCode::SUCCESS);
    }
    let screen = Screen::new(out);
    print(args, read, out, screen, None)?;
    let all = !(args.json || args.watch.is_some() || args.rows_only || args.reasons_only || args.hit);
    if all && let Some(flows) = flows() {
        let when = match (flows.after_bypass, flows.if_enforced) {
            (true, _) => ", when the bypass ends",
            (false, true) => ", if what is in audit were enforced now",
            (false, false) => "",
        };
        out.line("");
        out.folded(format!("live flows: {}{when}\n", flows::numbers(&flows.impact)).as_bytes());
        for line in flows::losers(&flows.impact) {
            out.line(format_args!("  {line}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A snapshot of the counters and the flows, for programs.
#[derive(Serialize)]
struct WithFlows {
    #[serde(flatten)]
    snapshot: Snapshot,
    /// `None` if the flows cannot be read. The key `flows` is that of the flow table.
    #[serde(rename = "live_flows")]
    flows: Option<Flows>,
}

/// Properties of the terminal, pipe or file that receives the text.
#[derive(Clone, Copy, Default)]
struct Screen {
    width: Option<u16>,
    colour: bool,
    /// True if each frame overwrites the previous frame; otherwise each frame follows the previous one.
    redraw: bool,
}

impl Screen {
    fn new(out: &Output) -> Self {
        let width = out.width();
        Self { width, colour: out.colour(), redraw: width.is_some() && !is_dumb() }
    }
}

/// Prints once, or with --watch until `frames` are shown. `None`: until a write fails.
fn print(
    args: &StatsArgs,
    read: &dyn Fn() -> Result<Snapshot>,
    out: &mut Output,
    screen: Screen,
    frames: Option<usize>,
) -> Result<()> {
    let part = match (args.rows_only, args.reasons_only) {
        (true, _) => Part::Rows,
        (_, true) => Part::Reasons,
        _ => Part::All,
    };
    let options =
        || StatsView { width: screen.width, colour: screen.colour, now: seconds_now(), part, hit: args.hit };
    let mut before = read()?;
    let mut taken = Instant::now();
    let Some(interval) = args.watch.map(Duration::from_secs) else {
        if args.json {
            out.json(&before)?;
        } else {
            print_stats(&before, out, options())?;
        }
        return Ok(());
    };

    let mut shown = 0;
    if args.json {
        print_line(&before, out)?;
        shown += 1;
    } else {
        let mut frame = Vec::new();
        print_stats(&before, &mut frame, options())?;
        print_frame(&frame, out, screen.redraw);
        shown += 1;
    }
    while frames.is_none_or(|frames| shown < frames) && !out.is_lost() {
        thread::sleep(interval);
        let now = read().context("the maps could be read before, and no longer")?;
        let elapsed = taken.elapsed();
        taken = Instant::now();
        if args.json {
            print_line(&now, out)?;
        } else {
            let mut frame = Vec::new();
            print_watch(&before, &now, elapsed, &mut frame, options())?;
            print_frame(&frame, out, screen.redraw);
        }
        before = now;
        shown += 1;
    }
    Ok(())
}

fn print_line(snapshot: &Snapshot, out: &mut Output) -> Result<()> {
    out.line(serde_json::to_string(snapshot)?);
    out.push();
    Ok(())
}

/// Writes a frame in one write, without clearing the screen first, so that the screen does not flicker.
fn print_frame(frame: &[u8], out: &mut Output, redraw: bool) {
    let mut text = Vec::with_capacity(frame.len() + 256);
    if redraw {
        // Home; after each line, clear the rest of an earlier, longer line; at the end, clear everything below.
        text.extend_from_slice(b"\x1b[H");
        for line in frame.split_inclusive(|&byte| byte == b'\n') {
            text.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            text.extend_from_slice(b"\x1b[K\n");
        }
        text.extend_from_slice(b"\x1b[J");
    } else {
        text.extend_from_slice(frame);
        text.push(b'\n');
    }
    out.write_bytes(&text);
    out.push();
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::tests::{Gone, Paper},
        observe::{golden::assert_golden, sample},
    };

    fn args(line: &[&str]) -> StatsArgs {
        StatsArgs::try_parse_from([&["stats"], line].concat()).unwrap()
    }

    fn output(line: &[&str], frames: usize) -> String {
        let paper = Paper::default();
        let mut out = Output::to(paper.clone());
        let read = || Ok(sample::snapshot());
        print(&args(line), &read, &mut out, Screen::default(), Some(frames)).unwrap();
        out.push();
        paper.text()
    }

    #[test]
    fn json_has_the_keys_that_programs_were_promised() {
        let json = output(&["--json"], 1);
        assert_golden("stats.json", &json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        for pointer in [
            "/host",
            "/generation",
            "/inbound",
            "/outbound",
            "/attach/0/interface",
            "/attach/0/xdp",
            "/rows/0/id",
            "/rows/0/direction",
            "/rows/0/packets",
            "/rows/0/bytes",
            "/rows/0/connections",
            "/reasons/0/name",
            "/reasons/0/direction",
            "/reasons/0/verdict",
            "/reasons/0/packets",
            "/reasons/0/bytes",
            "/flows/entries",
            "/flows/capacity",
        ] {
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn watched_json_is_one_object_per_line() {
        let lines = output(&["--json", "--watch", "1"], 2);
        assert_eq!(lines.lines().count(), 2);
        for line in lines.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok());
        }
    }

    #[test]
    fn watching_shows_the_counters_first_and_then_rates() {
        let text = output(&["--watch"], 2);
        let (counters, rates) = text.split_once("per second over").unwrap();
        assert!(counters.contains("connections") && rates.contains("packets/s"), "{text}");
    }

    #[test]
    fn a_redrawn_frame_leaves_nothing_of_the_one_before() {
        let paper = Paper::default();
        print_frame(b"one\ntwo\n", &mut Output::to(paper.clone()), true);
        assert_eq!(paper.text(), "\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J");
    }

    #[test]
    fn watching_ends_when_nobody_takes_the_output() {
        for line in [&["--json", "--watch"][..], &["--watch"]] {
            let read = || Ok(sample::snapshot());
            let mut out = Output::to(Gone(100, io::ErrorKind::BrokenPipe));
            print(&args(line), &read, &mut out, Screen::default(), None).unwrap();
            assert!(out.is_lost(), "{line:?}");
        }
    }

    #[test]
    fn a_reading_that_fails_is_the_error() {
        let read = || Err(anyhow::anyhow!("no pinned maps"));
        let mut out = Output::to(Paper::default());
        let result = print(&args(&[]), &read, &mut out, Screen::default(), None);
        assert_eq!(result.unwrap_err().to_string(), "no pinned maps");
    }

    #[test]
    fn the_interval_has_bounds_and_the_parts_exclude_each_other() {
        assert_eq!(args(&["--watch"]).watch, Some(1));
        assert_eq!(args(&["--watch", "5"]).watch, Some(5));
        for wrong in [&["--watch", "0"][..], &["--rows-only", "--reasons-only"], &["--rows-only", "--json"]] {
            assert!(StatsArgs::try_parse_from([&["stats"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
