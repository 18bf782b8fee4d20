//! The values that all parts of the daemon use and none of them owns: the pinned maps, their clock, and the
//! folders.

use std::fs::File;

use anyhow::bail;

use crate::{
    input::settings::Paths,
    kernel::{clock::Ticks, pins::Pins},
    state::runtime::Runtime,
};

/// The condition text of a running daemon after `pomguard detach`.
pub(super) const DETACHED: &str =
    "`pomguard detach` opened this host; `systemctl restart pomguard` enforces again";

/// The maps, their clock and the folders. Only the end of the start changes one of them: the maps of a takeover
/// move to their final place.
pub(super) struct Context {
    /// The pinned maps, programs and links.
    pub(super) pins: Pins,
    /// Locks and marks that a reboot empties.
    pub(super) runtime: Runtime,
    /// The clock of the deadlines in the maps.
    pub(super) ticks: Ticks,
    /// The folders with which the daemon started. Other folders take a restart.
    pub(super) paths: Paths,
    /// The layout of the maps that this start replaced; `None` if the maps are as they were.
    pub(super) replaced: Option<u32>,
    /// True if the flow table of the programs that this start replaced has lost the pin: the new table is empty.
    pub(super) lost_flows: bool,
}

impl Context {
    /// Returns the present tick, in the width of the deadlines; `None` if the clock cannot be read.
    pub(super) fn now(&self) -> Option<u32> {
        self.ticks.now().ok().map(|now| now as u32)
    }

    /// Returns the right to change something: a lock that keeps others from changing anything meanwhile.
    /// Returns an error if the host was opened on purpose.
    pub(super) fn entitled(&self) -> anyhow::Result<File> {
        let change = self.runtime.change()?;
        if self.runtime.detached() {
            bail!(DETACHED);
        }
        Ok(change)
    }
}

/// Returns the id of this boot: ticks and pins have no meaning beyond one boot.
pub(super) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
