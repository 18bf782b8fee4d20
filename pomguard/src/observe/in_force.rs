//! The policy in force, read back from the kernel.

use std::collections::BTreeMap;

use pomguard_common::control::{Override, over};

use super::{
    reading,
    snapshot::RowStats,
    status::{ExceptionStatus, Status, SuspensionStatus},
};
use crate::{
    kernel::{
        KernelError, attach,
        clock::{Ticks, unix_now},
        control, counters, load,
        pins::Pins,
    },
    model::SuspensionKind,
};

/// Takes one reading. `wanted` are the interfaces that the settings name. The conditions leave out a change that waits
/// for its confirmation, a bypass and a lockdown: their sentences have a time, and are written for people.
///
/// # Errors
/// [`KernelError::NotInstalled`] if nothing is pinned.
pub fn status(pins: &Pins, wanted: &[String]) -> Result<Status, KernelError> {
    let snapshot = reading::snapshot(pins)?;
    let ticks = load::ticks(pins)?;
    let now = ticks.now()?;
    let active = control::active(pins)?;
    let rollback_at = match active.deadline() {
        0 => None,
        _ if active.slot(now as u32) != u32::from(active.installed()) => None,
        deadline => Some(unix_now() + ticks.seconds(deadline.wrapping_sub(now as u32))),
    };
    let mut attached = snapshot.attach;
    for interface in wanted {
        if !attached.iter().any(|info| info.interface == *interface) {
            attached.push(attach::describe(pins, interface));
        }
    }
    let mut attention = Vec::new();
    for info in &attached {
        for (hook, state) in [("XDP, inbound", &info.xdp), ("TC, outbound", &info.tc)] {
            if state == "none" {
                attention
                    .push(format!("{} is not attached to ({hook}): it is not protected", info.interface));
            }
        }
    }
    if active.deadline() != 0 && rollback_at.is_none() {
        attention.push(
            "the last change was taken back because nobody confirmed it in time: the policy before it is in force"
                .to_owned(),
        );
    }
    let held = control::suspension(pins)?;
    let suspension = SuspensionKind::of_number(held.holds(now as u32)).map(|kind| SuspensionStatus {
        kind,
        ends: (held.deadline() != 0)
            .then(|| unix_now() + ticks.seconds(held.deadline().wrapping_sub(now as u32))),
        since: None,
        by: None,
        why: None,
    });
    let exceptions = exceptions(pins, &snapshot.rows, ticks, now as u32)?;
    let failsafe = snapshot.rows.iter().filter(|row| row.live && row.failsafe);
    Ok(Status {
        in_force: true,
        host: snapshot.host,
        matrix: snapshot.matrix,
        generation: snapshot.generation,
        image: snapshot.image,
        inbound: snapshot.inbound,
        outbound: snapshot.outbound,
        installed_at: snapshot.installed_at,
        counting_since: snapshot.counting_since,
        confirmed: rollback_at.is_none(),
        rollback_at,
        suspension,
        exceptions,
        failsafe: failsafe.map(|row| row.id.clone()).collect(),
        attach: attached,
        flows: None,
        daemon: None,
        attention,
    })
}

/// Returns the exceptions that hold, with the counters of their rows.
fn exceptions(
    pins: &Pins,
    rows: &[RowStats],
    ticks: Ticks,
    now: u32,
) -> Result<Vec<ExceptionStatus>, KernelError> {
    let mut deadlines: BTreeMap<u16, u32> = BTreeMap::new();
    let holds = |line: &Override| line.marks & Override::EXCEPTION != 0 && !over(line.expires, now);
    for line in control::overrides(pins)?.into_iter().filter(holds) {
        deadlines.insert(line.row, line.expires);
    }
    let mut found = Vec::new();
    for (slot, id, direction) in counters::row_slots(pins)? {
        let Some(deadline) = deadlines.get(&slot) else { continue };
        let row = rows.iter().find(|row| row.id == id && row.direction == direction);
        found.extend(row.map(|row| ExceptionStatus {
            id,
            direction,
            source: row.source.clone(),
            destination: row.destination.clone(),
            ports: row.ports.clone(),
            ends: unix_now() + ticks.seconds(deadline.wrapping_sub(now)),
            packets: row.packets,
            since: None,
            by: None,
            why: None,
        }));
    }
    Ok(found)
}
