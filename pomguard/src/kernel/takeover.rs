//! Replaces pinned maps of another layout: programs with maps of their own are created next to the former set,
//! filled, and put behind each hook in one step.
//!
//! From the maps of the other layout only the counters are read ([`carry`]). The former programs judge packets
//! until the exchange and are restored if a later step fails. A process that is killed in between leaves hooks
//! that all enforce, and a set of pins that the next start completes or removes ([`Pins::finish_migration`]).

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::anyhow;
use log::{error, warn};
use pomguard_common::{
    ABI_VERSION,
    names::{MAP_HOST, PROGRAM_EGRESS, PROGRAM_INGRESS},
};

use super::{
    KernelError,
    attach::{self, TCX, XDP},
    carry::{self, Carry},
    clock::Ticks,
    interface, load,
    pins::Pins,
    programs, raw,
};

/// Describes the consequences for the contents of maps of another layout, for `check` and `plan` and for the
/// log of a start.
#[must_use]
pub fn losses(found: u32) -> String {
    let counters = if carry::knows(found) { "counters go on" } else { "counters begin at zero" };
    format!(
        "{counters}; of the flows those that the socket table of this host has and the policy allows are \
         known at once, others by their next packet from here; what went on since the first start though no row \
         allows it ends"
    )
}

/// Returns the layout of the pinned maps if that is not the layout of this version.
///
/// # Errors
/// If the host record cannot be read.
pub fn other_layout(pins: &Pins) -> Result<Option<u32>, KernelError> {
    match load::host_record(pins) {
        Err(KernelError::Layout { found, .. }) => Ok(Some(found)),
        Err(denied @ KernelError::Denied { .. }) => Err(denied),
        // An interrupted start may have left some of the maps without this one.
        Err(_) if !pins.map(MAP_HOST).exists() => Ok(None),
        result => result.map(|_| None),
    }
}

/// Returns the log message about maps of another layout, before the replacement.
#[must_use]
pub fn notice(found: u32) -> String {
    format!(
        "the maps in force are of layout {found}, this pomguard has layout {ABI_VERSION}: a restart makes \
         new ones alongside them and exchanges the programs in one step. Their content: {}",
        losses(found)
    )
}

/// The programs of maps of another layout.
struct Former {
    xdp: OwnedFd,
    tc: OwnedFd,
}

/// The egress hooks of pomguard at an interface.
struct Hooks {
    tcx: bool,
    clsact: bool,
}

/// A set of maps and programs that replaces a set of another layout. If dropped before [`Self::finish`], the
/// takeover restores the former programs behind every hook and removes the new set.
pub struct Takeover {
    place: Pins,
    found: u32,
    former: Former,
    /// Interfaces with their hooks before the takeover.
    before: BTreeMap<String, Hooks>,
    over: bool,
}

impl Takeover {
    /// Begins a takeover if the pinned maps are of another layout.
    ///
    /// # Errors
    /// [`KernelError::NoWayBack`] if the former programs are not pinned, and if the kernel refuses.
    pub fn begin(pins: &Pins) -> Result<Option<Self>, KernelError> {
        let Some(found) = other_layout(pins)? else { return Ok(None) };
        let former = |name| {
            let path = pins.program(name);
            raw::open_pin(&path).map_err(|source| KernelError::NoWayBack { path, source })
        };
        let former = Former { xdp: former(PROGRAM_INGRESS)?, tc: former(PROGRAM_EGRESS)? };
        let mut before = BTreeMap::new();
        for interface in pins.linked(XDP) {
            let clsact = match interface::index(&interface) {
                Ok(ifindex) => attach::clsact_program(ifindex)?.is_some(),
                Err(_) => false,
            };
            let tcx = pins.link(TCX, &interface).exists();
            before.insert(interface, Hooks { tcx, clsact });
        }
        pins.staging().prepare()?;
        warn!("{}", notice(found));
        Ok(Some(Self { place: pins.clone(), found, former, before, over: false }))
    }

    /// Returns the pins of the new set.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.place.staging()
    }

    /// Returns the layout of the former maps.
    #[must_use]
    pub const fn found(&self) -> u32 {
        self.found
    }

    /// Makes the first reading of the former counters. If the reading fails, only the counters are lost.
    #[must_use]
    pub fn counters(&self, ticks: Ticks) -> Option<Carry> {
        Carry::begin(&self.place, self.found, &self.pins(), ticks).unwrap_or_else(|error| {
            error!(
                "counters begin at zero, for those of layout {} cannot be read: {:#}",
                self.found,
                anyhow!(error)
            );
            None
        })
    }

    /// Moves the new set, which every hook uses now, to the final place, and removes the former set.
    ///
    /// # Errors
    /// If the pins cannot be moved. If nothing was moved yet, the hooks use the former programs again;
    /// otherwise the next start moves the rest.
    pub fn finish(mut self) -> Result<Pins, KernelError> {
        self.place.promote_alongside()?;
        self.over = true;
        self.place.finish_migration()?;
        programs::retire(&self.place)?;
        Ok(self.place.clone())
    }

    /// Restores the former programs.
    fn undo(&self) {
        for interface in self.place.linked(XDP) {
            let undone = match self.before.get(&interface) {
                Some(hooks) => self.put_back(&interface, hooks),
                None => attach::detach(&self.place, &interface),
            };
            if let Err(error) = undone {
                error!(
                    "{interface}: the programs before could not be put back, the new ones go on: {:#}",
                    anyhow!(error)
                );
            }
        }
        if let Err(error) = self.place.discard_alongside().and_then(|()| programs::retire(&self.place)) {
            error!("pins are left, which the next start takes away: {:#}", anyhow!(error));
        }
    }

    fn put_back(&self, interface: &str, hooks: &Hooks) -> Result<(), KernelError> {
        let failed = |call| KernelError::system(call, format!("of {interface}"));
        let exchange = |hook, program: &OwnedFd| {
            let link = raw::open_pin(&self.place.link(hook, interface)).map_err(failed("BPF_OBJ_GET"))?;
            raw::update_link(link.as_fd(), program.as_fd()).map_err(failed("BPF_LINK_UPDATE"))
        };
        exchange(XDP, &self.former.xdp)?;
        if hooks.tcx {
            exchange(TCX, &self.former.tc)?;
        }
        if hooks.clsact {
            attach::restore_clsact(&self.place, interface)?;
        }
        if !hooks.tcx && !hooks.clsact {
            // The hook had been removed before the takeover. The new program would judge by maps that are
            // removed.
            attach::detach_egress(&self.place, interface)?;
        }
        Ok(())
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        if !self.over {
            self.undo();
        }
    }
}
