//! The policy in force, for people.

use std::io::{self, Write};

use super::{
    flows,
    grid::Tone,
    quantity::{duration, grouped, timestamp},
    text::wrapped,
};
use crate::{
    history::By,
    observe::{
        printable::printable,
        status::{ExceptionStatus, Status},
    },
    policy::RowId,
};

/// Blanks between the name of a fact and the fact.
const GAP: usize = 2;

/// Returns a time, and the duration since then.
fn ago(at: u64, now: u64) -> String {
    format!("{} ({} ago)", timestamp(at), duration(now.saturating_sub(at)))
}

/// Returns the person, the time and the reason, as far as known.
fn origin(by: Option<&By>, since: Option<u64>, why: Option<&str>) -> String {
    let by = by.map(|by| match &by.claimed {
        Some(name) => format!(", by uid {} ({})", by.uid, printable(name)),
        None => format!(", by uid {}", by.uid),
    });
    let since = since.map(|at| format!(", since {}", timestamp(at)));
    let why = why.map(|why| format!(": {}", printable(why)));
    [by, since, why].into_iter().flatten().collect()
}

/// Returns a line about an exception: the connections, the end, the packets, and the person, time and reason
/// of the grant.
pub fn described(exception: &ExceptionStatus, now: u64) -> String {
    format!(
        "{} from {} to {}, {}, until {} ({} left), {} packets{}",
        exception.direction.name(),
        printable(&exception.source),
        printable(&exception.destination),
        exception.ports,
        timestamp(exception.ends),
        duration(exception.ends.saturating_sub(now)),
        grouped(exception.packets),
        origin(exception.by.as_ref(), exception.since, exception.why.as_deref())
    )
}

/// Returns the sentences about a change that waits for its confirmation, and about a bypass or lockdown: each with the
/// time that is left.
#[must_use]
pub fn deadlines(status: &Status, now: u64) -> Vec<String> {
    let left = |at: u64| duration(at.saturating_sub(now));
    let pending = status.rollback_at.map(|at| {
        format!(
            "the policy in force is not confirmed: in {} the one before it returns (`pomguard confirm` keeps it)",
            left(at)
        )
    });
    let suspended = status.suspension.as_ref().map(|held| {
        let time = held.ends.map_or_else(String::new, |at| format!(" for {}", left(at)));
        format!("{0}{time}: the policy is suspended (`pomguard {0} --off` ends that)", held.kind.name())
    });
    pending.into_iter().chain(suspended).collect()
}

/// Writes the conditions that need attention first, then the policy in force.
///
/// The facts fit `width`; `None` is unlimited. `colour` adds colours, which are never the only sign.
pub fn print(
    status: &Status,
    now: u64,
    out: &mut impl Write,
    width: Option<u16>,
    colour: bool,
) -> io::Result<()> {
    let mark = Tone::Alarm.paint("ATTENTION:", colour);
    for sentence in &status.attention {
        writeln!(out, "{mark} {}", printable(sentence))?;
    }
    if status.generation == 0 {
        // No policy is in force: there is nothing more to report.
        for info in &status.attach {
            writeln!(out, "{}: XDP {}, TC {}", printable(&info.interface), info.xdp, info.tc)?;
        }
        return Ok(());
    }
    let confirmed = match status.rollback_at {
        None => "yes".to_owned(),
        Some(at) => format!("no: the generation before returns in {}", duration(at.saturating_sub(now))),
    };
    let suspension = status.suspension.as_ref().map_or_else(
        || "none".to_owned(),
        |held| {
            let ends =
                held.ends.map_or_else(String::new, |at| format!(" for {}", duration(at.saturating_sub(now))));
            let origin = origin(held.by.as_ref(), held.since, held.why.as_deref());
            format!("{}{ends}{origin}", held.kind.name().to_uppercase())
        },
    );
    let daemon = match &status.daemon {
        Some(daemon) => format!("running, version {}, pid {}", daemon.version, daemon.pid),
        None => "does not answer".to_owned(),
    };
    let anew = status.daemon.as_ref().and_then(|daemon| daemon.replaced_layout);
    let anew =
        anew.map_or_else(String::new, |found| format!(", anew: the maps before were of layout {found}"));
    let failsafe = status.failsafe.iter().map(|RowId(id)| printable(id)).collect::<Vec<_>>().join(", ");
    let failsafe = if failsafe.is_empty() { "none".to_owned() } else { failsafe };
    let image: String = status.image.chars().take(12).collect();
    let facts = [
        ("host", format!("{}, matrix {}", printable(&status.host), printable(&status.matrix))),
        ("inbound", status.inbound.name().to_uppercase()),
        ("outbound", status.outbound.name().to_uppercase()),
        (
            "generation",
            format!("{}, image {image}, since {}", status.generation, ago(status.installed_at, now)),
        ),
        ("counters", format!("since {}{anew}", ago(status.counting_since, now))),
        ("confirmed", confirmed),
        ("suspension", suspension),
        ("failsafe rows", failsafe),
        ("daemon", daemon),
    ];
    let mut text: Vec<(String, String)> = Vec::new();
    for (name, fact) in facts {
        text.push((name.to_owned(), fact));
    }
    for exception in &status.exceptions {
        text.push((printable(&exception.id.0).into_owned(), described(exception, now)));
    }
    for info in &status.attach {
        text.push((printable(&info.interface).into_owned(), format!("XDP {}, TC {}", info.xdp, info.tc)));
    }
    if let Some(flows) = &status.flows {
        let name = match (flows.after_bypass, flows.if_enforced) {
            (true, _) => "flows, when the bypass ends",
            (false, true) => "flows, if enforced",
            (false, false) => "flows",
        };
        text.push((name.to_owned(), flows::numbers(&flows.impact)));
        if !flows.existing.is_by_policy() {
            let message = format!("the change in force was made by apply{}", flows.existing.option());
            text.push((String::new(), message));
        }
        for line in flows::losers(&flows.impact) {
            text.push((String::new(), line));
        }
    }
    let label = text.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let room = width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(label + GAP).max(20));
    for (name, fact) in text {
        for (at, line) in wrapped(&fact, room).iter().enumerate() {
            let name = if at == 0 { name.as_str() } else { "" };
            writeln!(out, "{name:<label$}{:GAP$}{line}", "")?;
        }
    }
    Ok(())
}
