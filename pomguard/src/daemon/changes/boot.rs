//! The source of a start: the files or, if the files are refused, the policy that was in force before.

use std::{
    env, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use log::{error, info, warn};

use super::{
    Changes,
    identity::{Unplaced, identity_with, is_foreign},
    transition::DesiredState,
};
use crate::{
    daemon::{context::Context, message::Report, reconciler::Reconciler},
    input::{Draft, Settings},
    kernel::{
        control,
        install::{self, Installed},
        interface,
        pins::Pins,
    },
    observe::{condition::Condition, reading},
    paths,
    policy::{self, Policy},
    render::quantity::timestamp,
    state::confirmed::{self, Confirmed, StateError},
};

/// The delay before a failed save is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The end of a condition if the history does not have the files of the policy in force.
const UNFOLLOWED: &str = "; the history does not have the files of this policy, so addresses of this machine that \
                          come or go are not followed: correct the files, then `pomguard apply`";

/// The policy that a start puts in force.
pub(in crate::daemon) enum StartSource {
    /// The policy of the files. The files stay with it if the host goes by its last name.
    Files(Box<DesiredState>, Option<Box<Draft>>),
    /// The policy that was in force before.
    ConfirmedPolicy(Box<ConfirmedPolicy>),
}

/// The policy that remains when the files are refused.
pub(in crate::daemon) struct ConfirmedPolicy {
    /// The reason for which the files are refused.
    why: anyhow::Error,
    /// The last confirmed policy on disk; `None` if there is none or if it cannot be used.
    confirmed: Option<Confirmed>,
    /// The reason for which the state on disk cannot be used.
    unreadable: Option<StateError>,
    /// True if another machine saved that policy.
    foreign: bool,
    /// The files, if they could be read and no host of the site is this machine.
    draft: Option<Draft>,
}

impl ConfirmedPolicy {
    /// The policy that the maps have in force.
    pub(super) const fn in_force(why: anyhow::Error) -> Self {
        Self { why, confirmed: None, unreadable: None, foreign: false, draft: None }
    }
}

/// Reads the files. If they are refused, looks for another policy to enforce.
///
/// # Errors
/// If there is neither: a mistake in the first file of a host that was never guarded must not cut the host
/// off.
pub(in crate::daemon) fn start_source(config: &Path) -> anyhow::Result<(Settings, StartSource)> {
    let (draft, why) = match Draft::load(config) {
        Ok(draft) => match resolve_here(&draft) {
            Ok(policy) => {
                let desired = DesiredState::new(draft, policy);
                return Ok((desired.settings.clone(), StartSource::Files(Box::new(desired), None)));
            }
            Err(why) => (Some(draft), why),
        },
        Err(why) => (None, why.into()),
    };
    let named = draft.as_ref().map(|draft| draft.settings.clone()).or_else(|| Settings::load(config).ok());
    let (confirmed, unreadable) = match confirmed::load(&state_folder(named.as_ref())) {
        Ok(confirmed) => (confirmed, None),
        Err(error) => (None, Some(error)),
    };
    let foreign = confirmed.as_ref().is_some_and(|confirmed| is_foreign(confirmed, named.as_ref()));
    if let (Some(draft), Some(confirmed), false) = (&draft, &confirmed, foreign)
        && let Some(desired) = by_last_name(draft, &confirmed.about.host)
    {
        let draft = Some(Box::new(draft.clone()));
        return Ok((desired.settings.clone(), StartSource::Files(Box::new(desired), draft)));
    }
    let settings = named.or_else(|| {
        let about = &confirmed.as_ref()?.about;
        Settings::parse(&config.display().to_string(), &about.settings).ok()
    });
    let Some(settings) = settings else { return Err(with(why, unreadable)) };
    if confirmed.is_none() && !in_force(&Pins::new(&settings.paths.pins)) {
        return Err(with(why, unreadable));
    }
    let confirmed_policy = ConfirmedPolicy { why, confirmed, unreadable, foreign, draft };
    Ok((settings, StartSource::ConfirmedPolicy(Box::new(confirmed_policy))))
}

/// Resolves the files for the host that `host` of the settings or an address of this machine tells.
fn resolve_here(draft: &Draft) -> anyhow::Result<Policy> {
    Ok(policy::resolve(draft, &interface::addresses()?)?)
}

/// Resolves the files for the host with the name under which this machine last enforced: before the network is
/// up, this machine has no address by which the site file could identify the host.
fn by_last_name(draft: &Draft, last: &str) -> Option<DesiredState> {
    let host =
        draft.site.hosts.iter().find(|host| draft.settings.host.is_none() && host.name.value == last)?;
    let known: Vec<IpAddr> = host.addresses.iter().map(|at| at.value.addr()).collect();
    let policy = policy::resolve(draft, &known).ok()?;
    warn!("this host has no address of the site yet: it goes by its last name, {last}");
    Some(DesiredState::new(draft.clone(), policy))
}

/// Returns the reason, with the error of the state on disk as context.
fn with(why: anyhow::Error, unreadable: Option<StateError>) -> anyhow::Error {
    match unreadable {
        Some(error) => why.context(format!("no policy to go by instead: {:#}", anyhow!(error))),
        None => why,
    }
}

/// Returns the state folder, also without settings: systemd passes the folder that it made.
fn state_folder(settings: Option<&Settings>) -> PathBuf {
    settings.map_or_else(
        || env::var_os("STATE_DIRECTORY").map_or_else(|| paths::STATE.into(), PathBuf::from),
        |settings| settings.paths.state.clone(),
    )
}

/// Returns true if the pins show that a policy is in force.
fn in_force(pins: &Pins) -> bool {
    control::active(pins).is_ok_and(|active| pins.image(active.installed()).exists())
}

/// Returns true if the failure was a lack of descriptors or memory, and not an error in the files.
fn lacks_resources(why: &anyhow::Error) -> bool {
    let lack = |error: &io::Error| {
        matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
    };
    // The error of a file that could not be opened is plain text here. Opening a file shows if there are
    // descriptors.
    why.chain().filter_map(|cause| cause.downcast_ref()).any(lack)
        || fs::File::open("/dev/null").is_err_and(|error| lack(&error))
}

impl Changes {
    /// Continues with the policy that was in force before, and raises a condition that says so.
    ///
    /// # Errors
    /// If that policy cannot be put in force.
    pub(super) fn keep(
        &mut self,
        context: &Context,
        reconciler: &mut Reconciler,
        confirmed_policy: ConfirmedPolicy,
    ) -> anyhow::Result<()> {
        let ConfirmedPolicy { why, confirmed, unreadable, foreign, draft } = confirmed_policy;
        if let Some(error) = unreadable {
            self.conditions.insert(Condition::StateUnreadable, format!("{:#}", anyhow!(error)));
        }
        match (confirmed, in_force(&context.pins)) {
            (None, false) => bail!("there is no confirmed policy"),
            (confirmed, true) if confirmed.is_none() || !self.only_failsafe_in_force(context, foreign) => {
                info!("the policy in force stays in force");
                let change = confirmed.and_then(|confirmed| confirmed.about.change);
                self.recall(&[&reading::image(&context.pins)?.image], change);
            }
            (None, true) => {}
            (Some(confirmed), _) if foreign && !self.has_address_of(&confirmed) => {
                self.only_failsafe(context, reconciler, &confirmed)?;
                self.unplaced = Some(Unplaced::foreign(draft, confirmed));
            }
            (Some(confirmed), _) => self.load_saved(context, reconciler, confirmed)?,
        }
        self.line_by_maps(context)?;
        self.refused(context, &why);
        self.in_force_by_maps(context);
        self.reports.push(Report::Failed);
        Ok(())
    }

    /// Reports one line about the policy in force as the maps have it: the history may not know the policy.
    pub(super) fn line_by_maps(&mut self, context: &Context) -> anyhow::Result<()> {
        let snapshot = reading::snapshot(&context.pins)?;
        let tuples = snapshot.capacity.iter().find(|it| it.name == "tuples").map_or(0, |it| it.used);
        self.reports.push(Report::Line(format!(
            "{} {}: inbound {}, outbound {}, generation {}, {tuples} tuples",
            snapshot.host,
            snapshot.matrix,
            snapshot.inbound.name(),
            snapshot.outbound.name(),
            snapshot.generation,
        )));
        Ok(())
    }

    /// Records that the files are refused, or that resources were lacking, and which policy holds instead.
    pub(in crate::daemon) fn refused(&mut self, context: &Context, why: &anyhow::Error) {
        let condition =
            if lacks_resources(why) { Condition::ResourcesExhausted } else { Condition::FilesRefused };
        let since = reading::snapshot(&context.pins)
            .map_or_else(|_| "earlier".to_owned(), |it| timestamp(it.installed_at));
        let why = format!("{why:#}").replace('\n', "; ");
        let about = if self.is_unidentified() {
            format!("the files: {why}")
        } else {
            let unfollowed = if self.held.is_none() { UNFOLLOWED } else { "" };
            format!("the last confirmed policy is in force, since {since}; the files: {why}{unfollowed}")
        };
        self.conditions.insert(condition, about);
    }

    /// Saves the policy in force for the next boot. If saving fails, the policy stays in force.
    pub(super) fn save(&mut self, context: &Context, installed: &Installed) {
        // The saved policy stays: the machine that saved it, or a host of the files, may still be found.
        if self.is_unidentified() {
            return;
        }
        // The text that was accepted: the file may have changed since.
        let settings = self.settings.source.text.clone();
        match install::confirmed(&context.pins, installed, settings) {
            Ok(mut confirmed) => {
                let now = identity_with(&self.settings);
                // A card that is away now keeps its place among the facts.
                let before = confirmed::load(&context.paths.state).ok().flatten();
                let before = before.and_then(|before| before.about.identity);
                let before = before.filter(|before| !before.is_other(&now)).unwrap_or_default();
                confirmed.about.identity = Some(before.renewed(now));
                confirmed.about.change =
                    self.held.as_ref().and_then(|held| held.record.as_ref()).map(|record| record.number);
                self.try_save(context, confirmed);
            }
            Err(error) => error!("what is in force cannot be saved: {:#}", anyhow!(error)),
        }
    }

    /// Repeats a failed save when the delay is over.
    pub(in crate::daemon) fn save_again(&mut self, context: &Context) {
        if let Some((confirmed, _)) = self.unsaved.take_if(|(_, due)| *due <= Instant::now()) {
            self.try_save(context, confirmed);
        }
    }

    /// Saves a policy for the next boot. If saving fails, the daemon tries again later.
    pub(super) fn try_save(&mut self, context: &Context, confirmed: Confirmed) {
        match confirmed::save(&context.paths.state, &confirmed) {
            Ok(()) => {
                self.unsaved = None;
                self.conditions.remove(&Condition::StateUnsaved);
                self.conditions.remove(&Condition::StateUnreadable);
            }
            Err(error) => {
                self.conditions.insert(Condition::StateUnsaved, format!("{:#}", anyhow!(error)));
                self.unsaved = Some((confirmed, Instant::now() + RETRY));
            }
        }
    }
}
