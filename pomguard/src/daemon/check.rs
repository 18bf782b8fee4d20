//! One check of everything, from the findings of each part to the report.

use anyhow::anyhow;
use log::error;

use super::{Daemon, audit, overrides::Overrides, transition::Waiting};

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
        self.save_again();
        let mut lasting = self.lasting_conditions.clone();
        lasting.extend(self.reporter.condition());
        let mut check = if self.context.runtime.detached() {
            self.reconciler.release(&lasting)
        } else {
            self.adopt_override();
            self.follow_clocks_in_lock();
            let settings = self.waiting.as_ref().map_or(&self.settings, |waiting| &waiting.next.settings);
            let how = settings.attach;
            let mut check = self.reconciler.check(&self.context, how, &lasting);
            self.check_addresses(&mut check);
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
        let policy = self.waiting.as_ref().map(|waiting| &waiting.next).or(self.held.as_ref());
        let policy = policy.map(|held| &held.policy);
        let drops = self.reporter.record_drops(&self.context, self.settings.drops, policy);
        check.conditions.extend(drops);
        self.reporter.keep_counts(&self.context);
        self.reporter.report(check, self.waiting.as_ref().and_then(Waiting::until));
    }
}
