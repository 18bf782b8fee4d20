//! Keeps interfaces and maps as they were made: looks, puts right what is ours, names what is not.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{error, info, warn};
use pomguard_common::names::{ARRAY_EGRESS, ARRAY_INGRESS, MAP_HOST, MAP_LABELS, MAP_POLICY};

use super::sight::{Act, Watch};
use crate::{
    input::settings::{Attach, AttachMode},
    kernel::{
        KernelError, attach,
        content::Content,
        held::Held,
        hold::{Finding, Hold, Programs},
        interface,
        load::Loaded,
        pins::Pins,
        sight::Seen,
    },
    observe::condition::{Condition, Repair},
};

/// How often the tables are compared that take more than a moment.
const TABLES: Duration = Duration::from_secs(4);
/// How long an interface that refused is left alone: a driver may reset its link at every attempt.
const RETRY: Duration = Duration::from_secs(5);

/// What `pomguard detach` means for a daemon that runs.
pub(super) const DETACHED: &str =
    "`pomguard detach` opened this host; `systemctl restart pomguard` enforces again";

/// An interface of the settings.
struct Guarded {
    name: String,
    /// None while it is not attached to.
    hold: Option<Hold>,
    /// Whether it once was.
    known: bool,
    /// Why not, as it was last said, and when to try again.
    refused: Option<(String, Instant)>,
    /// What its card took, beside what the guard saw.
    watch: Watch,
    /// Native mode was blind: generic until the next start, whatever the settings say.
    blinded: bool,
}

impl Guarded {
    fn new(name: String, hold: Option<Hold>) -> Self {
        let known = hold.is_some();
        Self { name, hold, known, refused: None, watch: Watch::default(), blinded: false }
    }

    /// How it is attached to.
    fn how(&self, settings: Attach) -> Attach {
        if self.blinded {
            Attach { mode: AttachMode::Generic, require_native: false, ..settings }
        } else {
            settings
        }
    }
}

impl Guarded {
    /// Compares what the card took with what the guard saw, and does something about a guard that is blind.
    fn compare(&mut self, loaded: &mut Loaded, pins: &Pins, look: &mut Look) -> Result<(), KernelError> {
        let now = Instant::now();
        let view = if self.watch.is_due(now) {
            let ifindex = interface::index(&self.name)?;
            let native = interface::xdp(ifindex)?.is_some_and(|state| state.native);
            let cards = Seen::open(pins)?.look(ifindex, native)?;
            self.watch.look(now, cards, native)
        } else {
            self.watch.view()
        };
        if view.unseen {
            let about = format!("{}: its card takes packets, and the guard sees none: it is OPEN", self.name);
            look.note(Condition::Unseen, &about);
        }
        if view.partly {
            look.note(Condition::PartlyUnseen, &self.name);
        }
        let Some(act) = view.act else { return Ok(()) };
        let generic = act == Act::Generic;
        let word = if generic { "changed to generic mode" } else { "the program is put on again" };
        error!("{}: its card takes packets, and the guard sees none: {word}", self.name);
        attach::revive(loaded, pins, &self.name, generic)?;
        if generic {
            self.blinded = true;
            self.hold = Some(Hold::take(pins, &self.name)?);
        }
        Ok(())
    }
}

/// What is not as it should be, and has nothing to do with what a look finds.
type Standing = BTreeMap<Condition, String>;

/// What one look came to.
#[derive(Default)]
pub(super) struct Look {
    pub(super) conditions: BTreeMap<Condition, String>,
    pub(super) repairs: Vec<Repair>,
}

impl Look {
    fn note(&mut self, condition: Condition, about: &str) {
        let told = self.conditions.entry(condition).or_default();
        if !told.is_empty() {
            told.push_str(", ");
        }
        told.push_str(about);
    }
}

/// All that is watched over.
pub(super) struct Guard {
    programs: Programs,
    interfaces: Vec<Guarded>,
    /// Interfaces whose name another one has taken. They stay enforced on until a start.
    strays: Vec<Hold>,
    /// What is pinned, and what the maps are to hold; none until something is in force.
    sealed: Option<(Held, Content)>,
    /// Something is in force that could not be sealed yet.
    seal_due: bool,
    tables_due: Instant,
    /// What was said last, so that a state is told once.
    told: BTreeMap<Condition, String>,
}

impl Guard {
    pub(super) fn new(loaded: &mut Loaded) -> Result<Self, KernelError> {
        Ok(Self {
            programs: Programs::of(loaded)?,
            interfaces: Vec::new(),
            strays: Vec::new(),
            sealed: None,
            seal_due: false,
            tables_due: Instant::now(),
            told: BTreeMap::new(),
        })
    }

    /// Takes what is pinned and in the maps now as what is to be there. Where it cannot be read, the next
    /// look tries again: until then nothing is compared, least of all with what was there before.
    pub(super) fn seal(&mut self, pins: &Pins) {
        (self.sealed, self.seal_due) = (None, true);
        if let Err(fault) = self.seal_now(pins) {
            warn!("what is in force is not watched over yet: {:#}", anyhow!(fault));
        }
    }

    fn seal_now(&mut self, pins: &Pins) -> Result<(), KernelError> {
        self.sealed = Some((Held::of(pins)?, Content::of(pins)?));
        self.seal_due = false;
        Ok(())
    }

    /// Whether this interface is one of those watched over.
    pub(super) fn watches(&self, name: &str) -> bool {
        self.interfaces.iter().any(|guarded| guarded.name == name)
    }

    /// Replaces the interfaces that are watched over: these names, with what they are held by.
    pub(super) fn watch(&mut self, interfaces: Vec<(String, Option<Hold>)>) {
        let mut former = std::mem::take(&mut self.interfaces);
        self.interfaces = interfaces
            .into_iter()
            .map(|(name, hold)| {
                let fresh = Guarded::new(name, hold);
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

    /// How an interface is attached to: as the settings say, unless native mode was blind there.
    pub(super) fn how(&self, name: &str, settings: Attach) -> Attach {
        let guarded = self.interfaces.iter().find(|guarded| guarded.name == name);
        guarded.map_or(settings, |guarded| guarded.how(settings))
    }

    /// Lets go of everything: the host was opened on purpose.
    pub(super) fn release(&mut self, standing: &Standing) -> Look {
        self.interfaces.clear();
        self.strays.clear();
        (self.sealed, self.seal_due) = (None, false);
        let mut look = Look { conditions: standing.clone(), ..Look::default() };
        look.note(Condition::Detached, DETACHED);
        self.tell(&look);
        look
    }

    /// Looks at everything once, and puts right what can be.
    pub(super) fn look(
        &mut self,
        loaded: &mut Loaded,
        pins: &Pins,
        how: Attach,
        standing: &Standing,
    ) -> Look {
        let mut look = Look { conditions: standing.clone(), ..Look::default() };
        if let Err(fault) = self.mend(pins, &mut look) {
            look.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(fault)));
        }
        for at in 0..self.interfaces.len() {
            self.look_at(at, loaded, pins, how, &mut look);
        }
        for stray in &self.strays {
            look.note(Condition::InterfaceRenamed, stray.interface());
        }
        self.tell(&look);
        look
    }

    /// Pins and maps.
    fn mend(&mut self, pins: &Pins, look: &mut Look) -> Result<(), KernelError> {
        if self.seal_due {
            self.seal_now(pins)?;
        }
        let Some((held, content)) = &self.sealed else { return Ok(()) };
        let holds = self.interfaces.iter().filter_map(|guarded| guarded.hold.as_ref()).chain(&self.strays);
        let links: Vec<_> = holds.flat_map(|hold| hold.pins(pins)).collect();
        let lost: Vec<PathBuf> = held.restore(pins, links.into_iter())?;
        for path in lost {
            error!("{} was not pinned any more: pinned again", path.display());
            look.repairs.push(Repair::Pin);
        }
        let mut mended = content.mend_words(pins, held)?;
        if self.tables_due <= Instant::now() {
            mended.extend(content.mend_tables(pins)?);
            attach::note_generic(pins)?;
            self.tables_due = Instant::now() + TABLES;
        }
        for map in mended {
            error!("map {map} was changed from outside: put back as it was installed");
            look.repairs.push(match map {
                MAP_POLICY => Repair::Policy,
                ARRAY_INGRESS | ARRAY_EGRESS => Repair::General,
                MAP_LABELS | MAP_HOST => Repair::Labels,
                _ => Repair::Control,
            });
        }
        Ok(())
    }

    /// One interface.
    fn look_at(&mut self, at: usize, loaded: &mut Loaded, pins: &Pins, how: Attach, look: &mut Look) {
        let programs = self.programs;
        let Some(guarded) = self.interfaces.get_mut(at) else { return };
        let broken = match guarded.hold.as_ref().map(|hold| hold.inspect(programs)) {
            Some(Ok(Finding::Whole)) => {
                match guarded.hold.as_ref().map(|hold| hold.preceded(programs)) {
                    Some(Ok(them)) if !them.is_empty() => {
                        let them = format!("{}: before ours runs {}", guarded.name, them.join(" and "));
                        look.note(Condition::EgressPreceded, &them);
                    }
                    Some(Err(fault)) => {
                        look.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(fault)));
                    }
                    _ => {}
                }
                if let Err(fault) = guarded.compare(loaded, pins, look) {
                    look.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(fault)));
                }
                return;
            }
            Some(Ok(Finding::Renamed(name))) => {
                look.note(Condition::InterfaceMissing, &guarded.name);
                look.note(Condition::InterfaceRenamed, &format!("{} is now {name}", guarded.name));
                return;
            }
            Some(Ok(Finding::Away)) => return look.note(Condition::InterfaceMissing, &guarded.name),
            Some(Ok(Finding::Gone)) => {
                guarded.hold = None;
                Vec::new()
            }
            Some(Ok(Finding::Broken(hooks))) => hooks,
            Some(Err(fault)) => {
                return look.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(fault)));
            }
            None => Vec::new(),
        };
        if interface::index(&guarded.name).is_err() {
            return look.note(Condition::InterfaceMissing, &guarded.name);
        }
        if let Some((why, _)) = guarded.refused.as_ref().filter(|(_, until)| *until > Instant::now()) {
            return look.note(Condition::InterfaceRefused, why);
        }
        // Another interface has taken the name: the one that had it stays enforced on.
        if let Some(name) = guarded.hold.as_ref().and_then(|hold| hold.strayed(programs))
            && let Some(mut hold) = guarded.hold.take()
        {
            match hold.rename(pins, name) {
                Ok(()) => self.strays.push(hold),
                Err(fault) => {
                    look.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(fault)));
                    guarded.hold = Some(hold);
                    return;
                }
            }
        }
        let attached = attach::attach(loaded, pins, &guarded.name, guarded.how(how))
            .and_then(|_| Hold::take(pins, &guarded.name));
        match attached {
            Ok(hold) => {
                let repairs: Vec<Repair> = match &guarded.hold {
                    Some(former) if former.is_of_same(&hold) => broken
                        .iter()
                        .map(|hook| if *hook == "xdp" { Repair::Xdp } else { Repair::Tc })
                        .collect(),
                    // It went and came again, maybe all of it between two looks.
                    _ if guarded.known => vec![Repair::Interface],
                    _ => Vec::new(),
                };
                for repair in &repairs {
                    error!("{}: {} was taken away: attached again", guarded.name, repair.name());
                }
                if repairs.is_empty() {
                    info!("{}: is there now, and enforced on", guarded.name);
                }
                look.repairs.extend(repairs);
                (guarded.hold, guarded.known, guarded.refused) = (Some(hold), true, None);
            }
            Err(fault) => {
                let why = format!("{} is NOT protected: {:#}", guarded.name, anyhow!(fault));
                look.note(Condition::InterfaceRefused, &why);
                guarded.refused = Some((why, Instant::now() + RETRY));
            }
        }
    }

    /// Logs what began, changed and ended.
    fn tell(&mut self, look: &Look) {
        for (condition, about) in &look.conditions {
            if self.told.get(condition) != Some(about) {
                error!("{}: {about}", condition.name());
            }
        }
        for ended in self.told.keys().filter(|condition| !look.conditions.contains_key(condition)) {
            warn!("{}: no more", ended.name());
        }
        self.told.clone_from(&look.conditions);
    }
}
