//! Readings of the counters on disk, with which `stats --since` compares: one for each hour, one for each change
//! of policy, and the operator's marks. The number of files and their size are bounded.
//!
//! The counters of the kernel have no times. The time of the last packet of each reason is kept here as well.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use pomguard_common::Direction;
use serde::{Deserialize, Serialize};

use super::snapshot::{CountedSince, Disposition, Snapshot, Totals};
use crate::{history::replace, model::RowId};

/// Seconds of an hour.
const HOUR: u64 = 3_600;
/// The most readings of each kind: a week of hours.
const HOURS: usize = 7 * 24;
const CHANGES: usize = 32;
const MARKS: usize = 32;
/// The most bytes that all readings take.
const BYTES: u64 = 32 << 20;
/// The longest file that is read, in bytes: more than the rows of 8,192 slots take.
const LARGEST: u64 = 4 << 20;
/// Seconds for which a note counts as recent: twice the interval at which the daemon writes it.
const RECENT: u64 = 60;
/// The longest name of a mark, in characters.
const LONGEST_NAME: usize = 40;

/// The occasion of a reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadingKind {
    /// An hour began.
    Hour,
    /// A policy came in force.
    Change,
    /// The operator set a mark with this name.
    Mark(String),
}

/// CountHistory that never go backwards, until the maps are new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountReading {
    /// Seconds since 1970 of the reading.
    pub at: u64,
    /// Seconds since 1970 at which the counters were set up: counters of other maps cannot be compared.
    pub counting_since: u64,
    /// Seconds since 1970 at which the policy in force came in force.
    pub installed_at: u64,
    rows: Vec<(RowId, Direction, [u64; 3])>,
    reasons: Vec<(String, Direction, Disposition, [u64; 2])>,
    totals: Vec<(Direction, [u64; 5])>,
}

impl CountReading {
    /// Takes the counts out of a reading of the maps.
    #[must_use]
    pub fn new(snapshot: &Snapshot, at: u64) -> Self {
        let hit = snapshot.rows.iter().filter(|row| row.packets > 0);
        Self {
            at,
            counting_since: snapshot.counting_since,
            installed_at: snapshot.installed_at,
            rows: hit
                .map(|row| (row.id.clone(), row.direction, [row.packets, row.bytes, row.connections]))
                .collect(),
            reasons: snapshot
                .reasons
                .iter()
                .map(|it| (it.name.clone(), it.direction, it.verdict, [it.packets, it.bytes]))
                .collect(),
            totals: snapshot.totals.iter().map(|total| (total.direction, numbers(total))).collect(),
        }
    }

    /// Returns the snapshot with what was counted after this reading. If the maps are new since, nothing is
    /// taken off: then all their counts are later.
    #[must_use]
    pub fn subtracted_from(&self, mut snapshot: Snapshot) -> Snapshot {
        if self.counting_since != snapshot.counting_since {
            snapshot.since = Some(CountedSince { at: snapshot.counting_since, anew: true });
            return snapshot;
        }
        snapshot.since = Some(CountedSince { at: self.at, anew: false });
        let rows: BTreeMap<_, _> =
            self.rows.iter().map(|(id, direction, counts)| ((id, *direction), counts)).collect();
        for row in &mut snapshot.rows {
            if let Some([packets, bytes, connections]) = rows.get(&(&row.id, row.direction)) {
                // A slot that got another row in the meantime counts from 0.
                row.packets = row.packets.checked_sub(*packets).unwrap_or(row.packets);
                row.bytes = row.bytes.checked_sub(*bytes).unwrap_or(row.bytes);
                row.connections = row.connections.checked_sub(*connections).unwrap_or(row.connections);
            }
        }
        for reason in &mut snapshot.reasons {
            let same = |(name, direction, verdict, _): &&(String, Direction, Disposition, [u64; 2])| {
                *name == reason.name && *direction == reason.direction && *verdict == reason.verdict
            };
            if let Some((.., [packets, bytes])) = self.reasons.iter().find(same) {
                reason.packets = reason.packets.saturating_sub(*packets);
                reason.bytes = reason.bytes.saturating_sub(*bytes);
            }
        }
        snapshot.reasons.retain(|reason| reason.packets > 0);
        for total in &mut snapshot.totals {
            let Some((_, before)) = self.totals.iter().find(|(direction, _)| *direction == total.direction)
            else {
                continue;
            };
            let [seen, seen_bytes, passed, dropped, audited] = before;
            total.seen = total.seen.saturating_sub(*seen);
            total.seen_bytes = total.seen_bytes.saturating_sub(*seen_bytes);
            total.passed = total.passed.saturating_sub(*passed);
            total.dropped = total.dropped.saturating_sub(*dropped);
            total.audited = total.audited.saturating_sub(*audited);
        }
        snapshot
    }
}

const fn numbers(total: &Totals) -> [u64; 5] {
    [total.seen, total.seen_bytes, total.passed, total.dropped, total.audited]
}

/// The last packet of each reason, by its time and its count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPackets {
    counting_since: u64,
    /// Seconds since 1970 of the last note.
    noted: u64,
    reasons: Vec<(String, Direction, Disposition, u64, u64)>,
}

impl LastPackets {
    /// Notes the reasons whose counts changed since the reading before. The very first reading notes nothing,
    /// because its packets have come at any time.
    pub fn note(&mut self, snapshot: impl IntoIterator<Item = Counted>, counting_since: u64, now: u64) {
        let fresh = self.counting_since != counting_since;
        if fresh {
            *self = Self { counting_since, noted: now, reasons: Vec::new() };
        }
        self.noted = now;
        for (name, direction, verdict, packets) in snapshot {
            let known = self.reasons.iter_mut().find(|(known, along, outcome, ..)| {
                *known == name && *along == direction && *outcome == verdict
            });
            match known {
                Some((.., counted, at)) if *counted != packets => (*counted, *at) = (packets, now),
                Some(_) => {}
                None => {
                    let at = if fresh { 0 } else { now };
                    self.reasons.push((name, direction, verdict, packets, at));
                }
            }
        }
    }

    /// Returns the number of reasons.
    #[must_use]
    pub const fn reasons(&self) -> usize {
        self.reasons.len()
    }

    /// Writes the times into a snapshot. A reason that was counted after the last note has its packets from
    /// now, if the note is recent: without a daemon, nobody noticed when they came.
    pub fn fill(&self, snapshot: &mut Snapshot, now: u64) {
        if self.counting_since != snapshot.counting_since {
            return;
        }
        for reason in &mut snapshot.reasons {
            let known = self.reasons.iter().find(|(name, direction, verdict, ..)| {
                *name == reason.name && *direction == reason.direction && *verdict == reason.verdict
            });
            reason.last = match known {
                Some((.., counted, at)) if *counted == reason.packets => (*at != 0).then_some(*at),
                _ => (now < self.noted.saturating_add(RECENT)).then_some(now),
            };
        }
    }
}

/// A reason with its packets.
pub type Counted = (String, Direction, Disposition, u64);

/// The folder of the readings.
#[derive(Clone, Debug)]
pub struct CountHistory {
    folder: PathBuf,
}

impl CountHistory {
    /// Returns the readings in a state folder; there need not be any yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("counts") }
    }

    fn path(&self, kind: &ReadingKind, at: u64) -> PathBuf {
        self.folder.join(match kind {
            ReadingKind::Hour => format!("hour-{at}.json"),
            ReadingKind::Change => format!("change-{at}.json"),
            ReadingKind::Mark(name) => format!("mark-{name}.json"),
        })
    }

    fn last_path(&self) -> PathBuf {
        self.folder.join("last.json")
    }

    /// Returns the readings that are kept, with the time in their names; a mark has the time of the file.
    fn kept(&self) -> Vec<(ReadingKind, u64, u64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut kept: Vec<(ReadingKind, u64, u64)> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let (kind, rest) = name.to_str()?.strip_suffix(".json")?.split_once('-')?;
                let facts = entry.metadata().ok()?;
                let (kind, at) = match kind {
                    "hour" => (ReadingKind::Hour, rest.parse().ok()?),
                    "change" => (ReadingKind::Change, rest.parse().ok()?),
                    "mark" => (ReadingKind::Mark(rest.to_owned()), modified(&facts)),
                    _ => return None,
                };
                Some((kind, at, facts.len()))
            })
            .collect();
        kept.sort_by_key(|(kind, at, _)| (*at, kind.clone()));
        kept
    }

    /// Writes a reading and removes the oldest ones beyond the limits.
    ///
    /// # Errors
    /// If the disk cannot be written.
    pub fn save(&self, kind: &ReadingKind, reading: &CountReading) -> io::Result<()> {
        let at = match kind {
            ReadingKind::Hour | ReadingKind::Mark(_) => reading.at,
            ReadingKind::Change => reading.installed_at,
        };
        self.write(&self.path(kind, at), &serde_json::to_vec(reading)?)?;
        self.prune()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
        replace(path, bytes)
    }

    fn prune(&self) -> io::Result<()> {
        let kept = self.kept();
        let mut total: u64 = kept.iter().map(|(.., size)| size).sum();
        let count = |same: fn(&ReadingKind) -> bool| kept.iter().filter(|(kind, ..)| same(kind)).count();
        let mut surplus = [
            count(|kind| *kind == ReadingKind::Hour).saturating_sub(HOURS),
            count(|kind| *kind == ReadingKind::Change).saturating_sub(CHANGES),
            count(|kind| matches!(kind, ReadingKind::Mark(_))).saturating_sub(MARKS),
        ];
        for (kind, at, size) in &kept {
            let part = match kind {
                ReadingKind::Hour => 0,
                ReadingKind::Change => 1,
                ReadingKind::Mark(_) => 2,
            };
            let Some(left) = surplus.get_mut(part) else { continue };
            if *left > 0 || total > BYTES && *kind == ReadingKind::Hour {
                fs::remove_file(self.path(kind, *at))?;
                *left = left.saturating_sub(1);
                total = total.saturating_sub(*size);
            }
        }
        Ok(())
    }

    /// Returns true if the reading of a change is kept.
    #[must_use]
    pub fn has_change(&self, installed_at: u64) -> bool {
        self.path(&ReadingKind::Change, installed_at).exists()
    }

    /// Returns true if a reading was made in the hour of `now`.
    #[must_use]
    pub fn has_hour(&self, now: u64) -> bool {
        self.kept().iter().any(|(kind, at, _)| *kind == ReadingKind::Hour && at / HOUR == now / HOUR)
    }

    /// Returns the reading when the policy came in force.
    ///
    /// # Errors
    /// If the reading is not kept or cannot be read.
    pub fn at_change(&self, installed_at: u64) -> io::Result<CountReading> {
        read(&self.path(&ReadingKind::Change, installed_at))
    }

    /// Returns the reading of a mark.
    ///
    /// # Errors
    /// If there is no such mark, or the reading cannot be read.
    pub fn at_mark(&self, name: &str) -> io::Result<CountReading> {
        read(&self.path(&ReadingKind::Mark(name.to_owned()), 0))
    }

    /// Returns the latest reading at `wanted` or before; without one, the first that is kept.
    ///
    /// # Errors
    /// If no reading is kept, or it cannot be read.
    pub fn at_time(&self, wanted: u64) -> io::Result<CountReading> {
        let kept: Vec<_> =
            self.kept().into_iter().filter(|(kind, ..)| !matches!(kind, ReadingKind::Mark(_))).collect();
        let found = kept.iter().rfind(|(_, at, _)| *at <= wanted).or(kept.first());
        match found {
            Some((kind, at, _)) => read(&self.path(kind, *at)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Returns the names of the marks, oldest first.
    #[must_use]
    pub fn marks(&self) -> Vec<String> {
        let name = |(kind, ..): (ReadingKind, u64, u64)| match kind {
            ReadingKind::Mark(name) => Some(name),
            ReadingKind::Hour | ReadingKind::Change => None,
        };
        self.kept().into_iter().filter_map(name).collect()
    }

    /// Returns the times of the last packets; without a file that can be read there are none.
    #[must_use]
    pub fn last(&self) -> LastPackets {
        read(&self.last_path()).unwrap_or_default()
    }

    /// Writes the times of the last packets.
    ///
    /// # Errors
    /// If the disk cannot be written.
    pub fn save_last(&self, last: &LastPackets) -> io::Result<()> {
        self.write(&self.last_path(), &serde_json::to_vec(last)?)
    }
}

/// Returns true for a name that a mark can have: a letter, then letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_mark(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && name.chars().all(plain)
        && name.len() <= LONGEST_NAME
        && name != "change"
}

fn modified(facts: &fs::Metadata) -> u64 {
    let at = facts.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    at.map_or(0, |since| since.as_secs())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::other("the file is larger than any that was written"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    fn reading(at: u64) -> CountReading {
        CountReading { installed_at: at, ..CountReading::new(&sample::snapshot(), at) }
    }

    #[test]
    fn difference_of_two_readings_has_only_what_came_between() {
        let before = CountReading::new(&sample::snapshot(), sample::NOW - 60);
        let mut later = sample::snapshot();
        later.rows[1].packets += 5;
        later.reasons[4].packets += 2;
        later.totals[0].seen += 7;
        let since = before.subtracted_from(later.clone());
        assert_eq!(since.since, Some(CountedSince { at: sample::NOW - 60, anew: false }));
        assert_eq!(since.rows.iter().map(|row| row.packets).sum::<u64>(), 5);
        assert_eq!(since.reasons.len(), 1, "{:?}", since.reasons);
        assert_eq!((since.reasons[0].name.as_str(), since.reasons[0].packets), ("port", 2));
        assert_eq!(since.totals[0].seen, 7);
        // A reboot: nothing can be taken off.
        later.counting_since += 1;
        let since = before.subtracted_from(later.clone());
        assert_eq!(since.since, Some(CountedSince { at: later.counting_since, anew: true }));
        assert_eq!(since.rows[1].packets, later.rows[1].packets);
    }

    #[test]
    fn readings_are_found_by_time_change_and_mark_and_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let counts = CountHistory::new(folder.path());
        assert!(counts.at_time(0).is_err());
        counts.save(&ReadingKind::Hour, &reading(HOUR)).unwrap();
        let write = |kind: &ReadingKind, at: u64| {
            fs::write(counts.path(kind, at), serde_json::to_vec(&reading(at)).unwrap()).unwrap();
        };
        (2..=200).for_each(|hour| write(&ReadingKind::Hour, hour * HOUR));
        (1..=40).for_each(|change| write(&ReadingKind::Change, 500_000 + change));
        (1..=34).for_each(|mark| write(&ReadingKind::Mark(format!("m{mark}")), mark));
        counts.save(&ReadingKind::Mark("m35".to_owned()), &reading(35)).unwrap();
        let kept = counts.kept();
        let number = |same: fn(&ReadingKind) -> bool| kept.iter().filter(|(kind, ..)| same(kind)).count();
        assert_eq!(number(|kind| *kind == ReadingKind::Hour), HOURS);
        assert_eq!(number(|kind| *kind == ReadingKind::Change), CHANGES);
        assert_eq!(counts.marks().len(), MARKS);
        assert_eq!(counts.at_time(190 * HOUR + 1).unwrap().at, 190 * HOUR);
        assert_eq!(counts.at_time(5).unwrap().at, 33 * HOUR, "the first that is kept");
        assert_eq!(counts.at_change(500_040).unwrap().at, 500_040);
        assert!(counts.at_change(500_001).is_err() && counts.has_change(500_040));
        assert!(counts.has_hour(200 * HOUR + 7) && !counts.has_hour(201 * HOUR));
        assert!(counts.at_mark("m35").is_ok() && counts.at_mark("no").is_err());
    }

    #[test]
    fn name_of_a_mark_is_no_path_no_time_and_no_keyword() {
        assert!(is_mark("before-upgrade_2.1"));
        for wrong in ["", "1h", "../x", "a/b", "change", "ä", &"x".repeat(41)] {
            assert!(!is_mark(wrong), "{wrong}");
        }
    }

    #[test]
    fn last_packet_of_a_reason_is_when_its_count_changed() {
        let folder = tempfile::tempdir().unwrap();
        let counts = CountHistory::new(folder.path());
        let mut snapshot = sample::snapshot();
        let all = |snapshot: &Snapshot| -> Vec<Counted> {
            let reasons = snapshot.reasons.iter();
            reasons.map(|it| (it.name.clone(), it.direction, it.verdict, it.packets)).collect()
        };
        let mut last = counts.last();
        last.note(all(&snapshot), snapshot.counting_since, 100);
        snapshot.reasons[4].packets += 1;
        last.note(all(&snapshot), snapshot.counting_since, 200);
        counts.save_last(&last).unwrap();
        snapshot.reasons[5].packets += 1;
        counts.last().fill(&mut snapshot, 230);
        assert_eq!(snapshot.reasons[4].last, Some(200));
        assert_eq!(snapshot.reasons[5].last, Some(230), "after the last note");
        counts.last().fill(&mut snapshot, 300);
        assert_eq!(snapshot.reasons[5].last, None, "no daemon noticed when");
        assert_eq!(snapshot.reasons[0].last, None, "before the first one");
        snapshot.counting_since += 1;
        snapshot.reasons[4].last = None;
        counts.last().fill(&mut snapshot, 300);
        assert_eq!(snapshot.reasons[4].last, None, "times of other counters");
    }
}
