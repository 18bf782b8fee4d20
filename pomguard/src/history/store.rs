//! The records on disk.

use std::{
    cmp::Reverse,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use log::warn;
use sha2::{Digest as _, Sha256};

use super::{
    durable::{create, replace_or_overwrite, sync_folder},
    event::{self, Event},
    record::{Outcome, Record, in_force},
};
use crate::{
    digest::hex,
    input::At,
    input::{Diagnostics, Draft, Sources, sources::Source},
    policy::{Origin, Policy, resolve, setting},
};

/// Number of changes to keep.
const KEPT: usize = 50;
/// Total size in bytes of the texts to keep; a site file may have four megabytes.
const KEPT_BYTES: u64 = 64 << 20;
/// Size limit in bytes of a file to read: no text that pomguard writes is longer.
const LARGEST: u64 = 8 << 20;
/// The names of the record's file and of the texts' files.
const RECORD: &str = "record";
const TEXTS: [&str; 3] = ["pomguard.toml", "site.toml", "matrix.toml"];

/// An error of the history. Enforcement never depends on the history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The disk refused to write or read.
    #[error("{what} {}", path.display())]
    Disk {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// This process has no permission to read the records.
    #[error("{} cannot be looked into: permission denied; only root may, so type it with sudo", .0.display())]
    Denied(PathBuf),
    /// The history has no change of this number.
    #[error("the history has no change {0}: `pomguard history` lists those it has")]
    Unknown(u64),
    /// The bytes on disk differ from the bytes that were written.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// This version does not understand the texts of the change.
    #[error("the files of change {number} are no longer understood:\n{faults}")]
    Outdated {
        /// Number of the change.
        number: u64,
        /// The errors in the texts.
        faults: Diagnostics,
    },
}

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged: {problem}", path.display())]
pub struct Damaged {
    /// The path of the file.
    pub path: PathBuf,
    /// A description of the damage.
    pub problem: String,
}

/// The folder of all records.
#[derive(Clone, Debug)]
pub struct History {
    folder: PathBuf,
}

impl History {
    /// Opens the history in a state folder. The history's folder need not exist yet.
    #[must_use]
    pub fn open(state: &Path) -> Self {
        Self { folder: state.join("history") }
    }

    /// Adds an event that is no change of policy.
    ///
    /// # Errors
    /// If the disk cannot be written.
    pub fn note(&self, event: &Event) -> io::Result<()> {
        event::append(&self.folder, event)
    }

    /// Returns every event that is no change of policy, oldest first.
    ///
    /// # Errors
    /// [`HistoryError::Denied`], and if the disk cannot be read.
    pub fn events(&self) -> Result<Vec<Event>, HistoryError> {
        self.readable()?;
        let disk =
            |source| HistoryError::Disk { what: "read the events in", path: self.folder.clone(), source };
        event::read(&self.folder).map_err(disk)
    }

    fn entry(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// Checks that this process may read the records. Without the permission the history looks empty.
    ///
    /// # Errors
    /// [`HistoryError::Denied`].
    pub fn readable(&self) -> Result<(), HistoryError> {
        match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(HistoryError::Denied(self.folder.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Returns every change that can be read, oldest first, and the damage of the others.
    #[must_use]
    pub fn list(&self) -> (Vec<Record>, Vec<Damaged>) {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for number in self.numbers() {
            match read_record(&self.entry(number)) {
                Ok(record) if record.number == number => records.push(record),
                Ok(record) => damaged.push(Damaged {
                    path: self.entry(number),
                    problem: format!("it says that it is change {}", record.number),
                }),
                Err(error) => damaged.push(error),
            }
        }
        (records, damaged)
    }

    /// Returns the numbers that are in use, in ascending order, including those of damaged records.
    fn numbers(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Reads one change.
    ///
    /// # Errors
    /// If no change has this number, or the record is damaged.
    pub fn record(&self, number: u64) -> Result<Record, HistoryError> {
        self.readable()?;
        if !self.entry(number).exists() {
            return Err(HistoryError::Unknown(number));
        }
        Ok(read_record(&self.entry(number))?)
    }

    /// Reads the texts of a change.
    ///
    /// # Errors
    /// If a text is missing, or the texts differ from those that were written.
    pub fn sources(&self, record: &Record) -> Result<Sources, HistoryError> {
        let folder = self.entry(record.number);
        let text = |index: usize| -> Result<Source, Damaged> {
            let (file, name) = (TEXTS.get(index).copied(), record.names.get(index));
            let path = folder.join(file.unwrap_or_default());
            let name = name.cloned().unwrap_or_default();
            Ok(Source { name, text: read_text(&path)? })
        };
        let sources = Sources { settings: text(0)?, site: text(1)?, matrix: text(2)? };
        if sources.digest() != record.files {
            let problem = "its files are not those that were applied".to_owned();
            return Err(Damaged { path: folder, problem }.into());
        }
        Ok(sources)
    }

    /// Resolves the policy of a change from the saved texts, as this version understands them.
    ///
    /// # Errors
    /// If the change is damaged, or this version no longer reads the form of the texts.
    pub fn policy(&self, record: &Record) -> Result<(Draft, Policy), HistoryError> {
        let outdated = |faults| HistoryError::Outdated { number: record.number, faults };
        let mut draft = Draft::from_sources(&self.sources(record)?).map_err(outdated)?;
        let origin = Origin { file: format!("change {}", record.number).into(), line: 1 };
        // Use the host name of the record: the addresses of this server may have changed since.
        draft.settings.host = Some(At { value: record.host.clone(), origin });
        let policy = resolve(&draft, &[]).map_err(outdated)?;
        Ok((draft, policy))
    }

    /// Returns the change that `rollback` without a number returns to: the last change before the one in force
    /// that differs from that one. Settings are in no image, so this function compares settings, too.
    #[must_use]
    pub fn before<'a>(&self, records: &'a [Record]) -> Option<&'a Record> {
        let now = in_force(records);
        let settings = |record: &Record| Some(self.policy(record).ok()?.0.settings);
        let is_before = |it: &Record| now.is_none_or(|now| it.number < now.number);
        let is_same = |it: &Record| {
            let Some(now) = now.filter(|now| now.image == it.image) else { return false };
            settings(now)
                .zip(settings(it))
                .is_some_and(|(now, then)| setting::changes(&then, &now).is_empty())
        };
        records.iter().rfind(|it| is_before(it) && it.outcome == Outcome::Replaced && !is_same(it))
    }

    /// Stores a change under the next number and returns the record with that number. Changes beyond the limits
    /// are removed, oldest first, but never one that is in force or pending.
    ///
    /// # Errors
    /// If the disk cannot be written; then nothing of the change remains.
    pub fn add(&self, record: Record, sources: &Sources) -> Result<Record, HistoryError> {
        let disk = |what, path: &Path| {
            let path = path.to_owned();
            move |source| HistoryError::Disk { what, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(disk("make", &self.folder))?;
        let number = self.numbers().last().map_or(1, |last| last + 1);
        let record = Record { number, ..record };
        let new = self.folder.join("new");
        match fs::remove_dir_all(&new) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(HistoryError::Disk { what: "remove", path: new, source });
            }
            _ => {}
        }
        let write = || {
            fs::DirBuilder::new().mode(0o700).create(&new)?;
            let texts = [&sources.settings, &sources.site, &sources.matrix];
            for (file, source) in TEXTS.iter().zip(texts) {
                create(&new.join(file), source.text.as_bytes())?;
            }
            create(&new.join(RECORD), &written(&record)?)?;
            sync_folder(&new)?;
            fs::rename(&new, self.entry(number))?;
            sync_folder(&self.folder)
        };
        write()
            .inspect_err(|_| drop(fs::remove_dir_all(&new)))
            .map_err(disk("write", &self.entry(number)))?;
        self.prune();
        Ok(record)
    }

    /// Replaces the record of a change, for example with a new outcome.
    ///
    /// # Errors
    /// If the disk cannot be written; then the record is unchanged.
    pub fn update(&self, record: &Record) -> Result<(), HistoryError> {
        let path = self.entry(record.number).join(RECORD);
        let write = || replace_or_overwrite(&path, &written(record)?);
        write().map_err(|source| HistoryError::Disk { what: "write", path: path.clone(), source })
    }

    fn prune(&self) {
        let (records, _) = self.list();
        let wanted = |number: u64| {
            records
                .iter()
                .any(|it| it.number == number && matches!(it.outcome, Outcome::InForce | Outcome::Pending(_)))
        };
        let failed = |number: u64| {
            records.iter().any(|it| it.number == number && matches!(it.outcome, Outcome::Failed(_)))
        };
        // A failed change has nothing to return to: it goes before any other, except the one just added.
        let mut numbers = self.numbers();
        let newest = numbers.pop();
        numbers.sort_by_key(|&number| (failed(number), Reverse(number)));
        let mut kept = 0;
        let mut bytes = 0;
        for number in newest.into_iter().chain(numbers) {
            let folder = self.entry(number);
            kept += 1;
            bytes += size(&folder);
            if (kept > KEPT || bytes > KEPT_BYTES)
                && kept > 1
                && !wanted(number)
                && let Err(error) = fs::remove_dir_all(&folder)
            {
                warn!("the history keeps {} for now: {error}", folder.display());
            }
        }
    }
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Serializes a record with a leading digest, so that damage is found.
fn written(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{}\n{json}\n", digest(&json)).into_bytes())
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn read_text(path: &Path) -> Result<String, Damaged> {
    use std::io::Read as _;
    let damaged = |problem: String| Damaged { path: path.to_owned(), problem };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| damaged(error.to_string()))?;
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| damaged(error.to_string()))?;
    Ok(text)
}

fn read_record(folder: &Path) -> Result<Record, Damaged> {
    let path = folder.join(RECORD);
    let text = read_text(&path)?;
    let damaged = |problem: String| Damaged { path: path.clone(), problem };
    // Blanks at the end are the rest of a longer record, on a disk that was full.
    let (check, json) = text
        .trim_end_matches(' ')
        .strip_suffix('\n')
        .and_then(|text| text.split_once('\n'))
        .ok_or_else(|| damaged("it is cut short".to_owned()))?;
    if check != digest(json) {
        return Err(damaged("it is not what was written".to_owned()));
    }
    serde_json::from_str(json).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::record::tests::record, *};

    const SITE: &str = "matrix = \"pom-4.0\"\nzones = 1\n[[host]]\nname = \"pom1\"\n\
                        addresses = [\"10.0.0.1\"]\nsystems = [\"Kafka\"]\n";

    fn sources() -> Sources {
        let settings = "site = \"site.toml\"\ninterfaces = [\"eth0\"]\n";
        Draft::from_texts(("pomguard.toml", settings), ("site.toml", SITE)).unwrap().sources()
    }

    fn kept(outcome: Outcome) -> (tempfile::TempDir, History, Record) {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(&folder.path().join("state"));
        let sources = sources();
        let record = history.add(record(0, &sources.digest(), outcome), &sources).unwrap();
        (folder, history, record)
    }

    #[test]
    fn a_change_reads_as_it_was_kept_and_means_the_same_policy() {
        let (_folder, history, record) = kept(Outcome::InForce);
        assert_eq!(record.number, 1);
        assert_eq!(history.list(), (vec![record.clone()], vec![]));
        assert_eq!(history.sources(&record).unwrap().digest(), sources().digest());
        let (_, policy) = history.policy(&record).unwrap();
        assert_eq!(policy.host, "pom1");
        let replaced = Record { outcome: Outcome::Replaced, ..record };
        history.update(&replaced).unwrap();
        assert_eq!(history.record(1).unwrap(), replaced);
        assert!(matches!(history.record(2), Err(HistoryError::Unknown(2))));
    }

    #[test]
    fn old_changes_go_but_never_the_one_in_force() {
        let (_folder, history, first) = kept(Outcome::InForce);
        for _ in 0..KEPT + 9 {
            history.add(record(0, "x", Outcome::Replaced), &sources()).unwrap();
        }
        let (records, damaged) = history.list();
        assert!(damaged.is_empty());
        assert_eq!(records.first(), Some(&first), "the one in force stays");
        assert_eq!(records.len(), KEPT + 1);
        assert_eq!(records.last().unwrap().number, KEPT as u64 + 10);
    }

    #[test]
    fn failed_changes_go_before_any_other() {
        let (_folder, history, first) = kept(Outcome::Replaced);
        history.add(record(0, "x", Outcome::InForce), &sources()).unwrap();
        for _ in 0..KEPT + 9 {
            history.add(record(0, "x", Outcome::Failed("no room".to_owned())), &sources()).unwrap();
        }
        let records = history.list().0;
        assert_eq!(records.len(), KEPT);
        assert_eq!(records[0], first, "a change to return to stays");
        assert_eq!(records[1].outcome, Outcome::InForce);
        assert_eq!(records.last().unwrap().number, KEPT as u64 + 11, "the last failure is there to read");
    }

    #[test]
    fn a_site_file_of_another_day_in_an_old_change_is_noticed() {
        let (_folder, history, record) = kept(Outcome::InForce);
        let site = history.entry(1).join("site.toml");
        fs::write(&site, SITE.replace("10.0.0.1", "10.0.0.2")).unwrap();
        assert!(history.sources(&record).unwrap_err().to_string().contains("not those that were applied"));
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(folder.path());
        fs::write(folder.path().join("history"), "a file in the way").unwrap();
        assert!(history.add(record(0, "x", Outcome::InForce), &sources()).is_err());
        assert_eq!(fs::read_to_string(folder.path().join("history")).unwrap(), "a file in the way");
        assert_eq!(history.list(), (vec![], vec![]));
    }

    /// LC-22, of the history: every truncation.
    #[test]
    fn a_record_cut_at_any_byte_is_damaged_and_never_taken_for_one() {
        let (_folder, history, _) = kept(Outcome::InForce);
        let path = history.entry(1).join(RECORD);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (records, damaged) = history.list();
            assert!(records.is_empty() && damaged.len() == 1, "{length} of {}", whole.len());
        }
    }

    proptest! {
        /// LC-22, of the history: bit flips.
        #[test]
        fn a_record_with_any_bit_flipped_is_damaged(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let (_folder, history, _) = kept(Outcome::InForce);
            let path = history.entry(1).join(RECORD);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            let (records, damaged) = history.list();
            prop_assert!(records.is_empty() && damaged.len() == 1);
        }
    }
}
