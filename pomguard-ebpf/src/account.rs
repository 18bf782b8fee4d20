//! Counters. Every packet is counted once as seen and once under its reason, per CPU, so that no cache line
//! is shared and no atomic is needed.

use pomguard_common::{
    Direction,
    counter::{Counters, Tally, interface_slot},
    decide::{Decision, NO_ROW},
    flow::Entered,
};

use crate::{barrier::hide, clock, maps};

/// Ticks by which a row's time may lag behind before it is renewed: about a second.
const STALE: u64 = 4;

#[inline(always)]
fn add(tally: &mut Tally, bytes: u32) {
    tally.packets += 1;
    tally.bytes += u64::from(bytes);
}

/// Returns this CPU's counters: of traffic, or of self-tests.
#[inline(always)]
pub(crate) fn counters(self_test: u32) -> Option<&'static mut Counters> {
    let counters = maps::COUNTERS.get_ptr_mut(self_test)?;
    // SAFETY: the map holds one such value per CPU, and no other run of a program interrupts a run on the
    // same CPU at the same hook; the two hooks write different halves. A packet may interrupt a self-test,
    // but that packet counts in the other value.
    Some(unsafe { &mut *counters })
}

/// Counts a packet as seen, and returns this CPU's counters. Only the fast program calls this, once for each
/// packet; the general program continues with a packet that was counted.
#[inline(always)]
pub(crate) fn seen(direction: Direction, self_test: u32, bytes: u32) -> Option<&'static mut Counters> {
    let counters = counters(self_test)?;
    add(&mut counters.direction[direction.index()].seen, bytes);
    Some(counters)
}

/// Counts an inbound packet at its interface. If a driver stops handing over packets, the comparison with the
/// packets that the card received in that time shows it. A self-test is no packet of an interface, although its
/// index shares a counter with others.
#[inline(always)]
pub(crate) fn came_in(interface: u32, self_test: u32) {
    let Some(packets) = maps::INTERFACES.get_ptr_mut(interface_slot(interface)) else { return };
    // SAFETY: one value per CPU; see `counters`.
    unsafe { *packets += 1 - u64::from(self_test) };
}

/// Counts a decision: under its reason, and under the row that allowed it.
#[inline(always)]
pub(crate) fn judged(counters: &mut Counters, direction: Direction, decision: Decision, bytes: u32) {
    let half = &mut counters.direction[direction.index()];
    let tallies = if decision.audited() { &mut half.audited } else { &mut half.judged };
    if let Some(tally) = tallies.get_mut(hide(decision.reason_number().into())) {
        add(tally, bytes);
    }
    match decision.entered() {
        Some(Entered::New) => counters.flows_opened += 1,
        Some(Entered::Evicted) => {
            counters.flows_opened += 1;
            counters.flows_evicted += 1;
        }
        Some(Entered::Full) | None => {}
    }
    let row = decision.row();
    if row == NO_ROW {
        return;
    }
    let Some(tally) = maps::ROWS.get_ptr_mut(u32::from(row)) else { return };
    // SAFETY: one value per CPU; see `counters`.
    let tally = unsafe { &mut *tally };
    tally.packets += 1;
    tally.bytes += u64::from(bytes);
    tally.connections += u64::from(decision.opens());
    let now = u64::from(clock::now());
    if now.wrapping_sub(tally.last) >= STALE {
        tally.last = now;
        if tally.first == 0 {
            tally.first = now;
        }
    }
}
