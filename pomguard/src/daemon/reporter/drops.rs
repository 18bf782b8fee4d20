//! Records denied connections: the history on disk, lines in the journal, and the counters by system.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{info, warn};

use crate::{
    daemon::context::Context,
    input::settings::Drops,
    kernel::{clock::unix_now, drops, pins::Pins},
    observe::{
        condition::Condition,
        drops::{
            journal::{Journal, Limits},
            ledger::{Hour, Ledger},
            peers::RecentPeers,
            report::item,
            store::Store,
        },
        journal,
        metrics::DaemonState,
        snapshot::Disposition,
    },
    policy::{Direction, Policy},
};

/// The interval at which the kernel's table is read.
const READ: Duration = Duration::from_secs(1);
/// The interval at which the present hour is written to the disk.
const SAVE: Duration = Duration::from_secs(30);
/// The number of systems that have a counter of their own.
const SYSTEMS: usize = 200;
/// The name under which the other systems are counted.
const OTHERS: &str = "(other)";

/// The records of drops.
#[derive(Debug)]
pub(super) struct Recorder {
    store: Store,
    ledger: Ledger,
    journal: Journal,
    peers: RecentPeers,
    read_at: Instant,
    save_at: Instant,
    /// Hours that are over and not yet on disk.
    over: Vec<Hour>,
    /// True if the table could not be read. Logged once.
    failed: bool,
    /// The reason for which the history could not be written to disk.
    unsaved: Option<String>,
}

impl Recorder {
    /// Continues with the history on disk.
    pub(super) fn new(state: &Path) -> Self {
        let store = Store::new(state);
        let ledger = store.ledger().unwrap_or_else(|error| {
            warn!("the present hour of the history of drops is lost: {error}");
            None
        });
        let now = Instant::now();
        Self {
            store,
            ledger: ledger.unwrap_or_default(),
            journal: Journal::default(),
            peers: RecentPeers::default(),
            read_at: now,
            save_at: now + SAVE,
            over: Vec::new(),
            failed: false,
            unsaved: None,
        }
    }

    /// Reads the table of drops, if the next reading is due, and returns the resulting condition. `policy` is the
    /// policy in force; `state` receives the counters of systems and peers.
    pub(super) fn record(
        &mut self,
        context: &Context,
        settings: Drops,
        policy: Option<&Policy>,
        state: &Mutex<DaemonState>,
    ) -> Option<(Condition, String)> {
        if self.read_at <= Instant::now() {
            self.read_at = Instant::now() + READ;
            self.read(&context.pins, settings, policy, state);
        }
        if self.save_at <= Instant::now() {
            self.save(settings);
        }
        self.unsaved.clone().map(|error| (Condition::DropsUnsaved, error))
    }

    fn read(&mut self, pins: &Pins, settings: Drops, policy: Option<&Policy>, state: &Mutex<DaemonState>) {
        let reading = match drops::read(pins) {
            Ok(reading) => reading,
            // Logged once: the next successful reading includes the drops of the meantime.
            Err(error) if !self.failed => {
                self.failed = true;
                return warn!("the table of drops cannot be read: {:#}", anyhow!(error));
            }
            Err(_) => return,
        };
        self.failed = false;
        if let Some(over) = self.ledger.turn(reading.at) {
            self.over.push(over);
            self.save_at = Instant::now();
        }
        let more = self.ledger.account(&reading);
        let limits =
            Limits { known_interval: settings.journal_known, stranger_lines: settings.journal_strangers };
        for line in self.journal.lines(&more, limits, policy, reading.at) {
            // Without a journal the text goes to the daemon's own log.
            if journal::send(&line.datagram()).is_err() {
                info!("{}", line.message);
            }
        }
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        count_by_system(&mut state.system_drops, &more, policy);
        self.peers.add(&more, reading.at);
        for side in RecentPeers::SIDES {
            state.known_peers.insert((side.0, side.1.name()), self.peers.count(side));
        }
    }

    /// Writes the history to the disk. Hours that could not be written are written with the next attempt.
    pub(super) fn save(&mut self, settings: Drops) {
        self.save_at = Instant::now() + SAVE;
        let store = &self.store;
        let saved = self
            .over
            .iter()
            .try_for_each(|hour| store.close(hour))
            .and_then(|()| store.save(&self.ledger))
            .and_then(|()| store.prune(unix_now(), settings.days, u64::from(settings.megabytes) << 20));
        match saved {
            Ok(()) => {
                self.over.clear();
                if self.unsaved.take().is_some() {
                    info!("the history of drops is on disk again");
                }
            }
            Err(error) => {
                let error = format!("the history of drops is not on disk: {error}");
                if self.unsaved.as_ref() != Some(&error) {
                    warn!("{error}");
                }
                self.unsaved = Some(error);
                // If the disk takes nothing for days, memory holds at most one day.
                let surplus = self.over.len().saturating_sub(24);
                self.over.drain(..surplus);
            }
        }
    }
}

/// Adds the new drops to the counters of the known systems.
fn count_by_system(
    counters: &mut BTreeMap<(String, Direction, &'static str), u64>,
    more: &Hour,
    policy: Option<&Policy>,
) {
    for (key, counts) in more.table.iter().filter(|(key, _)| key.known()) {
        let item = item(*key, counts, policy);
        if item.verdict == Disposition::Pass {
            continue;
        }
        let system = item.system.unwrap_or_else(|| OTHERS.to_owned());
        let mut label = (system, item.direction, item.verdict.name());
        if counters.len() >= SYSTEMS * 4 && !counters.contains_key(&label) {
            OTHERS.clone_into(&mut label.0);
        }
        *counters.entry(label).or_default() += counts.packets;
    }
}
