//! The host's own addresses. Every check compares them with the machine and, if they changed, installs the
//! policy with the new ones.

use std::collections::BTreeMap;

use anyhow::anyhow;
use log::{info, warn};

use super::Changes;
use crate::{
    daemon::{context::Context, message::Check, reconciler::Reconciler},
    input::Settings,
    kernel::{
        KernelError, address, control,
        install::{self, Readdressed},
    },
    observe::condition::Condition,
    policy::{
        Policy,
        own::{Addresses, Differences},
    },
};

/// How long an image counts as up to date about the holder of each floating address, in seconds. A running
/// daemon renews the deadline twice a second.
const HOLDERS: u32 = 3;

impl Changes {
    /// Returns the policy with the addresses that the machine has now. `settings` come with the policy.
    pub(super) fn on_this_machine(
        &self,
        context: &Context,
        reconciler: &Reconciler,
        settings: &Settings,
        policy: Policy,
    ) -> Policy {
        match self.machine_addresses(context, reconciler, Some(settings)) {
            Ok(addresses) => policy.on(&addresses),
            Err(error) => {
                warn!("the addresses of this machine cannot be read: {:#}", anyhow!(error));
                policy
            }
        }
    }

    /// Compares the own addresses in force with the addresses of the machine, puts a change in force, and
    /// reports the differences from the site file.
    pub(in crate::daemon) fn check_addresses(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        check: &mut Check,
    ) {
        self.find_host(context, reconciler, check);
        // Before the addresses are read: an address that moves meanwhile is one that moved after the deadline
        // was set.
        let until = context.ticks.deadline(HOLDERS);
        let addresses = match self.machine_addresses(context, reconciler, None) {
            Ok(addresses) => addresses,
            Err(error) => return check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error))),
        };
        // Without the files the owner of an address is unknown: the image stays as it is.
        let Some(policy) = self.policy_in_force() else { return };
        let machine = policy.machine_of(&addresses);
        if machine != policy.machine
            && let Err(error) = self.readdress(context, reconciler, &addresses)
        {
            let about = format!("own addresses are not up to date: {error:#}");
            return check.note(Condition::SelfCheckFailed, &about);
        }
        if let Err(error) = until.and_then(|until| control::set_holders(&context.pins, until)) {
            check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error)));
        }
        let differences = self.policy_in_force().map(|policy| policy.differences(&addresses));
        for (condition, about) in conditions(&differences.unwrap_or_default()) {
            check.note(condition, &about);
        }
    }

    /// Returns the addresses of the machine. An interface counts as guarded if any settings that are in force,
    /// wait, return or come (`next`) name it, or if it has a guard under whatever name: a change of settings
    /// that waits for confirmation must not make an own address disappear.
    pub(super) fn machine_addresses(
        &self,
        context: &Context,
        reconciler: &Reconciler,
        next: Option<&Settings>,
    ) -> Result<Addresses, KernelError> {
        let waiting = self.waiting.as_ref().map(|waiting| &waiting.next.settings);
        let held = self.held.as_ref().map(|held| &held.settings);
        let settings = [Some(&self.settings), waiting, held, next].into_iter().flatten();
        let named = settings.flat_map(|settings| &settings.interfaces).map(|at| at.value.clone());
        let guarded = reconciler.names().into_iter().chain(context.pins.linked("xdp"));
        address::addresses(&named.chain(guarded).collect::<Vec<_>>())
    }

    /// Returns the policy that was put in force last.
    pub(in crate::daemon) fn policy_in_force(&self) -> Option<&Policy> {
        let waiting = self.waiting.as_ref().map(|waiting| &waiting.next);
        waiting.or(self.held.as_ref()).map(|held| &held.policy)
    }

    /// Puts the policy in force again with the addresses that the machine has now. A change that waits for
    /// confirmation continues to wait.
    fn readdress(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        addresses: &Addresses,
    ) -> anyhow::Result<()> {
        let base = self.held.as_ref().map(|held| held.policy.clone().on(addresses));
        let Some(policy) = self.policy_in_force().map(|policy| policy.clone().on(addresses)) else {
            return Ok(());
        };
        let readdressed = put_readdressed(context, &policy, base.as_ref());
        // Also after an error: the new images may be in their slots.
        reconciler.record_baseline(context);
        let Readdressed { installed, base: base_digest } = readdressed?;
        let list =
            |of: &[std::net::IpAddr]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        info!(
            "the addresses or VLANs of this machine changed: taken as own [{}], held [{}], VLANs {:?}, image {}",
            list(&policy.machine.taken),
            list(&policy.machine.held),
            policy.machine.vlans,
            installed.digest()
        );
        let settings = self.waiting.as_ref().map_or(&self.settings, |waiting| &waiting.next.settings).clone();
        self.in_force(&settings, (&installed).into());
        if let (Some(held), Some(base)) = (&mut self.held, base) {
            held.policy.machine = base.machine;
            if let (Some(record), Some(digest)) = (&mut held.record, base_digest) {
                record.image = digest;
                let record = record.clone();
                self.rewrite(Some((record.clone(), record.outcome)));
            }
        }
        let record = if let Some(waiting) = &mut self.waiting {
            waiting.next.policy.machine = policy.machine;
            waiting.record.image = installed.digest();
            waiting.next.record = Some(waiting.record.clone());
            waiting.installed = Some(installed);
            Some(waiting.record.clone())
        } else {
            self.save(context, &installed);
            self.held.as_mut().and_then(|held| held.record.as_mut()).map(|record| {
                record.image = installed.digest();
                record.clone()
            })
        };
        // `plan` identifies a change by the digest of its image.
        self.rewrite(record.map(|record| (record.clone(), record.outcome)));
        Ok(())
    }
}

/// Returns the differences between the site file and the machine as conditions.
fn conditions(differences: &Differences) -> BTreeMap<Condition, String> {
    let Differences { missing, unlisted, conflict } = differences;
    [
        (Condition::AddressMissing, missing),
        (Condition::AddressUnlisted, unlisted),
        (Condition::AddressConflict, conflict),
    ]
    .into_iter()
    .filter(|(_, found)| !found.is_empty())
    .map(|(condition, found)| (condition, found.join("; ")))
    .collect()
}

/// Compiles the policy that was put in force last, and the one that returns unless the pending change is
/// confirmed, in the places of their images.
fn put_readdressed(context: &Context, policy: &Policy, base: Option<&Policy>) -> anyhow::Result<Readdressed> {
    let places = install::places(&context.pins, context.ticks.clock())?;
    let image = places.installed.compile(policy)?;
    let base = places.base.zip(base).map(|(place, base)| place.compile(base)).transpose()?;
    Ok(install::readdress(&context.pins, image, base.as_ref())?)
}
