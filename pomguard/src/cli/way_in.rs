//! Refuses a change in advance if the change would cut the session of the command, or a live flow on a failsafe
//! row.

use std::process::ExitCode;

use super::{ATTENTION, output::Output, session};
use crate::{
    history::{self, History, Record},
    input::settings::Settings,
    kernel::{
        clock::unix_now,
        pins::Pins,
        sockets::{self, Connection},
    },
    observe::reading,
    policy::{Direction, Policy, impact::WayIn, oracle::Opening},
    render::explain::described,
    state::exceptions::{self, Exception},
};

/// Most flows that are named; the others are counted.
const NAMED: usize = 5;

/// A state of the host that a command would bring about.
pub(super) struct ToCome<'a> {
    /// The policy in force now; `None` if unknown.
    pub(super) before: Option<&'a Policy>,
    /// The policy in force after the change.
    pub(super) after: &'a Policy,
    /// True if only failsafe rows hold after the change.
    pub(super) failsafe_only: bool,
}

/// Asks the future policy about the session of this command and about the live flows on failsafe rows. If the
/// change is refused, prints the reasons and returns the exit code.
pub(super) fn refusal(to_come: &ToCome<'_>, settings: &Settings, out: &mut Output) -> Option<ExitCode> {
    // An exception file that cannot be read allows nothing here; the operator can still use `--yes`.
    let exceptions = exceptions::load(&settings.paths.state).unwrap_or_default();
    let live = sockets::connections().unwrap_or_default();
    let live: Vec<Opening> = live.iter().map(Connection::opening).collect();
    let words = complaints(to_come, &exceptions, &session::own(), &live);
    let (first, others) = words.split_first()?;
    out.complain(format_args!("pomguard: refused: {first}"));
    for other in others {
        out.complain(format_args!("pomguard: {other}"));
    }
    out.complain(
        "pomguard: nothing was changed. Add an [[allow]] with failsafe = true that covers it, or say --yes",
    );
    Some(ExitCode::from(ATTENTION))
}

/// Returns a sentence about the operator's own session if it is cut, and a sentence about flows on failsafe
/// rows that are cut.
fn complaints(
    to_come: &ToCome<'_>,
    exceptions: &[Exception],
    own: &[Opening],
    live: &[Opening],
) -> Vec<String> {
    let ToCome { before, after, failsafe_only } = *to_come;
    let now = unix_now();
    let cut = |opening: &Opening| {
        let excepted = !failsafe_only && exceptions.iter().any(|held| held.allows(opening, now));
        let way_in = WayIn::under(after, opening);
        is_own(after, opening)
            && !excepted
            && (way_in == WayIn::Cut || failsafe_only && way_in != WayIn::Failsafe)
    };
    let mut words = Vec::new();
    if let Some(session) = own.iter().find(|session| cut(session)) {
        words.push(format!("this would cut your own session ({})", described(session)));
    }
    let leaves: Vec<&Opening> = live
        .iter()
        .filter(|flow| {
            let failsafe = before.is_some_and(|before| WayIn::under(before, flow) == WayIn::Failsafe);
            failsafe && !own.contains(flow) && cut(flow)
        })
        .collect();
    if !leaves.is_empty() {
        let named = leaves.iter().take(NAMED).map(|flow| described(flow)).collect::<Vec<_>>().join(", ");
        let more = leaves.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        words.push(format!("this would cut live flows on a failsafe row that leaves: {named}{more}"));
    }
    words
}

/// Returns true if this host's end is an address that the policy gives to this host.
fn is_own(policy: &Policy, opening: &Opening) -> bool {
    let end = match opening.direction {
        Direction::Inbound => opening.destination,
        Direction::Outbound => opening.source,
    };
    policy.is_own(end)
}

/// Returns the policy in force, found by its image. Returns `None` if the history does not have the image, or
/// nothing is in force.
pub(super) fn in_force(settings: &Settings) -> Option<Policy> {
    let image = reading::snapshot(&Pins::new(&settings.paths.pins)).ok()?.image;
    let history = History::open(&settings.paths.state);
    let (records, _) = history.list();
    let record = records.iter().rfind(|record| record.image == image)?;
    Some(history.policy(record).ok()?.1)
}

/// Returns the policy that was confirmed last.
pub(super) fn confirmed(settings: &Settings) -> Option<Policy> {
    recorded(settings, |_, records| history::in_force(records))
}

/// Returns the policy that `pomguard rollback` would restore.
pub(super) fn rolled_back(settings: &Settings, to: Option<u64>) -> Option<Policy> {
    recorded(settings, |history, records| match to {
        Some(number) => records.iter().find(|record| record.number == number),
        None if history::pending(records).is_some() => history::in_force(records),
        None => history.before(records),
    })
}

fn recorded(
    settings: &Settings,
    choose: impl for<'a> Fn(&History, &'a [Record]) -> Option<&'a Record>,
) -> Option<Policy> {
    let history = History::open(&settings.paths.state);
    let (records, _) = history.list();
    Some(history.policy(choose(&history, &records)?).ok()?.1)
}
