//! Tries the table on a subject.

use anyhow::Result;
use pomguard::policy::{Direction, Mode, Policy};
use pomguard_common::reason::Reason;

use super::Outcome;
use crate::{
    harness::Subject,
    packet::Packet,
    reference::{self, Places},
};

/// Returns the policy of an outcome, in the other mode if the outcome has to be audited.
fn policy(outcome: &Outcome, audited: bool) -> Policy {
    let mut policy = reference::policy();
    if let Some(set) = outcome.set {
        (set.apply)(&mut policy);
    }
    if audited {
        match outcome.direction {
            Direction::Inbound => policy.inbound = Mode::Audit,
            Direction::Outbound => policy.outbound = Mode::Audit,
        }
    }
    policy
}

/// A subject and the policy in force there. Replacing the policy takes the kernel longer than a hundred
/// packets.
pub struct Trial<'a> {
    subject: &'a mut dyn Subject,
    in_force: Option<Policy>,
    /// True if the subject may remember a flow or a fragmented datagram.
    remembers: bool,
}

impl<'a> Trial<'a> {
    /// Creates a trial of a subject.
    pub fn new(subject: &'a mut dyn Subject) -> Self {
        Self { subject, in_force: None, remembers: false }
    }

    /// Puts a policy in force and removes all flows and fragments.
    fn begin(&mut self, policy: Policy) -> Result<()> {
        if self.in_force.as_ref() != Some(&policy) {
            self.subject.renew(policy.clone())?;
            self.in_force = Some(policy);
        } else if self.remembers {
            self.subject.forget()?;
        }
        self.remembers = false;
        Ok(())
    }

    fn runs(&mut self, direction: Direction, packet: &Packet) -> Result<(Reason, bool)> {
        let (reason, audited) = self.subject.reason(direction, &packet.build())?;
        let passes = audited || reason.verdict().is_pass();
        self.remembers |= passes && (direction == Direction::Outbound || packet.is_fragment());
        Ok((reason, audited))
    }

    /// Describes the error of an outcome. Returns `None` if the outcome is as published.
    ///
    /// # Errors
    /// If a frame cannot be run, or the kernel refuses the policy.
    pub fn error(&mut self, outcome: &Outcome, places: &Places, audited: bool) -> Result<Option<String>> {
        self.begin(policy(outcome, audited))?;
        for (direction, packet) in &outcome.before {
            self.runs(*direction, &packet(places))?;
        }
        let found = self.runs(outcome.direction, &(outcome.packet)(places))?;
        let wanted = outcome.audited.filter(|_| audited).unwrap_or(outcome.reason);
        Ok((found != (wanted, audited)).then(|| format!("{found:?} instead of {wanted:?}")))
    }
}
