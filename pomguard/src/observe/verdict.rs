//! The kernel's half of `explain`: packets that run through a second copy of the programs.
//!
//! The copy shares the policy, the control words and the overrides with the programs in force. Counters, flows
//! and drops are its own, so a question changes nothing.

use pomguard_common::decide::NO_ROW;
use serde::{Deserialize, Serialize};

use crate::{
    kernel::{KernelError, clock::unix_now, control, counters, frame, load, pins::Pins, probe::Probe},
    model::SuspensionKind,
    policy::{RowId, oracle::Opening, precedence::Alongside},
    state::exceptions::Exception,
};

/// The most packets of one request: more would not fit a line of the control socket.
pub const AT_ONCE: usize = 64;

/// The verdict of the programs on one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// True if the packet passes.
    pub passes: bool,
    /// The name of the reason.
    pub reason: String,
    /// True if the packet would be dropped, and passes because of audit.
    pub audited: bool,
    /// The row or exception under which the packet is counted.
    pub row: Option<RowId>,
}

/// The verdicts on several packets, with the state alongside the policy at that time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// One verdict for each packet, in order.
    pub verdicts: Vec<Verdict>,
    /// The timed exceptions.
    pub exceptions: Vec<Exception>,
    /// The suspension of the policy.
    pub suspension: Option<SuspensionKind>,
    /// True if the programs know which floating addresses this machine holds.
    pub holders_known: bool,
}

impl Verdicts {
    /// Returns the state in the form in which the policy takes it.
    #[must_use]
    pub fn alongside(&self) -> Alongside {
        Alongside {
            exceptions: self.exceptions.iter().map(Exception::row).collect(),
            suspension: self.suspension,
            holders_known: self.holders_known,
        }
    }
}

/// A second copy of the programs, loaded at the first question.
pub struct VerdictAsker {
    pins: Pins,
    probe: Option<Probe>,
}

impl VerdictAsker {
    /// Returns an asker without a copy.
    #[must_use]
    pub const fn new(pins: Pins) -> Self {
        Self { pins, probe: None }
    }

    /// Unloads the copy.
    pub fn release(&mut self) {
        self.probe = None;
    }

    /// Runs the opening packets through the copy. `exceptions` are the exceptions of the daemon, or on disk;
    /// those past their end do not count.
    ///
    /// # Errors
    /// [`KernelError::NotInstalled`] if nothing is in force; an error if the kernel does not load the copy.
    pub fn ask(&mut self, openings: &[Opening], exceptions: Vec<Exception>) -> Result<Verdicts, KernelError> {
        let names = counters::row_slots(&self.pins)?;
        let slots: Vec<u16> = names.iter().map(|(slot, ..)| *slot).collect();
        let kept = self.probe.take().and_then(|mut probe| probe.follow(slots.clone()).then_some(probe));
        let probe = match kept {
            Some(probe) => probe,
            None => Probe::of_installed(&self.pins, slots)?,
        };
        let probe = self.probe.insert(probe);
        let mut verdicts = Vec::with_capacity(openings.len());
        for opening in openings {
            let frame = frame::opening(opening).ok_or(KernelError::Unreadable)?;
            let finding = probe.ask(opening.direction, &frame)?;
            let hit = names.iter().find(|(slot, ..)| finding.row != NO_ROW && *slot == finding.row);
            verdicts.push(Verdict {
                passes: finding.passes,
                reason: finding.reason.name().to_owned(),
                audited: finding.audited,
                row: hit.map(|(_, id, _)| id.clone()),
            });
        }
        let now = load::ticks(&self.pins)?.now()? as u32;
        let seconds = unix_now();
        let holds =
            |exception: &Exception| seconds < exception.granted.saturating_add(exception.seconds.into());
        Ok(Verdicts {
            verdicts,
            exceptions: exceptions.into_iter().filter(holds).collect(),
            suspension: SuspensionKind::of_number(control::suspension(&self.pins)?.holds(now)),
            holders_known: control::holders_known(&self.pins, now)?,
        })
    }
}
