//! Frees flows whose socket is gone.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use log::{debug, warn};

use crate::{
    daemon::context::Context,
    kernel::{flow_filters, sweep},
};

/// The interval at which flows are looked up in the socket table.
const SWEEP: Duration = Duration::from_secs(10);

/// The time of the next sweep, and the result of the last one.
#[derive(Debug)]
pub(super) struct Sweeper {
    due: Instant,
    failed: bool,
    /// True if the tables that a look-up of a flow asks first are complete.
    complete: bool,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Self { due: Instant::now() + SWEEP, failed: false, complete: false }
    }

    /// Completes the tables that a look-up of a flow asks first. Until then each look-up reads the flow table, as
    /// long as an interface runs programs that do not write these tables.
    pub(super) fn complete_filters(&mut self, context: &Context) {
        match flow_filters::complete(&context.pins, context.ticks) {
            Ok(complete) => self.complete = complete,
            Err(error) => warn!("look-ups of flows are slower for a while: {:#}", anyhow!(error)),
        }
    }

    /// Frees flows whose socket is gone, if the next sweep is due. Returns their number.
    pub(super) fn sweep(&mut self, context: &Context) -> u64 {
        if self.due > Instant::now() {
            return 0;
        }
        self.due = Instant::now() + SWEEP;
        if !self.complete {
            self.complete_filters(context);
        }
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
