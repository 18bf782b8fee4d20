//! Refuses a change in advance if the change would cut the session of the command, or a live flow on a failsafe
//! row.

use std::process::ExitCode;

use super::{ATTENTION, output::Output, own_addresses, session};
use crate::{
    history::{self, History, Record},
    input::settings::Settings,
    kernel::{
        clock::unix_now,
        pins::Pins,
        sockets::{self, Connection},
    },
    observe::reading,
    policy::{Direction, Policy, impact::WayIn, oracle::Opening, own::Addresses},
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
    let here = own_addresses::present(settings).unwrap_or_default();
    let words = complaints(to_come, &here, &exceptions, &session::own(), &live);
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
    here: &Addresses,
    exceptions: &[Exception],
    own: &[Opening],
    live: &[Opening],
) -> Vec<String> {
    let failsafe_only = to_come.failsafe_only;
    let before = to_come.before.map(|before| before.clone().on(here));
    let after = &to_come.after.clone().on(here);
    let now = unix_now();
    let cut = |opening: &Opening| {
        let excepted = !failsafe_only && exceptions.iter().any(|held| held.allows(opening, now));
        let way_in = WayIn::under(after, opening);
        is_judged(after, here, opening)
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
            let failsafe =
                before.as_ref().is_some_and(|before| WayIn::under(before, flow) == WayIn::Failsafe);
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

/// Returns true if the policy judges packets to this host's end: the address is this host's, or is on a guarded
/// interface.
fn is_judged(policy: &Policy, here: &Addresses, opening: &Opening) -> bool {
    let end = match opening.direction {
        Direction::Inbound => opening.destination,
        Direction::Outbound => opening.source,
    };
    policy.is_own(end) || here.is_guarded(end)
}

/// Returns the policy in force, found by its image. Returns `None` if the history does not have the image, or
/// nothing is in force.
pub(super) fn in_force(settings: &Settings) -> Option<Policy> {
    let image = reading::image(&Pins::new(&settings.paths.pins)).ok()?.image;
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        input::Draft,
        policy::{own::Present, resolve},
    };

    /// A host with one listed address, an ordinary row for port 443 and, if asked for, a failsafe row for port
    /// 22, both for one network.
    fn policy(own_addresses: &str, failsafe: bool) -> Policy {
        let settings = format!(
            "site = \"site.toml\"\ninterfaces = [\"eth0\"]\nhost = \"a\"\nown_addresses = \"{own_addresses}\"\n\
             [enforcement]\ninbound = \"enforce\"\n"
        );
        let row = |name: &str, port: u16, failsafe: bool| {
            format!(
                "[[allow]]\nname = \"{name}\"\nfrom = [\"10.9.0.0/24\"]\nto = [\"a\"]\nprotocol = \"tcp\"\n\
                 ports = \"{port}\"\nfailsafe = {failsafe}\n"
            )
        };
        let site = format!(
            "matrix = \"pom-4.0\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.20.0.11\"]\n\
             systems = [\"Kafka\"]\n{}{}",
            row("web", 443, false),
            if failsafe { row("ssh", 22, true) } else { String::new() }
        );
        let draft = Draft::from_texts(("pomguard.toml", &settings), ("site.toml", &site));
        let draft = draft.unwrap_or_else(|faults| panic!("{faults}"));
        resolve(&draft, &[]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn session(destination: &str, destination_port: u16) -> Opening {
        Opening {
            direction: Direction::Inbound,
            source: ip("10.9.0.7"),
            source_port: 50_000,
            destination: ip(destination),
            destination_port,
            protocol: 6,
        }
    }

    /// Returns true if the change to `after` would be refused because of a session. The guarded interface has
    /// 10.20.0.11 and 10.20.0.77, which is not in the site file; 192.0.2.1 is on an interface without a guard.
    fn refused(after: &Policy, session: Opening) -> bool {
        let present = |text: &str| Present { address: ip(text), interface: "eth0".into() };
        let here = Addresses {
            guarded: vec![present("10.20.0.11"), present("10.20.0.77")],
            others: vec![Present { address: ip("192.0.2.1"), interface: "eth1".into() }],
            ..Addresses::default()
        };
        let to_come = ToCome { before: None, after, failsafe_only: false };
        !complaints(&to_come, &here, &[], &[session], &[]).is_empty()
    }

    #[test]
    fn session_at_an_address_of_nobody_counts_with_its_failsafe_row_only() {
        let (with, without) = (policy("listed", true), policy("listed", false));
        for at in ["10.20.0.11", "10.20.0.77"] {
            assert!(!refused(&with, session(at, 22)), "{at}: the failsafe row holds everywhere");
            assert!(refused(&without, session(at, 22)), "{at}: no row");
        }
        assert!(!refused(&with, session("10.20.0.11", 443)));
        assert!(refused(&with, session("10.20.0.77", 443)), "an ordinary row holds at listed addresses only");
        assert!(!refused(&without, session("192.0.2.1", 22)), "nothing is judged there");
    }

    #[test]
    fn session_at_an_address_taken_from_the_machine_counts_as_at_a_listed_one() {
        let policy = policy("machine", false);
        assert!(refused(&policy, session("10.20.0.77", 22)));
        assert!(!refused(&policy, session("10.20.0.77", 443)));
    }
}
