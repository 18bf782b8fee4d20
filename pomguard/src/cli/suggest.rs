//! `pomguard suggest`: writes rows for denied packets, as text for the site file.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use ipnet::IpNet;

use super::{
    drops::{Since, collect, peer},
    output::Output,
};
use crate::{
    input::{Draft, Sources, sources::Source},
    kernel::{clock::unix_now, interface, pins::Pins},
    observe::drops::{
        report::{Item, Query, Report},
        store::Store,
    },
    paths,
    policy::{self, Policy, oracle::judge},
    render::suggest::{Suggestion, opening, suggest, with_rows},
};

/// Writes rows for denied packets, to be reviewed and pasted into the site file.
///
/// Covers only known systems, unless --strangers is given. Each row names one address and exactly the ports
/// that were seen. Nothing is put in force: read the rows, remove the rows that should stay denied, paste the
/// others, and run `pomguard plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
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
    /// Use only peers with this address, or in this prefix
    #[arg(long, value_name = "ADDRESS[/LENGTH]", value_parser = peer)]
    pub peer: Option<IpNet>,
    /// Use only one port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    let draft = Draft::load(&args.config)?;
    let addresses = interface::addresses()?;
    let policy = policy::resolve(&draft, &addresses)?;
    let paths = &draft.settings.paths;
    let mut warnings = Vec::new();
    let now = unix_now();
    let (all, since) =
        collect(&Pins::new(&paths.pins), &Store::new(&paths.state), args.since, now, &mut warnings)?;
    let known = if args.strangers { None } else { Some(true) };
    let query = Query { since, known, peer: args.peer, port: args.port, ..Query::default() };
    // A drop that a row allows by now needs no new row.
    let mut items = Report::new(&all, &query, Some(&policy), now).drops;
    items.retain(|item| !is_allowed(item, &policy));
    let taken: BTreeSet<String> = draft.site.allows.iter().map(|allow| allow.name.value.clone()).collect();
    let suggestion = suggest(&items, &policy, &taken);
    for warning in warnings {
        out.complain(format_args!("pomguard: warning: {warning}"));
    }
    if suggestion.rows == 0 {
        out.line("# nothing to suggest: no denied packet lacks a row");
    } else {
        check(&draft, &addresses, &suggestion, &items)?;
        out.line(format_args!(
            "# {} rows for {}, by what was denied. Read them, remove what should stay denied, and run `pomguard plan`.",
            suggestion.rows, policy.host
        ));
        out.write_bytes(suggestion.text.as_bytes());
    }
    for (reason, packets) in &suggestion.left {
        out.line(format_args!("# no row helps: {packets} packets, {reason}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns true if the files by now allow the denied packet.
fn is_allowed(item: &Item, policy: &Policy) -> bool {
    let local = policy.local.iter().filter(|local| item.peer.contains(':') == local.is_ipv6());
    let mut openings = local.filter_map(|local| opening(item, *local));
    openings.any(|opening| judge(policy, &opening).first.is_some())
}

/// Reads the site file with the rows added, and asks the policy about each packet: a row without the intended
/// effect is not shown.
fn check(draft: &Draft, addresses: &[IpAddr], suggestion: &Suggestion, items: &[Item]) -> anyhow::Result<()> {
    let sources = draft.sources();
    let site = Source { text: with_rows(&sources.site.text, &suggestion.text), ..sources.site.clone() };
    let after = Draft::from_sources(&Sources { site, ..sources }).context("the rows would be refused")?;
    let after = policy::resolve(&after, addresses).context("the rows would be refused")?;
    for item in items.iter().filter(|item| item.verdict != crate::observe::snapshot::Outcome::Pass) {
        let local = after.local.iter().copied().find(|local| item.peer.contains(':') == local.is_ipv6());
        let opening = local.and_then(|local| opening(item, local));
        if let Some(opening) = opening.filter(|opening| judge(&after, opening).first.is_none()) {
            bail!("no row lets {opening:?} pass: this is a fault in pomguard, report it");
        }
    }
    Ok(())
}
