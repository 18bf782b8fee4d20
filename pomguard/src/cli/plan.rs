//! `pomguard plan`: what the files would change, without changing anything.

use std::{collections::HashSet, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::{ATTENTION, machine, output::Output, session};
use crate::{
    history::{self, History, Record},
    input::{Draft, Files},
    kernel::{
        KernelError,
        clock::unix_now,
        interface,
        pins::Pins,
        seed,
        sockets::{self, Connection},
    },
    observe::{reading, recent::Recent, snapshot::Snapshot},
    paths,
    policy::{
        Policy, conflict,
        diff::Diff,
        impact::{Impact, WayIn},
        oracle::Opening,
        resolve,
    },
    render::plan::{InForce, Plan},
    state::exceptions,
};

/// Options of `plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when the files are in force already, 3 when they would change something, 1 when they are wrong.
pub fn run(args: &Args, out: &mut Output) -> anyhow::Result<ExitCode> {
    let mut files = Files::of_process();
    let plan = make(&args.config, &mut files)?;
    for concern in files.concerns() {
        out.complain(format_args!("pomguard: warning: the service refuses this: {concern}"));
    }
    if args.json {
        out.json(&plan)?;
    } else {
        plan.print(out)?;
    }
    Ok(if plan.changes() { ExitCode::from(ATTENTION) } else { ExitCode::SUCCESS })
}

/// Compares the files with what is in force, and with what goes on.
fn make(config: &std::path::Path, files: &mut Files) -> anyhow::Result<Plan> {
    let draft = Draft::read(files, config)?;
    let new = resolve(&draft, &interface::addresses()?)?;
    let new = machine::on(&draft.settings.interfaces, new.clone()).map_or(new, |(on, _)| on);
    let Compared { in_force, policy: old, counters } = in_force(&draft)?;
    let diff = old.as_ref().map(|old| Diff::between(old, &new));
    let recent = diff
        .as_ref()
        .zip(counters)
        .map(|(diff, counters)| Recent::from_diff(diff, &new, &counters, unix_now()));
    let all = sockets::connections().context("list the connections of this server")?;
    let ours: Vec<Connection> = all.into_iter().filter(|it| new.is_own(it.local.ip())).collect();
    let live: Vec<Opening> = ours.iter().map(Connection::opening).collect();
    let older: HashSet<Opening> = match &in_force {
        // What was there before the first start is asked for no row.
        InForce::Nothing => live.iter().copied().collect(),
        InForce::OtherLayout { .. } => HashSet::new(),
        InForce::Change { .. } | InForce::Unknown { .. } => {
            let pins = Pins::new(&draft.settings.paths.pins);
            let unjudged = seed::unjudged(&pins, &ours).context("read the flow table")?;
            unjudged.iter().map(Connection::opening).collect()
        }
    };
    // An exception file that cannot be read holds nothing.
    let exceptions = exceptions::load(&draft.settings.paths.state).unwrap_or_default();
    let excepted = |opening: &Opening| exceptions.iter().any(|held| held.allows(opening, unix_now()));
    let impact = Impact::new(old.as_ref(), &new, &live, |opening| older.contains(opening), excepted);
    let session = session::ssh().filter(|session| new.is_own(session.destination));
    let way_in = session.map(|session| (session, WayIn::under(&new, &session)));
    let failsafe = new.rows.iter().any(|row| row.failsafe && !row.peers.is_empty());
    let in_audit = conflict::in_audit(&new);
    let (inbound, outbound) = (new.inbound, new.outbound);
    Ok(Plan { in_force, inbound, outbound, diff, impact, recent, way_in, failsafe, in_audit })
}

/// What the files are compared with.
struct Compared {
    in_force: InForce,
    /// The policy that it is, if the history has it.
    policy: Option<Policy>,
    /// What its counters say, if they can be read.
    counters: Option<Snapshot>,
}

/// What is in force; the history knows its policy by its image.
fn in_force(draft: &Draft) -> anyhow::Result<Compared> {
    let history = History::open(&draft.settings.paths.state);
    let uncounted = |in_force, policy| Compared { in_force, policy, counters: None };
    let snapshot = match reading::snapshot(&Pins::new(&draft.settings.paths.pins)) {
        Ok(snapshot) => snapshot,
        Err(KernelError::NotInstalled { .. }) => return Ok(uncounted(InForce::Nothing, None)),
        // Of what its maps hold, only the history can tell.
        Err(KernelError::Layout { found, .. }) => {
            let (records, _) = history.list();
            let Some(record) = history::in_force(&records) else {
                return Ok(uncounted(InForce::OtherLayout { found, number: None }, None));
            };
            let (_, policy) = history.policy(record)?;
            let number = Some(record.number);
            return Ok(uncounted(InForce::OtherLayout { found, number }, Some(policy)));
        }
        Err(error) => return Err(error).context("read what is in force"),
    };
    let (records, _) = history.list();
    let is_it = |record: &&Record| record.image == snapshot.image;
    let Some(record) = records.iter().rfind(is_it) else {
        return Ok(uncounted(InForce::Unknown { image: snapshot.image }, None));
    };
    let (_, policy) = history.policy(record)?;
    let in_force = InForce::Change { number: record.number, at: record.at };
    Ok(Compared { in_force, policy: Some(policy), counters: Some(snapshot) })
}
