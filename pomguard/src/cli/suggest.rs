//! `pomguard suggest`: writes rows for denied packets, as text for the site file.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use ipnet::IpNet;

use super::{
    drops::{Since, collect, peers},
    output::Output,
};
use crate::{
    input::{Draft, Sources, sources::Source},
    kernel::{clock::unix_now, interface, pins::Pins},
    observe::{
        drops::{
            report::{DropsReport, Item, Query},
            store::Store,
        },
        printable::printable,
    },
    paths,
    policy::{self, Policy, oracle::judge},
    render::{
        quantity,
        suggest::{Suggestion, opening, suggest, with_rows},
    },
};

/// Writes rows for denied packets, to be reviewed and pasted into the site file.
///
/// Covers only known systems, unless --strangers is given. Each row names one address and exactly the ports
/// that were seen. Nothing is put in force: read the rows, remove the rows that should stay denied, paste the
/// others, and run `pomguard plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct SuggestArgs {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Drops since that time ago (`1h`, `7d`), in steps of an hour, or since the last change of policy
    /// (`change`)
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Include strangers: of each prefix the address that came first
    #[arg(long)]
    pub strangers: bool,
    /// Use only peers with this address, in this prefix, or of this host, peer or system of the site file
    #[arg(long, value_name = "ADDRESS[/LENGTH]|NAME")]
    pub peer: Option<String>,
    /// Use only one port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Ask about each row at the terminal, and write only the rows that you accept
    #[arg(long)]
    pub interactive: bool,
}

/// Runs the command.
pub fn run(args: &SuggestArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let mut draft = Draft::load(&args.config)?;
    super::paths::go_by_those_in_use(&mut draft.settings, out);
    let addresses = interface::addresses()?;
    let policy = policy::resolve(&draft, &addresses)?;
    let paths = &draft.settings.paths;
    let mut warnings = Vec::new();
    let now = unix_now();
    let (all, since) =
        collect(&Pins::new(&paths.pins), &Store::new(&paths.state), args.since, now, &mut warnings)?;
    let known = if args.strangers { None } else { Some(true) };
    let peers = peers(args.peer.as_deref(), &args.config)?;
    let query = Query { since, known, peers, port: args.port, ..Query::default() };
    // A drop that a row allows by now needs no new row.
    let mut items = DropsReport::new(&all, &query, Some(&policy), now).drops;
    items.retain(|item| !is_allowed(item, &policy));
    // A row for a stranger names the address that came first, which may be another one than the one asked for.
    items.retain(|item| query.peers.is_empty() || is_among(item, &query.peers));
    let taken: BTreeSet<String> = draft.site.allows.iter().map(|allow| allow.name.value.clone()).collect();
    let mut suggestion = suggest(&items, &policy, &taken);
    for warning in warnings {
        out.complain(format_args!("pomguard: warning: {warning}"));
    }
    let found = suggestion.rows.len();
    if args.interactive && found > 0 {
        choose(&mut suggestion, out)?;
    }
    match (found, suggestion.rows.len()) {
        (0, _) => out.line("# nothing to suggest: no denied packet lacks a row"),
        (_, 0) => out.line("# no row was accepted"),
        (_, rows) => {
            check(&draft, &addresses, &suggestion)?;
            out.line(format_args!(
                "# {rows} {} for {}, by what was denied. Read them, remove what should\n\
                 # stay denied, paste the others into the site file, and run `pomguard plan`.",
                if rows == 1 { "row" } else { "rows" },
                policy.host
            ));
            out.write_bytes(suggestion.text().as_bytes());
        }
    }
    for (reason, packets) in &suggestion.left {
        out.line(format_args!("# no row helps: {}, {reason}", quantity::packets(*packets)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns true if the address of an item is in one of the prefixes.
fn is_among(item: &Item, prefixes: &[IpNet]) -> bool {
    item.peer.parse::<IpAddr>().is_ok_and(|peer| prefixes.iter().any(|prefix| prefix.contains(&peer)))
}

/// Keeps the rows that the person at the terminal accepts.
fn choose(suggestion: &mut Suggestion, out: &mut Output) -> anyhow::Result<()> {
    const UNATTENDED: &str = "--interactive needs a person at the terminal: without it, all rows are written";
    let all = std::mem::take(&mut suggestion.rows);
    let number = all.len();
    for (at, row) in all.into_iter().enumerate() {
        let whose = row.system.as_deref().map_or("a stranger".into(), printable);
        let question = format!(
            "{}\nrow {} of {number}, for {whose}. Accept it? [y]es, [n]o, [q]uit with the rows so far: ",
            row.text,
            at + 1
        );
        match answer(&mut || out.ask(&question, UNATTENDED))? {
            Choice::Yes => suggestion.rows.push(row),
            Choice::No => {}
            Choice::Quit => break,
        }
    }
    Ok(())
}

/// The answer of a person about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Yes,
    No,
    Quit,
}

/// Asks until the answer is one of the three. The end of the input quits.
fn answer(ask: &mut impl FnMut() -> anyhow::Result<String>) -> anyhow::Result<Choice> {
    loop {
        let line = ask()?;
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(Choice::Yes),
            "n" | "no" => return Ok(Choice::No),
            "q" | "quit" => return Ok(Choice::Quit),
            "" if line.is_empty() => return Ok(Choice::Quit),
            _ => {}
        }
    }
}

/// Returns true if the files by now allow the denied packet.
fn is_allowed(item: &Item, policy: &Policy) -> bool {
    let local = policy.local.iter().filter(|local| item.peer.contains(':') == local.is_ipv6());
    let mut openings = local.filter_map(|local| opening(item, *local));
    openings.any(|opening| judge(policy, &opening).first.is_some())
}

/// Reads the site file with the rows added, and asks the policy about each packet: a row without the intended
/// effect is not shown.
fn check(draft: &Draft, addresses: &[IpAddr], suggestion: &Suggestion) -> anyhow::Result<()> {
    let sources = draft.sources();
    let site = Source { text: with_rows(&sources.site.text, &suggestion.text()), ..sources.site.clone() };
    let after = Draft::from_sources(&Sources { site, ..sources }).context("the rows would be refused")?;
    let after = policy::resolve(&after, addresses).context("the rows would be refused")?;
    for item in suggestion.rows.iter().flat_map(|row| &row.items) {
        let local = after.local.iter().copied().find(|local| item.peer.contains(':') == local.is_ipv6());
        let opening = local.and_then(|local| opening(item, local));
        if let Some(opening) = opening.filter(|opening| judge(&after, opening).first.is_none()) {
            bail!("no row lets {opening:?} pass: this is a fault in pomguard, report it");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_asked_for_until_it_is_one() {
        let mut lines = ["perhaps\n", "\n", "YES\n", "n\n", ""].into_iter();
        let mut ask = || Ok(lines.next().unwrap_or_default().to_owned());
        let choices: Vec<Choice> = (0..3).map(|_| answer(&mut ask).unwrap()).collect();
        assert_eq!(choices, [Choice::Yes, Choice::No, Choice::Quit]);
    }
}
