//! `pomguard plan`: shows the changes that the files would make, without changing anything.

use std::{collections::HashSet, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::{ATTENTION, output::Output, own_addresses, session};
use crate::{
    history::{self, History, Record},
    input::{Draft, Files, Settings, settings::Paths},
    kernel::{
        KernelError,
        clock::unix_now,
        interface, machine,
        pins::Pins,
        seed,
        sockets::{self, Connection},
    },
    observe::{reading, recent::Recent, snapshot::Snapshot},
    paths,
    policy::{
        Policy,
        conflict::{self, Weight},
        diff::Diff,
        impact::{Impact, WayIn},
        oracle::Opening,
        resolve,
    },
    render::plan::{Guards, InForce, Plan},
    state::exceptions,
};

/// Options of `plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Returns exit code 0 if the files are in force already, 3 if they would change something, 1 if they are
/// wrong.
pub fn run(args: &PlanArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let mut files = Files::of_process();
    let plan = make(&args.config, &mut files);
    // An ordinary user may not read the history, and learns about the files all the same.
    for concern in files.concerns() {
        out.complain(format_args!("pomguard: warning: the service refuses this: {concern}"));
    }
    let plan = plan?;
    if args.json {
        out.json(&plan)?;
    } else {
        let mut text = Vec::new();
        plan.print(&mut text)?;
        out.folded(&text);
    }
    Ok(if plan.changes() { ExitCode::from(ATTENTION) } else { ExitCode::SUCCESS })
}

/// Compares the files with the policy in force, and with the live flows.
fn make(config: &std::path::Path, files: &mut Files) -> anyhow::Result<Plan> {
    let draft = Draft::read(files, config)?;
    let new = resolve(&draft, &interface::addresses()?)?;
    let here = own_addresses::present(&draft.settings).unwrap_or_default();
    let new = new.on(&here);
    let used = super::paths::in_use(&draft.settings);
    let Compared { in_force, before, counters } = in_force(&used)?;
    let before = before.map(|(draft, policy)| (draft, policy.on(&here)));
    let old = before.as_ref().map(|(_, policy)| policy);
    let diff = before
        .as_ref()
        .map(|(old, policy)| Diff::between(policy, &new).with_settings(&old.settings, &draft.settings));
    let guards = guards(&draft.settings, &used, before.as_ref().map(|(old, _)| &old.settings));
    let recent = diff
        .as_ref()
        .zip(counters)
        .map(|(diff, counters)| Recent::from_diff(diff, &new, &counters, unix_now()));
    let mut all = sockets::connections().context("list the connections of this server")?;
    // The kernel lists connections in no order, but two plans of one state must be equal.
    all.sort_unstable();
    let is_ours = |address| new.is_own(address) || here.is_guarded(address);
    let ours: Vec<Connection> = all.into_iter().filter(|it| is_ours(it.local.ip())).collect();
    let live: Vec<Opening> = ours.iter().map(Connection::opening).collect();
    let older: HashSet<Opening> = match &in_force {
        // Connections from before the first start need no row.
        InForce::Nothing => live.iter().copied().collect(),
        InForce::OtherLayout { .. } => HashSet::new(),
        InForce::Change { .. } | InForce::Unknown { .. } => {
            let unjudged = seed::unjudged(&Pins::new(&used.pins), &ours).context("read the flow table")?;
            unjudged.iter().map(Connection::opening).collect()
        }
    };
    // An exception file that cannot be read allows nothing.
    let exceptions = exceptions::load(&used.state).unwrap_or_default();
    let excepted = |opening: &Opening| exceptions.iter().any(|held| held.allows(opening, unix_now()));
    let impact = Impact::new(old, &new, &live, |opening| older.contains(opening), excepted);
    let session = session::ssh().filter(|session| is_ours(session.destination));
    let way_in = session.map(|session| (session, WayIn::under(&new, &session)));
    let failsafe = new.rows.iter().any(|row| row.failsafe && !row.peers.is_empty());
    let in_audit = conflict::in_audit(&new);
    let (inbound, outbound) = (new.inbound, new.outbound);
    let machine = machine::compare(&draft.settings, &new).context("compare the files with this machine")?;
    let machine = machine.into_iter().filter(|note| note.weight() == Weight::Warning);
    let machine = super::paths::note(&used, &draft.settings).into_iter().chain(machine).collect();
    Ok(Plan {
        in_force,
        guards,
        machine,
        inbound,
        outbound,
        diff,
        impact,
        recent,
        way_in,
        failsafe,
        in_audit,
    })
}

/// Returns the changes that the files would make to the guards of interfaces, compared with the settings
/// before.
fn guards(settings: &Settings, used: &Paths, before: Option<&Settings>) -> Guards {
    let named = |settings: &Settings| -> Vec<String> {
        settings.interfaces.iter().map(|at| at.value.clone()).collect()
    };
    let linked: Vec<String> = Pins::new(&used.pins)
        .linked("xdp")
        .into_iter()
        .filter(|name| interface::index(name).is_ok())
        .collect();
    let then = named(settings);
    let now = before.map_or_else(|| linked.clone(), named);
    let unnamed = |name: &String| !then.contains(name) && linked.contains(name);
    let (lost, kept) =
        linked.iter().filter(|name| unnamed(name)).cloned().partition(|name| now.contains(name));
    let gained = then.into_iter().filter(|name| before.is_some() && !now.contains(name)).collect();
    Guards { lost, gained, kept }
}

/// The state that the files are compared with.
struct Compared {
    in_force: InForce,
    /// The files and the policy in force, if the history has them.
    before: Option<(Draft, Policy)>,
    /// The counters, if they can be read.
    counters: Option<Snapshot>,
}

/// Returns the state in force. The history finds the policy by its image.
fn in_force(used: &Paths) -> anyhow::Result<Compared> {
    let history = History::open(&used.state);
    history.readable()?;
    let uncounted = |in_force, before| Compared { in_force, before, counters: None };
    let snapshot = match reading::snapshot(&Pins::new(&used.pins)) {
        Ok(snapshot) => snapshot,
        Err(KernelError::NotInstalled { .. }) => return Ok(uncounted(InForce::Nothing, None)),
        // Only the history knows the policy in maps of another layout.
        Err(KernelError::Layout { found, .. }) => {
            let (records, _) = history.list();
            let Some(record) = history::in_force(&records) else {
                return Ok(uncounted(InForce::OtherLayout { found, number: None }, None));
            };
            let before = history.policy(record)?;
            let number = Some(record.number);
            return Ok(uncounted(InForce::OtherLayout { found, number }, Some(before)));
        }
        Err(error) => return Err(error).context("read what is in force"),
    };
    let (records, _) = history.list();
    let is_it = |record: &&Record| record.image == snapshot.image;
    // Changes that affect only settings share one image.
    let is_this = |record: &&Record| is_it(record) && u64::from(record.generation) == snapshot.generation;
    let current = history::in_force(&records).filter(is_it);
    let record = records.iter().rfind(is_this).or(current).or_else(|| records.iter().rfind(is_it));
    let Some(record) = record else {
        return Ok(uncounted(InForce::Unknown { image: snapshot.image }, None));
    };
    let before = history.policy(record)?;
    let in_force = InForce::Change { number: record.number, at: record.at };
    Ok(Compared { in_force, before: Some(before), counters: Some(snapshot) })
}
