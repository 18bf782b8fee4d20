//! The hours on disk: a file for each hour that is over, and one for the present hour.
//!
//! Each file is replaced in one step, so a reader sees the old one or the new one. The file of the present
//! hour also records which of the kernel's counts it includes, so that the next start counts no packet twice.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::ledger::{HOUR, Hour, Ledger};
use crate::history::replace;

/// The file of the present hour.
const NOW: &str = "now.json";
/// The longest file that is read, in bytes: more than [`super::ledger::KNOWN`] and
/// [`super::ledger::STRANGERS`] keys need, plus a note for each slot of the kernel's table on 512 CPUs.
const LARGEST: u64 = 256 << 20;

/// The folder of the hours.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// The problem of the file.
    pub problem: String,
}

impl Store {
    /// Returns the history of drops in a state folder; the history need not exist yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("drops") }
    }

    /// Reads the present hour. Returns `None` if there is no file.
    ///
    /// # Errors
    /// If the file exists and cannot be read back.
    pub fn ledger(&self) -> Result<Option<Ledger>, Unreadable> {
        read(&self.folder.join(NOW))
    }

    /// Writes the present hour.
    ///
    /// # Errors
    /// If writing fails; then the file is unchanged.
    pub fn save(&self, ledger: &Ledger) -> io::Result<()> {
        self.write(&self.folder.join(NOW), &serde_json::to_vec(ledger)?)
    }

    /// Writes an hour that is over. Writes nothing for an hour without drops.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn close(&self, hour: &Hour) -> io::Result<()> {
        if hour.is_empty() {
            return Ok(());
        }
        self.write(&self.path(hour.hour), &serde_json::to_vec(hour)?)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
        replace(path, bytes)
    }

    fn path(&self, hour: u64) -> PathBuf {
        self.folder.join(format!("{hour}.json"))
    }

    /// Returns the hours that are over and kept, oldest first, with the size of each in bytes.
    fn kept(&self) -> Vec<(u64, u64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut kept: Vec<(u64, u64)> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let hour = name.to_str()?.strip_suffix(".json")?.parse().ok()?;
                Some((hour, entry.metadata().ok()?.len()))
            })
            .collect();
        kept.sort_unstable();
        kept
    }

    /// Removes the hours that ended more than `days` ago, and the oldest of the others while the total size
    /// is more than `bytes`.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn prune(&self, now: u64, days: u32, bytes: u64) -> io::Result<()> {
        let oldest = (now / HOUR).saturating_sub(u64::from(days) * 24);
        let kept = self.kept();
        let mut total: u64 = kept.iter().map(|(_, size)| size).sum();
        for (hour, size) in kept {
            if hour >= oldest && total <= bytes {
                break;
            }
            fs::remove_file(self.path(hour))?;
            total -= size;
        }
        Ok(())
    }

    /// Reads the hours that are over, from the hour of `since` (seconds since 1970) on, oldest first. Also
    /// returns the files that could not be read. `present` is the hour of the ledger, which replaces a file
    /// of the same hour.
    #[must_use]
    pub fn hours(&self, since: u64, present: u64) -> (Vec<Hour>, Vec<Unreadable>) {
        let (mut hours, mut unreadable) = (Vec::new(), Vec::new());
        for (hour, _) in self.kept() {
            if hour < since / HOUR || hour == present {
                continue;
            }
            match read(&self.path(hour)) {
                Ok(found) => hours.extend(found),
                Err(error) => unreadable.push(error),
            }
        }
        (hours, unreadable)
    }
}

/// Reads a file of the history. Returns `None` if the file does not exist.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Unreadable> {
    let fail = |problem: String| Unreadable { path: path.to_owned(), problem };
    let size = match fs::metadata(path) {
        Ok(facts) => facts.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error.to_string())),
    };
    if size > LARGEST {
        return Err(fail(format!("it has {size} bytes, more than were ever written")));
    }
    let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(format!("not what was written: {error}")))
}
