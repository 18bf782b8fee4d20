//! `pomguard history`: the recorded changes of policy.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::{FAULT, output::Output};
use crate::{
    history::{By, Damaged, Event, History, Outcome, Record},
    observe::printable::printable,
    paths,
    render::{
        grid::{Column, Grid, Tone},
        quantity::timestamp,
    },
};

/// Options of `history`.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
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
pub fn run(args: &HistoryArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings_in_use(&args.config, out);
    let history = History::open(&settings.paths.state);
    if args.emergency {
        let events = history.events()?;
        if args.json {
            out.json(&events)?;
        } else {
            let mut text = Vec::new();
            print_events(&events, &mut text, out.width(), out.colour())?;
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
        print(&records, &mut text, out.width(), out.colour())?;
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

/// Returns the emphasis of a change by its outcome. The column `became` says the same in words.
const fn tone(outcome: &Outcome) -> Tone {
    match outcome {
        Outcome::InForce => Tone::Plain,
        Outcome::Pending(_) | Outcome::NotConfirmed => Tone::Warning,
        Outcome::Replaced | Outcome::RolledBack => Tone::Faint,
        Outcome::Failed(_) => Tone::Alarm,
    }
}

/// Returns the emphasis of an emergency command: the policy is suspended from this line on, or not.
fn event_tone(verb: &str) -> Tone {
    match verb {
        "bypass" | "lockdown" => Tone::Warning,
        _ => Tone::Plain,
    }
}

fn print_events(events: &[Event], out: &mut impl Write, width: Option<u16>, colour: bool) -> io::Result<()> {
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
            event_tone(&event.verb),
            [
                timestamp(event.at),
                printable(&event.verb).into_owned(),
                printable(&user(event.by.as_ref())).into_owned(),
                printable(&event.about).into_owned(),
                printable(event.why.as_deref().unwrap_or("-")).into_owned(),
            ],
        );
    }
    out.write_all(text.text(width, colour).as_bytes())
}

fn print(records: &[Record], out: &mut impl Write, width: Option<u16>, colour: bool) -> io::Result<()> {
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
            tone(&record.outcome),
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
    out.write_all(text.text(width, colour).as_bytes())?;
    for record in records.iter().filter(|record| !record.settings.is_empty()) {
        for setting in &record.settings {
            writeln!(out, "change {}: {}", record.number, printable(&setting.text()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Pending, record_tests::record},
        render::text::tests::without_colour,
    };

    fn text(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        print(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_outcome_and_event_is_plain_without_colour() {
        // The library of the tables leaves colours out if the environment asks for that.
        if std::env::var_os("NO_COLOR").is_some() {
            return;
        }
        let pending = Pending { until: 1_796_076_689, boot: "boot".to_owned() };
        let records: Vec<Record> = [
            Outcome::Pending(pending),
            Outcome::InForce,
            Outcome::Replaced,
            Outcome::NotConfirmed,
            Outcome::RolledBack,
            Outcome::Failed("no room".to_owned()),
        ]
        .into_iter()
        .map(|outcome| record(1, "files", outcome))
        .collect();
        let changes = |colour| text(|out| print(&records, out, Some(80), colour));
        assert_eq!(without_colour(&changes(true)), changes(false));
        let emphasised =
            |word: &str| changes(true).lines().any(|line| line.contains(word) && line.contains('\u{1b}'));
        for word in ["waits", "nobody", "replaced", "rolled", "failed"] {
            assert!(emphasised(word), "{word}: {}", changes(true));
        }
        assert!(!emphasised("in force"), "{}", changes(true));

        let event = |verb: &str| Event {
            at: 1_796_076_689,
            verb: verb.to_owned(),
            about: format!("{verb} for 2 h"),
            by: None,
            why: None,
        };
        let events = ["bypass", "lockdown", "allow"].map(event);
        let listed = |colour| text(|out| print_events(&events, out, Some(80), colour));
        assert_eq!(without_colour(&listed(true)), listed(false));
        let coloured: Vec<bool> = listed(true).lines().skip(2).map(|line| line.contains('\u{1b}')).collect();
        assert_eq!(coloured, [true, true, false]);
    }
}
