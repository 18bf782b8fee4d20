//! The host that this machine is, if no address tells: the last name, the saved policy, or the failsafe rows
//! alone if another machine saved both.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use log::{info, warn};

use super::{
    Changes,
    install::{install, reinstall},
    transition::{ActivePolicy, DesiredState},
};
use crate::{
    compile,
    daemon::{context::Context, message::Check, reconciler::Reconciler},
    history::Record,
    input::{Draft, Settings},
    kernel::{KernelError, identity, image_reader, interface},
    observe::{condition::Condition, reading},
    policy,
    state::{
        confirmed::{self, Confirmed},
        failsafe::UNIDENTIFIED,
        identity::Identity,
    },
};

/// A start for which no address told the host.
pub(super) struct Unplaced {
    /// The files of the start; `None` if they are refused.
    draft: Option<Draft>,
    /// The policy that another machine saved; `None` if the host goes by its last name.
    foreign: Option<Confirmed>,
    /// The addresses and the identity of this machine at the last attempt that found no host.
    tried: Option<(Vec<IpAddr>, Identity)>,
    /// The time of the next attempt after one that failed.
    retry: Option<Instant>,
}

/// The delay after an attempt that failed: each one may install a policy.
const RETRY: Duration = Duration::from_secs(5);

impl Unplaced {
    /// The host goes by its last name, in the files of `draft`.
    pub(super) const fn by_last_name(draft: Draft) -> Self {
        Self { draft: Some(draft), foreign: None, tried: None, retry: None }
    }

    /// Another machine saved the policy `foreign`.
    pub(super) const fn foreign(draft: Option<Draft>, foreign: Confirmed) -> Self {
        Self { draft, foreign: Some(foreign), tried: None, retry: None }
    }
}

/// Returns the identity of this machine, with the interfaces of these settings.
pub(super) fn identity_with(settings: &Settings) -> Identity {
    let names: Vec<String> = settings.interfaces.iter().map(|at| at.value.clone()).collect();
    identity::identity(&names)
}

/// Returns true if another machine saved the policy. The text of the settings that is saved with the policy
/// names the interfaces if `settings` is `None`.
pub(super) fn is_foreign(confirmed: &Confirmed, settings: Option<&Settings>) -> bool {
    let Some(before) = &confirmed.about.identity else { return false };
    let saved = || Settings::parse("the saved settings", &confirmed.about.settings).ok();
    let now = settings.map(identity_with).or_else(|| Some(identity_with(&saved()?)));
    before.is_other(&now.unwrap_or_default())
}

impl Changes {
    /// Returns true if only failsafe rows hold because another machine saved the policy.
    pub(super) fn is_unidentified(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.policy.host == UNIDENTIFIED)
    }

    /// Puts the failsafe rows of another machine's policy in force, and no other row.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn only_failsafe(
        &mut self,
        context: &Context,
        reconciler: &Reconciler,
        foreign: &Confirmed,
    ) -> anyhow::Result<()> {
        let settings = self.settings.clone();
        let policy = self.on_this_machine(context, reconciler, &settings, foreign.only_failsafe(&settings));
        install(context, &policy, None)?;
        self.held = Some(ActivePolicy { settings, policy, record: None });
        warn!("another machine saved the policy of {}: only its failsafe rows hold", foreign.about.host);
        Ok(())
    }

    /// Takes the failsafe rows of another machine's policy for what a pending change returns to, if that is in
    /// the kernel: the history does not have it.
    pub(super) fn expect_failsafe(&mut self, context: &Context, reconciler: &Reconciler) {
        let Ok(Some(saved)) = confirmed::load(&context.paths.state) else { return };
        if !is_foreign(&saved, Some(&self.settings))
            || self.has_image(image_reader::fallback_digest(&context.pins))
        {
            return;
        }
        let settings = self.settings.clone();
        let policy = self.on_this_machine(context, reconciler, &settings, saved.only_failsafe(&settings));
        self.held = Some(ActivePolicy { settings, policy, record: None });
        let draft = Draft::load(&self.config).ok();
        self.unplaced = Some(Unplaced::foreign(draft, saved));
    }

    /// Returns true if the history has the policy of this image as the one in force.
    fn has_image(&self, digest: Result<String, KernelError>) -> bool {
        let recorded = self.base(&self.history.list().0).and_then(|held| held.record);
        recorded.zip(digest.ok()).is_some_and(|(record, digest)| record.image == digest)
    }

    /// Returns true if the image in force has only the failsafe rows of another machine's policy. The name of
    /// the host in the maps is not enough: a change that returned leaves its own name there.
    pub(super) fn only_failsafe_in_force(&self, context: &Context, foreign: bool) -> bool {
        let snapshot = reading::snapshot(&context.pins);
        snapshot.is_ok_and(|it| it.host == UNIDENTIFIED || foreign && !self.has_image(Ok(it.image)))
    }

    /// Ends the search for the host after a change of policy. While the change waits for confirmation, the
    /// failsafe rows of another machine's policy may still return, so the search for its host goes on later.
    pub(super) fn end_search(&mut self, waits: bool) {
        self.unplaced.take_if(|unplaced| !waits || unplaced.foreign.is_none());
    }

    /// Looks for the host again if no address told it at the start, and puts its policy in force.
    pub(super) fn find_host(&mut self, context: &Context, reconciler: &mut Reconciler, check: &mut Check) {
        let unidentified = self.is_unidentified();
        if self.waiting.is_none()
            && let Some(mut unplaced) = self.unplaced.take()
        {
            if unplaced.retry.is_some_and(|retry| retry > Instant::now()) {
                self.unplaced = Some(unplaced);
            } else {
                match self.find_host_of(context, reconciler, &mut unplaced, unidentified) {
                    Ok(true) => {}
                    Ok(false) => self.unplaced = Some(unplaced),
                    Err(error) => {
                        check.note(Condition::SelfCheckFailed, &format!("the host is not found: {error:#}"));
                        unplaced.retry = Some(Instant::now() + RETRY);
                        self.unplaced = Some(unplaced);
                    }
                }
            }
        }
        if self.waiting.is_none() && self.is_unidentified() {
            check.note(
                Condition::IdentityChanged,
                "machine id, product UUID and MAC addresses are those of another machine than the one that saved \
                 the policy, and no listed address is here: only failsafe rows hold",
            );
        }
    }

    /// Returns true if the host is known now.
    fn find_host_of(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        unplaced: &mut Unplaced,
        unidentified: bool,
    ) -> anyhow::Result<bool> {
        if unplaced.foreign.is_some() && !unidentified {
            // Somebody put other files in force.
            return Ok(true);
        }
        let now = (interface::addresses()?, identity_with(&self.settings));
        if unplaced.tried.as_ref() == Some(&now) {
            return Ok(false);
        }
        let (addresses, identity) = &now;
        if let Some(draft) = &unplaced.draft
            && let Ok(policy) = policy::resolve(draft, addresses)
        {
            let held = self.held.as_ref().map(|held| held.policy.host.as_str());
            if held == Some(policy.host.as_str()) {
                return Ok(true);
            }
            warn!("by its addresses this host is {}: its policy comes in force", policy.host);
            let desired = DesiredState::new(draft.clone(), policy);
            self.start(context, reconciler, desired).context("put the policy of this host in force")?;
            return Ok(true);
        }
        let Some(foreign) = &unplaced.foreign else {
            unplaced.tried = Some(now);
            return Ok(false);
        };
        let same = foreign.about.identity.as_ref().is_none_or(|before| !before.is_other(identity));
        if !same && !self.has_address_of(foreign) {
            unplaced.tried = Some(now);
            return Ok(false);
        }
        info!("this machine is the one that saved the policy, or has one of its addresses");
        let foreign = foreign.clone();
        self.load_saved(context, reconciler, foreign)?;
        self.line_by_maps(context)?;
        Ok(true)
    }

    /// Returns true if this machine has an address that the files of the saved policy list for its host.
    pub(super) fn has_address_of(&self, saved: &Confirmed) -> bool {
        let Ok(addresses) = interface::addresses() else { return false };
        let recorded = self.base(&self.history.list().0);
        recorded.is_some_and(|recorded| {
            recorded.policy.host == saved.about.host
                && addresses.iter().any(|address| recorded.policy.local.contains(address))
        })
    }

    /// Puts the saved policy in force, and saves it again with the identity of this machine.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn load_saved(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        confirmed: Confirmed,
    ) -> anyhow::Result<()> {
        let installed = reinstall(context, &confirmed).context("put the last confirmed policy in force")?;
        info!("generation {} in force: image {}", installed.generation(), installed.digest());
        reconciler.record_baseline(context);
        let saved =
            compile::ImageFacts::read(&confirmed.lines).map(|record| record.hex()).unwrap_or_default();
        self.recall(&[&installed.digest(), &saved], confirmed.about.change);
        let settings = self.settings.clone();
        self.in_force(&settings, (&installed).into());
        self.renew(context, confirmed);
        Ok(())
    }

    /// Takes the policy of the image in force from the history, so that the addresses of this machine are
    /// followed. Without it, the owner of an address is unknown. The image has one of these digests, or comes
    /// from the change with this number: the digest of a saved image is another one on a kernel with another
    /// clock, and after a change of addresses.
    pub(super) fn recall(&mut self, images: &[&str], change: Option<u64>) {
        let is_it =
            |record: &Record| images.contains(&record.image.as_str()) || change == Some(record.number);
        self.held = self.base(&self.history.list().0).filter(|held| held.record.as_ref().is_some_and(is_it));
        if self.held.is_none() {
            warn!(
                "the history has no files of the policy in force: addresses of this machine are not followed"
            );
        }
    }

    /// Saves a policy again if the saved identity is not that of this machine.
    fn renew(&mut self, context: &Context, mut confirmed: Confirmed) {
        let now = identity_with(&self.settings);
        let before = confirmed.about.identity.take();
        let renewed = before.clone().unwrap_or_default().renewed(now);
        if before.as_ref() != Some(&renewed) {
            confirmed.about.identity = Some(renewed);
            self.try_save(context, confirmed);
        }
    }
}
