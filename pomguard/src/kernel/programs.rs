//! Sets of pinned programs. A set has the two fast programs, the two general programs, and the arrays through
//! which a fast program calls the general one.
//!
//! The kernel empties a program array when the last pin and descriptor are gone, even if programs use the
//! array, and a fast program without the general program drops packets. Therefore a set is pinned before any of
//! the programs is attached, stays pinned until no hook runs one of them, and never shares an array with
//! another set. A start that is killed at any step leaves hooks of either set, both complete; the next start
//! removes the unused set.

use std::{
    collections::BTreeSet,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use log::warn;
use pomguard_common::names::{PROGRAM_EGRESS, PROGRAM_INGRESS};

use super::{KernelError, attach, load::Loaded, pins, pins::Pins, raw};

/// A set that is pinned and about to be attached. If dropped before [`Self::finish`], the set is removed,
/// unless a hook runs one of the programs.
pub struct Staged {
    pins: Pins,
    folder: PathBuf,
    over: bool,
}

impl Staged {
    /// Pins the programs of a loaded object next to those in force.
    ///
    /// # Errors
    /// If a pin cannot be created.
    pub fn new(loaded: &Loaded, pins: &Pins) -> Result<Self, KernelError> {
        let staged = Self { pins: pins.clone(), folder: pins.new_programs()?, over: false };
        loaded.pin_programs(&staged.folder)?;
        Ok(staged)
    }

    /// Moves the set, which the hooks run now, to the final place, and removes the sets that no hook runs any
    /// more.
    ///
    /// # Errors
    /// If the pins cannot be moved; then the next start moves them.
    pub fn finish(mut self) -> Result<(), KernelError> {
        self.pins.swap_programs(&self.folder)?;
        self.over = true;
        retire(&self.pins)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let removed = attach::running(&self.pins).and_then(|running| {
            if running.is_disjoint(&attached(&self.folder)) { pins::remove(&self.folder) } else { Ok(()) }
        });
        if let Err(error) = removed {
            warn!("pins of programs are left, which the next start takes away: {:#}", anyhow!(error));
        }
    }
}

/// Removes the spare sets of programs that no hook runs.
///
/// # Errors
/// If the hooks cannot be read, or a pin cannot be removed.
pub fn retire(pins: &Pins) -> Result<(), KernelError> {
    let spares = pins.spare_programs();
    if spares.is_empty() {
        return Ok(());
    }
    let running = attach::running(pins)?;
    for spare in &spares {
        let own = attached(spare);
        let unused = if own.len() == 2 {
            running.is_disjoint(&own)
        } else {
            // One program of the set is not pinned, so a hook may run that program, unless every hook runs a
            // program of another set.
            let others = spares.iter().filter(|other| *other != spare).map(PathBuf::as_path);
            let in_place = pins.programs();
            let known: BTreeSet<u32> = others.chain([in_place.as_path()]).flat_map(attached).collect();
            running.is_subset(&known)
        };
        if unused {
            pins::remove(spare)?;
        }
    }
    Ok(())
}

/// Returns true if every program that a hook runs is known to use a map: the programs of the pinned sets are known.
/// Only a pin leads to a program without CAP_SYS_ADMIN.
///
/// # Errors
/// If the hooks cannot be read.
pub(super) fn all_use(pins: &Pins, map: u32) -> Result<bool, KernelError> {
    let mut others = attach::running(pins)?;
    for folder in std::iter::once(pins.programs()).chain(pins.spare_programs()) {
        for name in [PROGRAM_INGRESS, PROGRAM_EGRESS] {
            let Ok(program) = raw::open_pin(&folder.join(name)) else { continue };
            let failed = KernelError::system("BPF_OBJ_GET_INFO_BY_FD", name);
            let known = raw::identity(program.as_fd())
                .and_then(|[_kind, id]| Ok((id, raw::maps_of(program.as_fd())?)));
            let (id, used) = known.map_err(failed)?;
            if used.contains(&map) {
                others.remove(&id);
            }
        }
    }
    Ok(others.is_empty())
}

/// Returns the ids of a set's fast programs, which can be attached.
fn attached(folder: &Path) -> BTreeSet<u32> {
    let id = |name| Some(raw::identity(raw::open_pin(&folder.join(name)).ok()?.as_fd()).ok()?[1]);
    [PROGRAM_INGRESS, PROGRAM_EGRESS].into_iter().filter_map(id).collect()
}
