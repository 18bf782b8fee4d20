//! One guarded interface: checks the hooks, attaches again, and acts on a guard that sees nothing.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use log::{error, info};

use super::{
    Reconciler,
    sight::{Act, Watch},
};
use crate::{
    daemon::message::Check,
    input::settings::{Attach, AttachMode},
    kernel::{
        KernelError, attach,
        hook_handles::{HookHandles, HookState},
        interface,
        load::Loaded,
        pins::Pins,
        sight::Seen,
    },
    observe::condition::{Condition, Repair},
};

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
pub(super) struct Guarded {
    pub(super) name: String,
    /// True if the settings name the interface; one that they no longer name keeps the guard until it is
    /// taken off.
    pub(super) named: bool,
    /// `None` while nothing is attached.
    pub(super) hold: Option<HookHandles>,
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
    pub(super) fn new(Watched { name, hold, named }: Watched) -> Self {
        let known = hold.is_some();
        Self { name, named, hold, known, refused: None, watch: Watch::default(), blinded: false }
    }

    /// Continues to watch an interface: what is known about its card stays.
    pub(super) fn again(watched: Watched, Self { watch, blinded, .. }: Self) -> Self {
        Self { watch, blinded, ..Self::new(watched) }
    }

    /// Returns true if this is the same interface.
    pub(super) fn is_of(&self, watched: &Watched) -> bool {
        self.name == watched.name
    }

    /// Returns the attach mode of the interface.
    pub(super) fn how(&self, settings: Attach) -> Attach {
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

impl Reconciler {
    /// Checks and restores one interface.
    pub(super) fn check_interface(&mut self, at: usize, pins: &Pins, how: Attach, check: &mut Check) {
        let programs = self.programs;
        let Some(guarded) = self.interfaces.get_mut(at) else { return };
        let broken = match guarded.hold.as_ref().map(|hold| hold.inspect(programs)) {
            Some(Ok(HookState::Whole)) => {
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
                match guarded.compare(&mut self.loaded, pins, check) {
                    Ok(false) => {}
                    Ok(true) => self.hold_again(at, pins),
                    Err(error) => check.note(Condition::SelfCheckFailed, &format!("{:#}", anyhow!(error))),
                }
                return;
            }
            Some(Ok(HookState::Renamed(name))) => {
                check.note(Condition::InterfaceMissing, &guarded.name);
                check.note(Condition::InterfaceRenamed, &format!("{} is now {name}", guarded.name));
                return;
            }
            Some(Ok(HookState::Away)) => return check.note(Condition::InterfaceMissing, &guarded.name),
            Some(Ok(HookState::Gone)) => {
                guarded.hold = None;
                Vec::new()
            }
            Some(Ok(HookState::Broken(hooks))) => hooks,
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
        let attached = attach::attach(&mut self.loaded, pins, &guarded.name, guarded.how(how))
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
}
