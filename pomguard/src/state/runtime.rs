//! Locks and marks in the runtime folder, which a reboot empties.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// What can go wrong in the folder.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file cannot be made, read or removed.
    #[error("{what} {}", path.display())]
    File {
        /// What was done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is one daemon at a time.
    #[error("another pomguard runs already: it holds {}", path.display())]
    Running {
        /// Its lock.
        path: PathBuf,
    },
}

/// The folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    folder: PathBuf,
}

impl Runtime {
    /// The runtime folder at `folder`, which need not exist.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Takes the lock that only one daemon has, for as long as the file is kept.
    ///
    /// # Errors
    /// [`RuntimeError::Running`] when another one has it.
    pub fn only_daemon(&self) -> Result<File, RuntimeError> {
        let (file, path) = self.open("pomguard.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(RuntimeError::Running { path }),
            Err(TryLockError::Error(source)) => Err(RuntimeError::File { what: "lock", path, source }),
        }
    }

    /// Takes the lock that whoever changes pins or links has meanwhile; waits for it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn change(&self) -> Result<File, RuntimeError> {
        let (file, path) = self.open("change.lock")?;
        file.lock().map_err(|source| RuntimeError::File { what: "lock", path, source })?;
        Ok(file)
    }

    /// The same, without waiting: none while somebody else has it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn try_change(&self) -> Result<Option<File>, RuntimeError> {
        let (file, path) = self.open("change.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(RuntimeError::File { what: "lock", path, source }),
        }
    }

    /// Notes that the programs were taken off on purpose: a daemon that runs does not put them back.
    ///
    /// # Errors
    /// When the mark cannot be made.
    pub fn mark_detached(&self) -> Result<(), RuntimeError> {
        self.open("detached").map(drop)
    }

    /// Whether they were.
    #[must_use]
    pub fn detached(&self) -> bool {
        self.folder.join("detached").exists()
    }

    /// Takes the mark away: a start enforces again.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear_detached(&self) -> Result<(), RuntimeError> {
        let path = self.folder.join("detached");
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::File { what: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    fn open(&self, name: &str) -> Result<(File, PathBuf), RuntimeError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.folder)
            .map_err(|source| RuntimeError::File { what: "make", path: self.folder.clone(), source })?;
        let path = self.folder.join(name);
        match File::create(&path) {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(RuntimeError::File { what: "open", path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_has_the_lock_and_a_second_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::at(&folder.path().join("run"));
        let first = runtime.only_daemon().unwrap();
        assert!(matches!(runtime.only_daemon(), Err(RuntimeError::Running { .. })));
        drop(first);
        runtime.only_daemon().unwrap();
    }

    #[test]
    fn who_changes_something_keeps_others_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::at(folder.path());
        let change = runtime.change().unwrap();
        assert!(runtime.try_change().unwrap().is_none());
        drop(change);
        assert!(runtime.try_change().unwrap().is_some());
    }

    #[test]
    fn a_mark_stays_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::at(folder.path());
        assert!(!runtime.detached());
        runtime.clear_detached().unwrap();
        runtime.mark_detached().unwrap();
        assert!(runtime.detached());
        runtime.clear_detached().unwrap();
        assert!(!runtime.detached());
    }
}
