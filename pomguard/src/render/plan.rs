//! The changes that the files would make, for people and programs.

mod recent;

use std::{
    fmt::Display,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    explain::described,
    flows,
    quantity::{grouped, timestamp},
};
use crate::{
    kernel::takeover,
    observe::{printable::printable, recent::Recent},
    policy::{
        Direction, Mode,
        area::Area,
        conflict::Note,
        diff::{Diff, RowChange},
        impact::{Impact, WayIn},
        oracle::Opening,
    },
};

/// The number of items of one kind that are written; JSON has all items.
const SHOWN: usize = 8;

/// The answer of `plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The policy with which the files are compared.
    pub in_force: InForce,
    /// The interfaces whose guard would change.
    pub guards: Guards,
    /// Warnings about this machine, under the files.
    pub machine: Vec<Note>,
    /// The mode that the files give the inbound direction.
    pub inbound: Mode,
    /// The mode that the files give the outbound direction.
    pub outbound: Mode,
    /// The differences; `None` if the policy in force is unknown.
    pub diff: Option<Diff>,
    /// The effect on live flows.
    pub impact: Impact,
    /// The recent counts of the traffic that the change would take away; `None` if nothing is counted or
    /// compared.
    pub recent: Option<Recent>,
    /// The session in which the command was typed, and the fate of the session; `None` at a console.
    pub way_in: Option<(Opening, WayIn)>,
    /// True if the files have a failsafe row that allows something.
    pub failsafe: bool,
    /// Remarks about rows in audit, and about directions and rows that the files put in audit.
    pub in_audit: Vec<Note>,
}

/// Interfaces whose guard a change would touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Guards {
    /// Guarded now, and no longer named by the files: `apply` takes the guard off, with `--yes`.
    pub lost: Vec<String>,
    /// Named by the files, and not before.
    pub gained: Vec<String>,
    /// Guarded, and named by no settings: a change that was rolled back attached the guard.
    pub kept: Vec<String>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InForce {
    /// No policy: pomguard does not enforce here.
    Nothing,
    /// Maps of another layout, which a restart replaces.
    OtherLayout {
        /// The layout.
        found: u32,
        /// The change that is in force, if the history has it.
        number: Option<u64>,
    },
    /// A policy that the history does not have.
    Unknown {
        /// SHA-256 of the image in force.
        image: String,
    },
    /// A change of the history.
    Change {
        /// The number of the change.
        number: u64,
        /// Seconds since 1970 at which the change was made.
        at: u64,
    },
}

impl Plan {
    /// Returns true if applying the files would change anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.diff.as_ref().is_none_or(|diff| !diff.is_empty()) || !self.guards.lost.is_empty()
    }

    /// Writes the plan, the most important lines first.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.warn(out)?;
        match &self.in_force {
            InForce::Nothing => writeln!(out, "nothing is in force here: everything in the files is new")?,
            InForce::Unknown { image } => {
                let image: String = image.chars().take(12).collect();
                writeln!(
                    out,
                    "image {image} is in force, and the history does not have the files that it came from: \
                     what would change cannot be told"
                )?;
            }
            InForce::OtherLayout { found, number } => {
                writeln!(out, "{}", takeover::notice(*found))?;
                match number {
                    Some(number) => writeln!(out, "compared with change {number}, the last of the history:")?,
                    None => writeln!(out, "the history does not have what is in force")?,
                }
            }
            InForce::Change { number, at } => {
                writeln!(out, "compared with change {number} of {}, which is in force:", timestamp(*at))?;
            }
        }
        match &self.diff {
            Some(diff) if diff.is_empty() => writeln!(out, "  nothing would change")?,
            Some(diff) => print_diff(diff, out)?,
            None => writeln!(out, "  inbound {}, outbound {}", self.inbound.name(), self.outbound.name())?,
        }
        some(&self.in_audit, out, |note| printable(&note.message).to_string())?;
        writeln!(
            out,
            "{} of {} connections that go on now would be cut",
            grouped(self.impact.cut.len() as u64),
            grouped(self.impact.connections as u64)
        )?;
        some(&self.impact.cut, out, described)?;
        flows::print(&self.impact, out)?;
        if !self.impact.until_reconnect.is_empty() {
            writeln!(
                out,
                "{} are older than the first start: no row allows them, and they go on until they reconnect",
                grouped(self.impact.until_reconnect.len() as u64)
            )?;
            some(&self.impact.until_reconnect, out, described)?;
        }
        let mode = |direction| match direction {
            Direction::Inbound => self.inbound,
            Direction::Outbound => self.outbound,
        };
        self.recent.as_ref().map_or(Ok(()), |recent| recent::print(recent, mode, out))?;
        match self.in_force {
            _ if !self.changes() => Ok(()),
            InForce::Nothing => writeln!(out, "next: `systemctl start pomguard` puts the files in force"),
            InForce::Change { .. } | InForce::Unknown { .. } | InForce::OtherLayout { .. } => writeln!(
                out,
                "next: `pomguard apply --confirm-within 10m`, then `pomguard confirm` from a new session"
            ),
        }
    }

    /// Writes the effects that the operator may regret.
    fn warn(&self, out: &mut impl Write) -> io::Result<()> {
        for interface in &self.guards.lost {
            writeln!(
                out,
                "WARNING: {} WOULD LOSE ITS GUARD: nothing that comes in by it would be filtered. `pomguard apply` \
                 asks for --yes",
                printable(interface)
            )?;
        }
        for interface in &self.guards.gained {
            writeln!(out, "{} would be guarded", printable(interface))?;
        }
        for interface in &self.guards.kept {
            writeln!(
                out,
                "{} is guarded, and `interfaces` does not name it: `pomguard apply --yes` takes the guard off",
                printable(interface)
            )?;
        }
        for note in &self.machine {
            writeln!(out, "WARNING: {}: {}", note.kind, printable(&note.message))?;
        }
        match &self.way_in {
            Some((session, WayIn::Cut)) => writeln!(
                out,
                "WARNING: THIS WOULD CUT YOUR OWN SESSION ({}). Add an [[allow]] for it with failsafe = true",
                described(session)
            )?,
            Some((session, WayIn::NotFailsafe)) => writeln!(
                out,
                "WARNING: no failsafe row covers your own session ({}): a later change could cut it. Add an \
                 [[allow]] with failsafe = true",
                described(session)
            )?,
            Some((_, WayIn::Failsafe)) | None => {}
        }
        if !self.failsafe {
            writeln!(
                out,
                "WARNING: the files have no failsafe row: nothing holds the way in when the rest is wrong"
            )?;
        }
        Ok(())
    }
}

fn print_diff(diff: &Diff, out: &mut impl Write) -> io::Result<()> {
    for mode in &diff.modes {
        writeln!(
            out,
            "  {}: {} -> {}",
            mode.direction.name(),
            mode.from.name().to_uppercase(),
            mode.to.name().to_uppercase()
        )?;
    }
    for setting in &diff.settings {
        writeln!(out, "  setting   {}", printable(&setting.text()))?;
    }
    for sentence in &diff.other {
        writeln!(out, "  {}", printable(sentence))?;
    }
    for change in &diff.rows {
        print_row(change, out)?;
    }
    Ok(())
}

fn print_row(change: &RowChange, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "  {:<8}  {} {}", change.kind.name(), printable(&change.id.0), change.direction.name())?;
    print_area("+", &change.more, out)?;
    print_area("-", &change.less, out)?;
    if let Some((from, to)) = change.mode {
        writeln!(out, "      mode {} -> {}", from.name(), to.name())?;
    }
    if let Some((_, to)) = change.failsafe {
        writeln!(out, "      {} a failsafe row", if to { "becomes" } else { "is no longer" })?;
    }
    if let Some(packet) = &change.newly_allowed {
        writeln!(out, "      newly allowed, for one: {}", described(packet))?;
    }
    if let Some(packet) = &change.newly_denied {
        writeln!(out, "      newly denied, for one:  {}", described(packet))?;
    }
    Ok(())
}

fn print_area(sign: &str, area: &Area, out: &mut impl Write) -> io::Result<()> {
    let services = area.services.iter().map(|service| match service.protocol {
        6 => format!("{}/tcp", service.ports),
        17 => format!("{}/udp", service.ports),
        other => format!("protocol {other}"),
    });
    let clients = area.client_ports.iter().filter(|ports| (ports.first, ports.last) != (0, u16::MAX));
    for (what, items) in [
        ("addresses", listed(&area.peers)),
        ("services", listed(&services.collect::<Vec<_>>())),
        ("client ports", listed(&clients.collect::<Vec<_>>())),
    ] {
        if let Some(items) = items {
            writeln!(out, "      {sign} {what} {items}")?;
        }
    }
    Ok(())
}

/// Returns the first few items and the number of further ones; `None` if there are no items.
fn listed<T: Display>(items: &[T]) -> Option<String> {
    if items.is_empty() {
        return None;
    }
    let shown = items.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = items.len().saturating_sub(SHOWN);
    Some(if more == 0 { shown } else { format!("{shown} and {more} more") })
}

fn some<T>(items: &[T], out: &mut impl Write, line: impl Fn(&T) -> String) -> io::Result<()> {
    for item in items.iter().take(SHOWN) {
        writeln!(out, "  {}", line(item))?;
    }
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more (--json has them all)"),
    }
}
