//! Keeps readings of the counters on disk: each hour, and at each change of policy.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use log::{debug, warn};
use pomguard_common::counter::HostRecord;

use crate::{
    kernel::{KernelError, clock::unix_now, counters, load, pins::Pins},
    observe::{
        counts::{CountHistory, CountReading, Counted, LastPackets, ReadingKind},
        reading,
    },
};

/// The interval at which the counters are compared with the reading before.
const NOTE: Duration = Duration::from_secs(1);
/// The interval at which the times of the last packets are written to the disk.
const SAVE: Duration = Duration::from_secs(30);

/// The readings of the counters.
#[derive(Debug)]
pub(super) struct Counting {
    counts: CountHistory,
    last: LastPackets,
    /// Number of reasons in the file.
    saved: usize,
    note_at: Instant,
    save_at: Instant,
    /// True if the disk took no reading. Logged once.
    failed: bool,
}

impl Counting {
    /// Continues with the readings on disk.
    pub(super) fn new(state: &Path) -> Self {
        let counts = CountHistory::new(state);
        let last = counts.last();
        let now = Instant::now();
        Self { counts, saved: last.reasons(), last, note_at: now, save_at: now + SAVE, failed: false }
    }

    /// Notes the reasons whose counts changed, and makes the readings that are due.
    pub(super) fn keep(&mut self, pins: &Pins) {
        let now = Instant::now();
        if self.note_at > now {
            return;
        }
        self.note_at = now + NOTE;
        let host = match self.note(pins) {
            Ok(host) => host,
            Err(error) => return debug!("the counters cannot be read: {:#}", anyhow!(error)),
        };
        let seconds = unix_now();
        if host.installed_at != 0 && !self.counts.has_change(host.installed_at) {
            self.keep_reading(pins, &ReadingKind::Change, seconds);
        }
        if !self.counts.has_hour(seconds) {
            self.keep_reading(pins, &ReadingKind::Hour, seconds);
        }
        if self.save_at <= now || self.last.reasons() != self.saved {
            self.save();
        }
    }

    /// Notes the last packet of each reason, and returns the host record.
    fn note(&mut self, pins: &Pins) -> Result<HostRecord, KernelError> {
        let host = load::host_record(pins)?;
        let reasons = reading::reasons(&counters::counters(pins)?).into_iter();
        let counted = reasons.map(|it| -> Counted { (it.name, it.direction, it.verdict, it.packets) });
        self.last.note(counted, host.counting_since, unix_now());
        Ok(host)
    }

    fn keep_reading(&mut self, pins: &Pins, kind: &ReadingKind, now: u64) {
        let snapshot = match reading::snapshot(pins) {
            Ok(snapshot) => snapshot,
            Err(error) => return debug!("no reading of the counters: {:#}", anyhow!(error)),
        };
        let saved = self.counts.save(kind, &CountReading::new(&snapshot, now));
        self.report_saved(saved);
    }

    /// Writes the times of the last packets.
    pub(super) fn save(&mut self) {
        self.save_at = Instant::now() + SAVE;
        self.saved = self.last.reasons();
        let saved = self.counts.save_last(&self.last);
        self.report_saved(saved);
    }

    fn report_saved(&mut self, saved: std::io::Result<()>) {
        match saved {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                warn!("`stats --since` will miss readings of the counters: {error}");
            }
            Err(_) => {}
        }
    }
}
