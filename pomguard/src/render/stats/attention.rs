//! The states that an operator should look at first.

use std::io::{self, Write};

use pomguard_common::{Direction, reason::Reason};

use super::{StatsView, fold};
use crate::{
    observe::{
        printable::printable,
        snapshot::{Disposition, ReasonStats, Snapshot},
    },
    render::{grid::Tone, quantity::grouped},
};

/// Returns one sentence for each state; empty if there is none.
fn attention(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for direction in Direction::ALL {
        let side = match direction {
            Direction::Inbound => "from",
            Direction::Outbound => "to",
        };
        for (outcome, became) in
            [(Disposition::Drop, "were dropped"), (Disposition::Audit, "would be dropped in enforce")]
        {
            let packets = denied_known(snapshot, direction, outcome).map(|it| it.packets).sum::<u64>();
            if packets > 0 {
                let which: Vec<_> = known_system_reasons(snapshot, direction, outcome).collect();
                let packets = grouped(packets) + if packets == 1 { " packet" } else { " packets" };
                let became =
                    if packets == "1 packet" { became.replace("were", "was") } else { became.to_owned() };
                let since =
                    if snapshot.since_change.is_some() { " since the last change of policy" } else { "" };
                lines.push(format!(
                    "{packets} {side} systems the site knows {became}{since} ({}).",
                    which.join(", ")
                ));
            }
        }
    }
    lines.extend(snapshot.differences.iter().map(|about| printable(about).into_owned() + "."));
    for on in &snapshot.attach {
        for (hook, state, direction) in [("XDP", &on.xdp, "inbound"), ("TC", &on.tc, "outbound")] {
            if state == "none" {
                let name = printable(&on.interface);
                lines.push(format!(
                    "{name} has no {hook} program: {direction} is open there. See `journalctl -u pomguard`."
                ));
            }
        }
    }
    if snapshot.flows.evicted > 0 {
        let evicted = grouped(snapshot.flows.evicted);
        lines.push(format!("{evicted} flows were forgotten before their age, for want of room."));
    }
    for reason in &snapshot.reasons {
        if reason.packets > 0 && matches!(reason.reason(), Some(Reason::Internal | Reason::NoPolicy)) {
            lines.push(format!(
                "`{}` should stay at zero: {} packets.",
                reason.name,
                grouped(reason.packets)
            ));
        }
    }
    lines
}

fn known_system_reasons(
    snapshot: &Snapshot,
    direction: Direction,
    outcome: Disposition,
) -> impl Iterator<Item = String> + '_ {
    denied_known(snapshot, direction, outcome)
        .map(|it| format!("{} {}", printable(&it.name), grouped(it.packets)))
}

/// Returns the reasons for which packets of known systems were denied, since the last change of policy if that
/// is known: a mistake that was corrected needs no more attention.
fn denied_known(
    snapshot: &Snapshot,
    direction: Direction,
    outcome: Disposition,
) -> impl Iterator<Item = &ReasonStats> {
    let reasons = snapshot.since_change.as_ref().unwrap_or(&snapshot.reasons).iter();
    reasons
        .filter(move |it| it.direction == direction && it.verdict == outcome && it.packets > 0)
        .filter(|it| it.reason().is_some_and(Reason::concerns_known_system))
}

/// Prints the states that need attention, if any, and the commands that show more.
pub(super) fn print_attention(
    snapshot: &Snapshot,
    out: &mut impl Write,
    options: StatsView,
) -> io::Result<()> {
    for line in attention(snapshot) {
        // The mark is a word, so that it is also visible without colour.
        let words = format!("ATTENTION: {line}");
        for line in fold(words.split(' '), " ", options.width) {
            writeln!(out, "{}", Tone::Alarm.paint(&line, options.colour))?;
        }
    }
    let outcomes = [Disposition::Drop, Disposition::Audit];
    let known = |direction| {
        outcomes.iter().any(|&outcome| denied_known(snapshot, direction, outcome).next().is_some())
    };
    if Direction::ALL.into_iter().any(known) {
        writeln!(out, "`pomguard drops` names them, and `pomguard explain` says why for any pair.")?;
    }
    Ok(())
}
