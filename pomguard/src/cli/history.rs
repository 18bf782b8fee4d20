//! `pomguard history`: every change of policy that is kept.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::{FAULT, output::Output};
use crate::{
    history::{Damaged, History, Record},
    observe::printable::printable,
    paths,
    render::{
        quantity::timestamp,
        table::{align_right, lines, table},
    },
};

/// Options of `history`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0; 1 when some of it is damaged.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings(&args.config, out);
    let (records, damaged) = History::open(&settings.paths.state).list();
    if args.json {
        out.json(&records)?;
    } else {
        print(&records, out)?;
    }
    for Damaged { path, problem } in &damaged {
        out.complain(format_args!(
            "pomguard: {} is damaged: {problem}; it cannot be returned to",
            path.display()
        ));
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAULT) })
}

fn print(records: &[Record], out: &mut impl Write) -> io::Result<()> {
    if records.is_empty() {
        return writeln!(out, "no change of policy is kept yet");
    }
    let mut text = table(&["change", "when", "cause", "by", "rows", "became", "why"]);
    align_right(&mut text, 0);
    for record in records {
        let by = record.by.as_ref().map_or_else(
            || "the daemon".to_owned(),
            |by| {
                by.claimed
                    .as_ref()
                    .map_or_else(|| format!("uid {}", by.uid), |name| format!("uid {} ({name})", by.uid))
            },
        );
        text.add_row([
            record.number.to_string(),
            timestamp(record.at),
            record.cause.to_string(),
            printable(&by).into_owned(),
            record.summary.to_string(),
            printable(&record.outcome.text()).into_owned(),
            printable(record.why.as_deref().unwrap_or("-")).into_owned(),
        ]);
    }
    for line in lines(&text) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
