//! Keeps interfaces and maps as recorded: checks them, restores pomguard's own objects, and names foreign
//! changes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{error, info, warn};
use pomguard_common::names::{ARRAY_EGRESS, ARRAY_INGRESS, MAP_HOST, MAP_LABELS, MAP_POLICY};

use super::{
    context::DETACHED,
    message::{Check, Conditions},
    sight::{Act, Watch},
};
use crate::{
    input::settings::{Attach, AttachMode},
    kernel::{
        KernelError, attach,
        hook_handles::{Finding, HookHandles, Programs},
        interface,
        load::Loaded,
        map_baseline::MapBaseline,
        pinned_objects::PinnedObjects,
        pins::Pins,
        sight::Seen,
    },
    observe::condition::{Condition, Repair},
};

/// The interval at which the tables whose comparison takes long are compared.
const TABLES: Duration = Duration::from_secs(4);
/// The delay before attaching is tried again: a driver may reset the link of the interface at every attempt.
const RETRY: Duration = Duration::from_secs(5);

/// An interface to watch.
pub(super) struct Watched {
    pub(super) name: String,
    /// `None` while nothing is attached.
    pub(super) hold: Option<HookHandles>,
    /// True if the settings name the interface.
    pub(super) named: bool,
}

/// An interface that is guarded, or is to be guarded.
struct Guarded {
    name: String,
    /// True if the settings name the interface; one that they no longer name keeps the guard until it is
    /// taken off.
    named: bool,
    /// `None` while nothing is attached.
    hold: Option<HookHandles>,
    /// True if the guard was ever attached.
    known: bool,
    /// The last reported reason for which attaching failed, and the time of the next attempt.
    refused: Option<(String, Instant)>,
    /// The packets that the card took, compared with the packets that the guard saw.
    watch: Watch,
    /// True if native mode was blind: generic mode until the next start, regardless of the settings.
    blinded: bool,
}

impl Guarded {
    fn new(Watched { name, hold, named }: Watched) -> Self {
        let known = hold.is_some();
        Self { name, named, hold, known, refused: None, watch: Watch::default(), blinded: false }
    }

    /// Returns the attach mode of the interface.
    fn how(&self, settings: Attach) -> Attach {
        if self.blinded {
            Attach { mode: AttachMode::Generic, require_native: false, ..settings }
        } else {
            settings
        }
    }
}

impl Guarded {
    /// Compares the packets that the card took with the packets that the guard saw, and acts on a guard that
    /// is blind. Returns true if the link was replaced.
    fn compare(&mut self, loaded: &mut Loaded, pins: &Pins, check: &mut Check) -> Result<bool, KernelError> {
        let now = Instant::now();
        let view = if self.watch.is_due(now) {
            let ifindex = interface::index(&self.name)?;
            let native = interface::xdp(ifindex)?.is_some_and(|state| state.native);
            let cards = Seen::open(pins)?.check(ifindex, native)?;
            self.watch.check(now, cards, native)
        } else {
            self.watch.view()
        };
        if view.unseen {
            let about = format!("{}: its card takes packets, and the guard sees none: it is OPEN", self.name);
            check.note(Condition::Unseen, &about);
        }
        if view.partly {
            check.note(Condition::PartlyUnseen, &self.name);
        }
        let Some(act) = view.act else { return Ok(false) };
        let generic = act == Act::Generic;
        let word = if generic { "changed to generic mode" } else { "the program is put on again" };
        error!("{}: its card takes packets, and the guard sees none: {word}", self.name);
        attach::revive(loaded, pins, &self.name, generic)?;
        if generic {
            self.blinded = true;
            self.hold = Some(HookHandles::take(pins, &self.name)?);
        }
        Ok(generic)
    }
}

/// The state of the checks.
pub(super) struct Reconciler {
    programs: Programs,
    interfaces: Vec<Guarded>,
    /// Interfaces whose name another interface has taken. They stay enforced until the next start.
    renamed_interfaces: Vec<HookHandles>,
    /// The pinned objects, and the contents that the maps must have; `None` until a policy is in force.
    baseline: Option<(PinnedObjects, MapBaseline)>,
    /// True if a policy is in force whose baseline could not be recorded yet.
    baseline_due: bool,
    tables_due: Instant,
    /// The conditions reported last, so that each is logged once.
    last_status: BTreeMap<Condition, String>,
    /// The mode of the last attachment; `None` before the first one.
    pub(super) mode: Option<AttachMode>,
}

impl Reconciler {
    pub(super) fn new(loaded: &mut Loaded) -> Result<Self, KernelError> {
        Ok(Self {
            programs: Programs::from_loaded(loaded)?,
            interfaces: Vec::new(),
            renamed_interfaces: Vec::new(),
            baseline: None,
            baseline_due: false,
            tables_due: Instant::now(),
            last_status: BTreeMap::new(),
            mode: None,
        })
    }

    /// Records the present pins and map contents as the baseline. If they cannot be read, the next check
    /// tries again: until then nothing is compared, and especially not with the previous baseline.
    pub(super) fn record_baseline(&mut self, pins: &Pins) {
        (self.baseline, self.baseline_due) = (None, true);
        if let Err(error) = self.record_baseline_now(pins) {
            warn!("what is in force is not watched over yet: {:#}", anyhow!(error));
        }
    }

    fn record_baseline_now(&mut self, pins: &Pins) -> Result<(), KernelError> {
        self.baseline = Some((PinnedObjects::open(pins)?, MapBaseline::read(pins)?));
        self.baseline_due = false;
        Ok(())
    }

    /// Returns true if this interface is watched.
    pub(super) fn watches(&self, name: &str) -> bool {
        self.interfaces.iter().any(|guarded| guarded.name == name)
    }

    /// Returns true if the guard is attached to every interface.
    pub(super) fn is_whole(&self) -> bool {
        self.interfaces.iter().all(|guarded| guarded.hold.is_some())
    }

    /// Returns the present names of the interfaces that are watched, renamed ones too.
    pub(super) fn names(&self) -> Vec<String> {
        let held = self.interfaces.iter().filter_map(|guarded| guarded.hold.as_ref());
        let present = held.chain(&self.renamed_interfaces).filter_map(HookHandles::present_name);
        self.interfaces.iter().map(|guarded| guarded.name.clone()).chain(present).collect()
    }

    /// Returns the guarded interfaces that the settings do not name.
    pub(super) fn unnamed(&self) -> Vec<String> {
        self.interfaces.iter().filter(|it| !it.named).map(|it| it.name.clone()).collect()
    }

    /// Replaces the watched interfaces.
    pub(super) fn watch(&mut self, interfaces: Vec<Watched>) {
        let mut former = std::mem::take(&mut self.interfaces);
        self.interfaces = interfaces
            .into_iter()
            .map(|watched| {
                let fresh = Guarded::new(watched);
                match former.iter().position(|guarded| guarded.name == fresh.name) {
                    Some(at) => {
                        let Guarded { watch, blinded, .. } = former.swap_remove(at);
                        Guarded { watch, blinded, ..fresh }
                    }
                    None => fresh,
                }
            })
            .collect();
    }

    /// Returns the attach mode of an interface: that of the settings, unless native mode was blind there.
    pub(super) fn how(&self, name: &str, settings: Attach) -> Attach {
        let guarded = self.interfaces.iter().find(|guarded| guarded.name == name);
        guarded.map_or(settings, |guarded| guarded.how(settings))
    }

    /// Releases everything: the host was opened on purpose.
    pub(super) fn release(&mut self, lasting_conditions: &Conditions) -> Check {
        self.interfaces.clear();
        self.renamed_interfaces.clear();
        (self.baseline, self.baseline_due) = (None, false);
        let mut check = Check { conditions: lasting_conditions.clone(), ..Check::default() };
        check.note(Condition::Detached, DETACHED);
        self.tell(&check);
        check
    }

    /// Checks everything once, and restores what can be restored. [`Self::tell`] logs the result.
    pub(super) fn check(
        &mut self,
        loaded: &mut Loaded,
        pins: &Pins,
        how: Attach,
        lasting_conditions: &Conditions,
    ) -> Check {
        let mut check = Check { conditions: lasting_conditions.clone(), ..Check::default() };
        if let Err(error) = self.mend(pins, &mut check) {
            check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error)));
        }
        // The daemon does not wait for an interface that does not exist and that the settings do not name.
        self.interfaces.retain(|it| it.named || interface::index(&it.name).is_ok());
        for at in 0..self.interfaces.len() {
            self.check_interface(at, loaded, pins, how, &mut check);
        }
        // Until a change is confirmed, an interface that will lose the guard still has the guard: that is no
        // condition.
        if !lasting_conditions.contains_key(&Condition::Unconfirmed) {
            for kept in self.interfaces.iter().filter(|it| !it.named) {
                check.note(Condition::GuardKept, &kept.name);
            }
        }
        for renamed in &self.renamed_interfaces {
            check.note(Condition::InterfaceRenamed, renamed.interface());
        }
        check
    }

    /// Checks and restores pins and maps.
    fn mend(&mut self, pins: &Pins, check: &mut Check) -> Result<(), KernelError> {
        if self.baseline_due {
            self.record_baseline_now(pins)?;
        }
        let Some((held, content)) = &self.baseline else { return Ok(()) };
        let holds = self
            .interfaces
            .iter()
            .filter_map(|guarded| guarded.hold.as_ref())
            .chain(&self.renamed_interfaces);
        let links: Vec<_> = holds.flat_map(|hold| hold.pins(pins)).collect();
        let lost: Vec<PathBuf> = held.restore(pins, links.into_iter())?;
        for path in lost {
            error!("{} was not pinned any more: pinned again", path.display());
            check.repairs.push(Repair::Pin);
        }
        let mut mended = content.mend_words(pins, held)?;
        if self.tables_due <= Instant::now() {
            mended.extend(content.mend_tables(pins)?);
            attach::note_generic(pins)?;
            self.tables_due = Instant::now() + TABLES;
        }
        for map in mended {
            error!("map {map} was changed from outside: put back as it was installed");
            check.repairs.push(match map {
                MAP_POLICY => Repair::Policy,
                ARRAY_INGRESS | ARRAY_EGRESS => Repair::General,
                MAP_LABELS | MAP_HOST => Repair::Labels,
                _ => Repair::Control,
            });
        }
        Ok(())
    }

    /// Checks and restores one interface.
    fn check_interface(
        &mut self,
        at: usize,
        loaded: &mut Loaded,
        pins: &Pins,
        how: Attach,
        check: &mut Check,
    ) {
        let programs = self.programs;
        let Some(guarded) = self.interfaces.get_mut(at) else { return };
        let broken = match guarded.hold.as_ref().map(|hold| hold.inspect(programs)) {
            Some(Ok(Finding::Whole)) => {
                match guarded.hold.as_ref().map(|hold| hold.preceded(programs)) {
                    Some(Ok(them)) if !them.is_empty() => {
                        let them = format!("{}: before ours runs {}", guarded.name, them.join(" and "));
                        check.note(Condition::EgressPreceded, &them);
                    }
                    Some(Err(error)) => {
                        check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error)));
                    }
                    _ => {}
                }
                match guarded.compare(loaded, pins, check) {
                    Ok(false) => {}
                    Ok(true) => self.hold_again(at, pins),
                    Err(error) => check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error))),
                }
                return;
            }
            Some(Ok(Finding::Renamed(name))) => {
                check.note(Condition::InterfaceMissing, &guarded.name);
                check.note(Condition::InterfaceRenamed, &format!("{} is now {name}", guarded.name));
                return;
            }
            Some(Ok(Finding::Away)) => return check.note(Condition::InterfaceMissing, &guarded.name),
            Some(Ok(Finding::Gone)) => {
                guarded.hold = None;
                Vec::new()
            }
            Some(Ok(Finding::Broken(hooks))) => hooks,
            Some(Err(error)) => {
                return check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error)));
            }
            None => Vec::new(),
        };
        if interface::index(&guarded.name).is_err() {
            return check.note(Condition::InterfaceMissing, &guarded.name);
        }
        if let Some((why, _)) = guarded.refused.as_ref().filter(|(_, until)| *until > Instant::now()) {
            return check.note(Condition::InterfaceRefused, why);
        }
        // Another interface has taken the name: the one that had the name stays enforced.
        if let Some(name) = guarded.hold.as_ref().and_then(|hold| hold.strayed(programs))
            && let Some(mut hold) = guarded.hold.take()
        {
            match hold.rename(pins, name) {
                Ok(()) => self.renamed_interfaces.push(hold),
                Err(error) => {
                    check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error)));
                    guarded.hold = Some(hold);
                    return;
                }
            }
        }
        let attached = attach::attach(loaded, pins, &guarded.name, guarded.how(how))
            .and_then(|_| HookHandles::take(pins, &guarded.name));
        match attached {
            Ok(hold) => {
                let repairs: Vec<Repair> = match &guarded.hold {
                    Some(former) if former.is_of_same(&hold) => broken
                        .iter()
                        .map(|hook| if *hook == "xdp" { Repair::Xdp } else { Repair::Tc })
                        .collect(),
                    // The interface disappeared and came back, possibly all between two checks.
                    _ if guarded.known => vec![Repair::Interface],
                    _ => Vec::new(),
                };
                for repair in &repairs {
                    error!("{}: {} was taken away: attached again", guarded.name, repair.name());
                }
                if repairs.is_empty() {
                    info!("{}: is there now, and enforced on", guarded.name);
                }
                check.repairs.extend(repairs);
                (guarded.hold, guarded.known, guarded.refused) = (Some(hold), true, None);
                self.hold_again(at, pins);
            }
            Err(error) => {
                let why = format!("{} is NOT protected: {:#}", guarded.name, anyhow!(error));
                check.note(Condition::InterfaceRefused, &why);
                guarded.refused = Some((why, Instant::now() + RETRY));
            }
        }
    }

    /// Takes the links of all interfaces but one again: attaching to a lower device replaces links of the
    /// others.
    fn hold_again(&mut self, but: usize, pins: &Pins) {
        let others = self.interfaces.iter_mut().enumerate().filter(|(at, _)| *at != but);
        for (_, guarded) in others.filter(|(_, guarded)| guarded.hold.is_some()) {
            if let Ok(hold) = HookHandles::take(pins, &guarded.name) {
                guarded.hold = Some(hold);
            }
        }
    }

    /// Logs the conditions that began, changed and ended.
    pub(super) fn tell(&mut self, check: &Check) {
        for (condition, about) in &check.conditions {
            if self.last_status.get(condition) != Some(about) {
                error!("{}: {about}", condition.name());
            }
        }
        for ended in self.last_status.keys().filter(|condition| !check.conditions.contains_key(condition)) {
            warn!("{}: no more", ended.name());
        }
        self.last_status.clone_from(&check.conditions);
    }
}
