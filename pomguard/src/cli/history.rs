//! `pomguard history`: the recorded changes of policy.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::{FAULT, output::Output};
use crate::{
    history::{By, Damaged, Event, History, Record},
    observe::printable::printable,
    paths,
    render::{
        grid::{Column, Grid, Tone},
        quantity::timestamp,
    },
};

/// Options of `history`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// List emergency actions instead: bypass, lockdown, exceptions, and flows that were cut or kept
    #[arg(long)]
    pub emergency: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Returns exit code 0, or 1 if some records are damaged.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings(&args.config, out);
    let history = History::open(&settings.paths.state);
    if args.emergency {
        let events = history.events()?;
        if args.json {
            out.json(&events)?;
        } else {
            let mut text = Vec::new();
            print_events(&events, &mut text, out.width())?;
            out.folded(&text);
        }
        return Ok(ExitCode::SUCCESS);
    }
    history.readable()?;
    let (records, damaged) = history.list();
    if args.json {
        out.json(&records)?;
    } else {
        let mut text = Vec::new();
        print(&records, &mut text, out.width())?;
        out.folded(&text);
    }
    for Damaged { path, problem } in &damaged {
        out.complain(format_args!(
            "pomguard: {} is damaged: {problem}; it cannot be returned to",
            path.display()
        ));
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAULT) })
}

/// Formats the user who asked for a change.
fn user(by: Option<&By>) -> String {
    match by {
        None => "the daemon".to_owned(),
        Some(By { uid, claimed: None, .. }) => format!("uid {uid}"),
        Some(By { uid, claimed: Some(name), .. }) => format!("uid {uid} ({name})"),
    }
}

fn print_events(events: &[Event], out: &mut impl Write, width: Option<u16>) -> io::Result<()> {
    if events.is_empty() {
        return writeln!(out, "no emergency verb is kept yet");
    }
    let mut text = Grid::new([
        Column::text("when"),
        Column::text("verb").wraps_from(8),
        Column::text("by").wraps_from(8),
        Column::text("about").wraps_from(16),
        Column::text("why").wraps_from(12),
    ]);
    for event in events {
        text.row(
            Tone::Plain,
            [
                timestamp(event.at),
                printable(&event.verb).into_owned(),
                printable(&user(event.by.as_ref())).into_owned(),
                printable(&event.about).into_owned(),
                printable(event.why.as_deref().unwrap_or("-")).into_owned(),
            ],
        );
    }
    out.write_all(text.text(width, false).as_bytes())
}

fn print(records: &[Record], out: &mut impl Write, width: Option<u16>) -> io::Result<()> {
    if records.is_empty() {
        return writeln!(out, "no change of policy is kept yet");
    }
    let mut text = Grid::new([
        Column::number("change"),
        Column::text("when"),
        Column::text("cause").wraps_from(6),
        Column::text("by").wraps_from(6),
        Column::text("rows").wraps_from(8),
        Column::text("became").wraps_from(9),
        Column::text("why").wraps_from(8),
    ]);
    for record in records {
        text.row(
            Tone::Plain,
            [
                record.number.to_string(),
                timestamp(record.at),
                format!("{}{}", record.cause, record.existing.option()),
                printable(&user(record.by.as_ref())).into_owned(),
                record.summary.to_string(),
                printable(&record.outcome.text()).into_owned(),
                printable(record.why.as_deref().unwrap_or("-")).into_owned(),
            ],
        );
    }
    out.write_all(text.text(width, false).as_bytes())?;
    for record in records.iter().filter(|record| !record.settings.is_empty()) {
        for setting in &record.settings {
            writeln!(out, "change {}: {}", record.number, printable(&setting.text()))?;
        }
    }
    Ok(())
}
