//! Maintains the flow table: frees flows whose socket is gone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use log::{debug, warn};

use super::Daemon;
use crate::{
    history::Existing,
    kernel::{
        clock::unix_now,
        seed,
        sockets::{self, Connection},
        sweep,
    },
    policy::{Policy, impact::goes_on},
    render::explain::described,
};

/// The interval at which flows are looked up in the socket table.
const SWEEP: Duration = Duration::from_secs(10);

/// The number of flows that the log names; the others are counted.
const NAMED: usize = 100;

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
}

impl Daemon {
    /// Ends the live flows that no row of `policy`, which is in force, allows; or lets them continue until
    /// they end. Returns the number of flows; `None` if neither was asked for.
    pub(super) fn treat_existing(
        &self,
        existing: Existing,
        policy: &Policy,
    ) -> anyhow::Result<Option<usize>> {
        if existing.is_by_policy() {
            return Ok(None);
        }
        let now = unix_now();
        let live = sockets::connections().context("list the flows of this server")?;
        let unlisted: Vec<Connection> = live
            .into_iter()
            .filter(|flow| policy.is_own(flow.local.ip()) || policy.machine.held.contains(&flow.local.ip()))
            .filter(|flow| {
                let opening = flow.opening();
                let excepted = self.overrides.exceptions().iter().any(|held| held.allows(&opening, now));
                !excepted && !goes_on(policy, &opening)
            })
            .collect();
        let change = if existing == Existing::Cut { seed::forget } else { seed::keep };
        let done =
            change(&self.context.pins, self.context.ticks, &unlisted).context("change the flow table")?;
        let word = if existing == Existing::Cut { "ended by --cut" } else { "kept by --keep-existing" };
        for flow in done.iter().take(NAMED) {
            warn!("{word}: {}", described(&flow.opening()));
        }
        warn!("{} flows that no row allows: {word}", done.len());
        Ok(Some(done.len()))
    }

    /// Frees flows whose socket is gone, if the next sweep is due. Returns their number.
    pub(super) fn sweep_flows(&mut self) -> u64 {
        if self.sweeper.due > Instant::now() {
            return 0;
        }
        self.sweeper.due = Instant::now() + SWEEP;
        match sweep::sweep(&self.context.pins, self.context.ticks) {
            Ok(swept) => {
                self.sweeper.failed = false;
                debug!(
                    "flows by their sockets: {} freed, {} suspect, {} open again",
                    swept.freed, swept.suspected, swept.revived
                );
                return swept.freed;
            }
            // Logged once: closed flows expire by age anyway, and suspect flows are replaced if room is
            // needed.
            Err(error) if !self.sweeper.failed => {
                self.sweeper.failed = true;
                warn!("flows whose socket is gone stay until their age is up: {:#}", anyhow!(error));
            }
            Err(_) => {}
        }
        0
    }
}
