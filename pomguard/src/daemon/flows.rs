//! Looks after the flow table: frees flows whose socket is gone.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{debug, warn};

use super::Daemon;
use crate::kernel::sweep;

/// How often flows are looked up in the socket table.
const SWEEP: Duration = Duration::from_secs(10);

/// When the next sweep is due, and whether the last one failed.
#[derive(Debug)]
pub(super) struct Sweeper {
    due: Instant,
    failed: bool,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Self { due: Instant::now() + SWEEP, failed: false }
    }
}

impl Daemon {
    /// Frees flows whose socket is gone, if it is time to.
    pub(super) fn sweep_flows(&mut self) {
        if self.sweeper.due > Instant::now() {
            return;
        }
        self.sweeper.due = Instant::now() + SWEEP;
        match sweep::sweep(&self.pins, self.ticks) {
            Ok(swept) => {
                self.sweeper.failed = false;
                debug!(
                    "flows by their sockets: {} freed, {} suspect, {} open again",
                    swept.freed, swept.suspected, swept.revived
                );
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.flows_freed += swept.freed;
            }
            // Said once: closed flows go by age all the same, and suspect ones where room is needed.
            Err(error) if !self.sweeper.failed => {
                self.sweeper.failed = true;
                warn!("flows whose socket is gone stay until their age is up: {:#}", anyhow!(error));
            }
            Err(_) => {}
        }
    }
}
