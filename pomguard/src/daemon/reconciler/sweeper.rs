//! Frees flows whose socket is gone.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use log::{debug, warn};

use crate::{daemon::context::Context, kernel::sweep};

/// The interval at which flows are looked up in the socket table.
const SWEEP: Duration = Duration::from_secs(10);

/// The time of the next sweep, and the result of the last one.
#[derive(Debug)]
pub(super) struct Sweeper {
    due: Instant,
    failed: bool,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Self { due: Instant::now() + SWEEP, failed: false }
    }

    /// Frees flows whose socket is gone, if the next sweep is due. Returns their number.
    pub(super) fn sweep(&mut self, context: &Context) -> u64 {
        if self.due > Instant::now() {
            return 0;
        }
        self.due = Instant::now() + SWEEP;
        match sweep::sweep(&context.pins, context.ticks) {
            Ok(swept) => {
                self.failed = false;
                debug!(
                    "flows by their sockets: {} freed, {} suspect, {} open again",
                    swept.freed, swept.suspected, swept.revived
                );
                return swept.freed;
            }
            // Logged once: closed flows expire by age anyway, and suspect flows are replaced if room is
            // needed.
            Err(error) if !self.failed => {
                self.failed = true;
                warn!("flows whose socket is gone stay until their age is up: {:#}", anyhow!(error));
            }
            Err(_) => {}
        }
        0
    }
}
