//! The overrides in the loop of the daemon: each change of the overrides takes the lock on changes, and ends with a
//! new baseline, because the contents of the maps are other ones now.

use super::{
    Daemon,
    overrides::{Shortened, emergency::Asker, exceptions::NewException},
};
use crate::control::protocol::{Allowed, SuspensionKind};

impl Daemon {
    /// Adds an exception.
    pub(super) fn allow(&mut self, new_exception: NewException) -> anyhow::Result<Allowed> {
        let _entitled = self.context.entitled()?;
        let allowed = self.overrides.allow(&self.context, new_exception)?;
        self.record_baseline();
        Ok(allowed)
    }

    /// Revokes an exception. Returns a sentence about the end.
    pub(super) fn revoke(&mut self, name: &str, asker: &Asker) -> anyhow::Result<String> {
        let _entitled = self.context.entitled()?;
        let message = self.overrides.revoke(&self.context, name, asker)?;
        self.record_baseline();
        Ok(message)
    }

    /// Suspends the policy. Returns a sentence about it.
    pub(super) fn suspend(
        &mut self,
        kind: SuspensionKind,
        seconds: u32,
        asker: &Asker,
    ) -> anyhow::Result<String> {
        let _entitled = self.context.entitled()?;
        let message = self.overrides.suspend(&self.context, kind, seconds, asker)?;
        self.record_baseline();
        Ok(message)
    }

    /// Ends a bypass or lockdown before the deadline. Returns a sentence about the end.
    pub(super) fn resume(&mut self, asker: &Asker) -> anyhow::Result<String> {
        let _entitled = self.context.entitled()?;
        let ended = self.overrides.resume(&self.context, asker);
        self.record_baseline();
        ended
    }

    /// Continues the overrides of the former daemon at a start. Must be called with the lock on changes, before a
    /// packet is judged and before a pending change continues.
    pub(super) fn continue_overrides(&mut self) -> anyhow::Result<()> {
        if let Some(unreadable) = self.overrides.restore_exceptions(&self.context)? {
            self.changes.note_unreadable(unreadable);
        }
        self.overrides.continue_suspension(&self.context)?;
        // Time may have been lost while no daemon was running.
        let shortened = self.overrides.follow_clocks(&self.context, self.changes.recorded_until())?;
        self.note_shortened(&shortened);
        Ok(())
    }

    /// Removes exceptions whose time is up.
    pub(super) fn sweep_exceptions(&mut self) {
        let Some(now) = self.overrides.sweep_due(&self.context) else { return };
        let Ok(_entitled) = self.context.entitled() else { return };
        self.overrides.sweep_exceptions(&self.context, now);
        self.record_baseline();
    }

    /// Adopts a bypass or lockdown that began or ended on disk while this daemon did not answer. Must be called with
    /// the lock on changes.
    pub(super) fn adopt_override(&mut self) {
        if self.overrides.adopt(&self.context) {
            self.record_baseline();
        }
    }

    /// Ends timed states earlier if the machine stood still. Must be called without the lock on changes: while
    /// somebody else has the lock, the next call does the work.
    pub(super) fn follow_clocks(&mut self) {
        let Ok(Some(_change)) = self.context.runtime.try_change() else { return };
        // After a detach no program judges, and no state holds.
        if !self.context.runtime.detached() {
            // A verb that did not wait for this daemon may have written a newer state to the disk.
            self.adopt_override();
            self.follow_clocks_in_lock();
        }
    }

    /// As [`Self::follow_clocks`], with the lock on changes, after the state on disk was adopted.
    pub(super) fn follow_clocks_in_lock(&mut self) {
        let until = self.changes.rollback_at();
        if let Ok(shortened) = self.overrides.follow_clocks(&self.context, until) {
            self.note_shortened(&shortened);
        }
    }

    fn note_shortened(&mut self, shortened: &Shortened) {
        if let Some(deadline) = shortened.deadline {
            self.changes.hurry(deadline);
        }
        if shortened.maps {
            self.record_baseline();
        }
    }

    /// Clears the overrides that ended. Must be called with the lock on changes.
    pub(super) fn clear_ended(&mut self) {
        if self.overrides.clear_ended(&self.context) {
            self.record_baseline();
        }
    }

    /// Names the live flows that the policy cuts when the bypass ends, some minutes before the end.
    pub(super) fn announce_end(&mut self) {
        let Some(left) = self.overrides.announcement_due(&self.context) else { return };
        let here = self.changes.here(&self.context, &self.reconciler);
        self.overrides.announce_end(&self.context, left, here);
    }

    /// Records the present contents of the maps as the desired ones.
    fn record_baseline(&mut self) {
        self.reconciler.record_baseline(&self.context);
    }
}
