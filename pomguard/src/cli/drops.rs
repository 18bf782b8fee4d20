//! `pomguard drops`: the denied peers, with ports and reasons.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use ipnet::IpNet;
use pomguard_common::reason::Reason;

use super::{allow::named, duration, output::Output};
use crate::{
    input::Draft,
    kernel::{KernelError, clock::unix_now, drops, interface, pins::Pins},
    observe::{
        drops::{
            ledger::{Hour, Ledger},
            report::{DropsReport, Query},
            store::Store,
        },
        passes::passes,
        reading,
    },
    paths,
    policy::{self, Policy},
    render,
};

/// Shows the denied peers, ports and reasons; in audit, the would-be drops.
///
/// Known systems come first: a drop of a known system is probably a mistake in the files. Packets of strangers
/// are added up by prefix (/24, /48). The daemon need not run.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct DropsArgs {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Drops since that time ago (`1h`, `7d`), in steps of an hour, or since the last change of policy
    /// (`change`)
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Show only known systems
    #[arg(long, conflicts_with = "strangers")]
    pub known: bool,
    /// Show only strangers
    #[arg(long)]
    pub strangers: bool,
    /// Show only one reason, by the name in `pomguard stats`
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Option<Reason>,
    /// Show only peers with this address, in this prefix, or of this host, peer or system of the site file; a stranger
    /// is recorded by prefix, and a line that stands for a prefix says so
    #[arg(long, value_name = "ADDRESS[/LENGTH]|NAME")]
    pub peer: Option<String>,
    /// Show only one service port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Show every line; with --follow, also what passes, by row and reason
    #[arg(long)]
    pub all: bool,
    /// Show drops as they happen, added up per second, until interrupted
    #[arg(long, conflicts_with = "since")]
    pub follow: bool,
    /// Print one JSON object; with --follow, one per peer and port, each on a line
    #[arg(long)]
    pub json: bool,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A number of seconds ago.
    Ago(u32),
    /// The last change of policy.
    Change,
}

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        if written == "change" {
            return Ok(Self::Change);
        }
        duration::seconds(written).map(Self::Ago).map_err(|error| format!("{error}, or `change`"))
    }
}

fn reason(written: &str) -> Result<Reason, String> {
    let named = Reason::ALL.iter().find(|reason| reason.name() == written);
    named.copied().ok_or_else(|| "no such reason: `pomguard stats` shows their names".to_owned())
}

/// Parses an address or a prefix.
fn prefix(written: &str) -> Option<IpNet> {
    let address = || written.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    written.parse().or_else(|_| address()).ok()
}

/// Returns the prefixes of an address, of a prefix or of a name of the site file; none if nothing is written. Only a
/// name needs the files.
///
/// # Errors
/// Wrong usage if the text is neither an address nor a name with an address.
pub(super) fn peers(written: Option<&str>, config: &Path) -> anyhow::Result<Vec<IpNet>> {
    let Some(written) = written else { return Ok(Vec::new()) };
    if let Some(prefix) = prefix(written) {
        return Ok(vec![prefix]);
    }
    let form = "write an address, one with `/` and a length, or a host, peer or system of the site file";
    named(written, config).with_context(|| format!("--peer {written}: {form}"))
}

/// Runs the command.
pub fn run(args: &DropsArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings_in_use(&args.config, out);
    let pins = Pins::new(&settings.paths.pins);
    let mut warnings = Vec::new();
    let policy = names(args, &mut warnings);
    let now = unix_now();
    let mut query = Query {
        since: 0,
        // A machine with a name is no stranger, although the prefix of a stranger can cover its address.
        known: if args.strangers {
            Some(false)
        } else {
            (args.known || args.peer.as_deref().is_some_and(|peer| prefix(peer).is_none())).then_some(true)
        },
        reason: args.reason,
        peers: peers(args.peer.as_deref(), &args.config)?,
        port: args.port,
    };
    if args.follow {
        for warning in warnings {
            out.complain(format_args!("pomguard: warning: {warning}"));
        }
        return follow(args, &pins, &query, policy.as_ref(), out);
    }
    let (all, since) = collect(&pins, &Store::new(&settings.paths.state), args.since, now, &mut warnings)?;
    query.since = since;
    let report = DropsReport::new(&all, &query, policy.as_ref(), now);
    if args.json {
        out.json(&report)?;
    } else {
        let mut text = Vec::new();
        render::drops::print(&report, args.all, &mut text)?;
        out.write_bytes(&text);
    }
    for warning in warnings {
        out.complain(format_args!("pomguard: warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the table every second and shows the new drops, until a write fails.
fn follow(
    args: &DropsArgs,
    pins: &Pins,
    query: &Query,
    policy: Option<&Policy>,
    out: &mut Output,
) -> anyhow::Result<ExitCode> {
    let read = || drops::read(pins).context("read the table of drops");
    let counted = || reading::snapshot(pins).context("read the counters");
    let json = args.json;
    let mut ledger = Ledger::default();
    ledger.account(&read()?);
    let mut before = if args.all { Some(counted()?) } else { None };
    while !out.is_lost() {
        thread::sleep(Duration::from_secs(1));
        let reading = read()?;
        // The sum is not needed here, and would grow.
        ledger.hour = Hour::default();
        let report = DropsReport::new(&ledger.account(&reading), query, policy, reading.at);
        if json {
            for item in &report.drops {
                out.line(serde_json::to_string(item)?);
            }
            for rest in &report.rest {
                out.line(serde_json::to_string(rest)?);
            }
        } else {
            let mut text = Vec::new();
            render::drops::print_lines(&report, &mut text)?;
            out.write_bytes(&text);
        }
        if let Some(last) = &before {
            let now = counted()?;
            for pass in passes(last, &now) {
                if json {
                    out.line(serde_json::to_string(&pass)?);
                } else {
                    out.line(render::drops::pass_line(&pass));
                }
            }
            before = Some(now);
        }
        out.push();
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the policy of the files, for names. Without a policy, only addresses are shown.
fn names(args: &DropsArgs, warnings: &mut Vec<String>) -> Option<Policy> {
    let read = || -> anyhow::Result<Policy> {
        let draft = Draft::load(&args.config)?;
        Ok(policy::resolve(&draft, &interface::addresses()?)?)
    };
    read().map_err(|error| warnings.push(format!("no names, because the files are refused: {error:#}"))).ok()
}

/// Adds up the drops on disk and the newer drops in the kernel. Also returns the time from which the drops are
/// counted.
pub(super) fn collect(
    pins: &Pins,
    store: &Store,
    since: Option<Since>,
    now: u64,
    warnings: &mut Vec<String>,
) -> anyhow::Result<(Hour, u64)> {
    let reading = match drops::read(pins) {
        Ok(reading) => Some(reading),
        Err(KernelError::NotInstalled { .. }) => None,
        Err(error) => return Err(error).context("read the table of drops"),
    };
    let since = match (since, &reading) {
        (None, _) => 0,
        (Some(Since::Ago(seconds)), _) => now.saturating_sub(seconds.into()),
        (Some(Since::Change), Some(reading)) => reading.installed_at,
        (Some(Since::Change), None) => {
            anyhow::bail!("nothing is in force here: `--since change` has no meaning")
        }
    };
    let mut ledger = store.ledger().unwrap_or_else(|error| {
        warnings.push(error.to_string());
        None
    });
    if reading.is_none() && ledger.is_none() {
        warnings.push("nothing is in force here, and nothing is kept on disk".to_owned());
    }
    let (hours, unreadable) = store.hours(since, ledger.as_ref().map_or(0, |ledger| ledger.hour.hour));
    warnings.extend(unreadable.iter().map(ToString::to_string));
    let mut all = Hour::default();
    for hour in &hours {
        all.merge(hour);
    }
    let ledger = ledger.get_or_insert_with(Ledger::default);
    if let Some(reading) = &reading {
        ledger.account(reading);
    }
    all.merge(&ledger.hour);
    Ok((all, since))
}
