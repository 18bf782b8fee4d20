//! One check of everything, from the findings of each part to the report.

use anyhow::anyhow;
use log::error;

use super::{Daemon, audit, overrides::Overrides};
use crate::observe::condition::{Condition, Repair};

impl Daemon {
    /// Checks everything once, and reports the conditions.
    pub(super) fn check(&mut self) {
        self.reporter.tell_again();
        self.sweep_exceptions();
        // An operator who changes something by hand has the lock meanwhile; the next check is soon enough.
        let _change = match self.context.runtime.try_change() {
            Ok(Some(change)) => change,
            Ok(None) => return,
            Err(error) => return error!("{:#}", anyhow!(error)),
        };
        self.changes.save_again(&self.context);
        let mut lasting = self.changes.conditions().clone();
        lasting.extend(self.reporter.condition());
        let mut check = if self.context.runtime.detached() {
            self.reconciler.release(&lasting)
        } else {
            self.adopt_override();
            self.follow_clocks_in_lock();
            let how = self.changes.settings_in_force().attach;
            let mut check = self.reconciler.check(&self.context, how, &lasting);
            // A process that stood still since the adoption above took the override for a foreign change.
            if check.repairs.contains(&Repair::Control) {
                self.adopt_override();
            }
            self.change(|changes, context, reconciler| {
                changes.check_addresses(context, reconciler, &mut check);
            });
            if let Some(unsaved) = self.overrides.keep_saved(&self.context) {
                check.note(Condition::StateUnsaved, &unsaved);
            }
            self.reconciler.tell(&check);
            // After foreign changes were undone, so that the recorded baseline contains no other change than
            // this one.
            self.clear_ended();
            self.announce_end();
            check.freed = self.reconciler.sweep_flows(&self.context);
            check
        };
        check.conditions.extend(Overrides::condition(&self.context));
        audit::repairs(&check.repairs);
        let (settings, policy) = (self.changes.settings(), self.changes.policy_in_force());
        let drops = self.reporter.record_drops(&self.context, settings.drops, policy);
        check.conditions.extend(drops);
        self.reporter.keep_counts(&self.context);
        self.reporter.report(check, self.changes.rollback_at());
    }
}
