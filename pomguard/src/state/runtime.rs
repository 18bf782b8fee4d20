//! Locks and marks in the runtime folder, which a reboot empties.
//!
//! flock(2) needs only the permission to read: a process that can open a lock can block every process that
//! waits for the lock. Therefore every file here is private to the user that runs pomguard, regardless of the
//! umask of the creating process. A file that others could open is replaced, because a change of the
//! permissions does not close descriptors that are already open.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use log::warn;
use serde::{Deserialize, Serialize};

use crate::{history::replace, input::settings::Paths};

/// Name of the file that records a start without enforcement.
const NOT_ENFORCING: &str = "not-enforcing";
/// The record of the folders of the last start.
const PATHS: &str = "paths.json";
/// Permissions of every file in the folder.
const PRIVATE: u32 = 0o600;
/// Permission bits of all users except the owner.
const OF_OTHERS: u32 = 0o077;
/// Permission bits to write of all users except the owner.
const OTHERS_WRITE: u32 = 0o022;
/// Pause before the next attempt at a lock that a process of this user holds and others could open.
const PAUSE: Duration = Duration::from_millis(20);
/// Maximum number of successive replacements of one file; more mean that something is wrong with the folder.
const REPLACEMENTS: usize = 8;

/// An error of the runtime folder.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file cannot be created, read or removed.
    #[error("{what} {}", path.display())]
    File {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another user could replace the files in the folder.
    #[error("{} is not safe for locks: {problem}; `{remedy}`", path.display())]
    Folder {
        /// The path of the folder.
        path: PathBuf,
        /// The problem.
        problem: String,
        /// The command that solves the problem.
        remedy: String,
    },
    /// Another daemon runs; only one may run at a time.
    #[error("another pomguard runs already: it holds {}", path.display())]
    Running {
        /// The path of the lock.
        path: PathBuf,
    },
}

/// The record of a start without enforcement, for later queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotEnforcing {
    /// The cause and the rules that hold instead, in a sentence.
    pub about: String,
    /// True if an nftables table keeps the host closed.
    pub table: bool,
}

/// The runtime folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    folder: PathBuf,
}

/// The time to wait for a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Never,
    Forever,
}

impl Runtime {
    /// Returns the runtime folder at `folder`, which need not exist.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Takes the lock that only one daemon can hold. The lock is held as long as the returned file is open.
    ///
    /// # Errors
    /// [`RuntimeError::Running`] if another daemon holds the lock.
    pub fn only_daemon(&self) -> Result<File, RuntimeError> {
        let name = "pomguard.lock";
        self.lock(name, Wait::Never)?.ok_or_else(|| RuntimeError::Running { path: self.folder.join(name) })
    }

    /// Waits for and takes the lock that a process holds while changing pins or links.
    ///
    /// # Errors
    /// If the file cannot be created or locked.
    pub fn change(&self) -> Result<File, RuntimeError> {
        loop {
            if let Some(file) = self.lock("change.lock", Wait::Forever)? {
                return Ok(file);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Takes the same lock as [`Self::change`] without waiting. Returns `None` if another process holds the
    /// lock.
    ///
    /// # Errors
    /// If the file cannot be created or locked.
    pub fn try_change(&self) -> Result<Option<File>, RuntimeError> {
        self.lock("change.lock", Wait::Never)
    }

    /// Records that an operator detached the programs deliberately: a running daemon does not attach them
    /// again.
    ///
    /// # Errors
    /// If the mark cannot be created.
    pub fn mark_detached(&self) -> Result<(), RuntimeError> {
        self.prepare()?;
        let path = self.folder.join("detached");
        private(&path).map(drop).map_err(|source| RuntimeError::File { what: "make", path, source })
    }

    /// Returns true if an operator detached the programs deliberately.
    #[must_use]
    pub fn detached(&self) -> bool {
        self.folder.join("detached").exists()
    }

    /// Removes the mark: a start enforces again.
    ///
    /// # Errors
    /// If the mark cannot be removed.
    pub fn clear_detached(&self) -> Result<(), RuntimeError> {
        remove(&self.folder.join("detached"))
    }

    /// Records the folders of a start: the files may name others before the next one. A record that cannot be replaced
    /// is removed: it would name the folders of another start.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn record_paths(&self, paths: &Paths) -> Result<(), RuntimeError> {
        self.prepare()?;
        let path = self.folder.join(PATHS);
        // A struct of paths becomes JSON if all of them are text.
        let text = serde_json::to_vec(paths).unwrap_or_default();
        replace(&path, &text).or_else(|source| {
            remove(&path)?;
            Err(RuntimeError::File { what: "write", path, source })
        })
    }

    /// Returns the folders of the last start that recorded them in this folder, and the time of that start.
    #[must_use]
    pub fn recorded_paths(&self) -> Option<(SystemTime, Paths)> {
        let path = self.folder.join(PATHS);
        let since = fs::metadata(&path).ok()?.modified().ok()?;
        Some((since, serde_json::from_slice(&fs::read(path).ok()?).ok()?))
    }

    /// Records that the real programs do not enforce.
    ///
    /// # Errors
    /// If the mark cannot be created.
    pub fn mark_not_enforcing(&self, mark: &NotEnforcing) -> Result<(), RuntimeError> {
        self.prepare()?;
        let path = self.folder.join(NOT_ENFORCING);
        remove(&path)?;
        // A struct of a string and a flag always becomes JSON.
        let text = serde_json::to_vec(mark).unwrap_or_default();
        private(&path).and_then(|mut file| file.write_all(&text)).map_err(|source| RuntimeError::File {
            what: "write",
            path,
            source,
        })
    }

    /// Returns the record of a start without enforcement, if there is one.
    #[must_use]
    pub fn not_enforcing(&self) -> Option<NotEnforcing> {
        let text = match fs::read(self.folder.join(NOT_ENFORCING)) {
            Ok(text) => text,
            // A process without the permission to read can still see that the file exists.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Vec::new(),
            Err(_) => return None,
        };
        let unreadable =
            || NotEnforcing { about: "a start failed: the journal says why".to_owned(), table: true };
        Some(serde_json::from_slice(&text).unwrap_or_else(|_| unreadable()))
    }

    /// Removes the record.
    ///
    /// # Errors
    /// If the record cannot be removed.
    pub fn clear_not_enforcing(&self) -> Result<(), RuntimeError> {
        remove(&self.folder.join(NOT_ENFORCING))
    }

    /// Creates the folder. Removes the permission of others to write. Refuses a folder of another user, because
    /// the owner could replace any lock in the folder.
    fn prepare(&self) -> Result<(), RuntimeError> {
        let path = &self.folder;
        let error = |what| move |source| RuntimeError::File { what, path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(error("make"))?;
        let facts = fs::symlink_metadata(path).map_err(error("look at"))?;
        let refuse = |problem: String, remedy: String| {
            Err(RuntimeError::Folder { path: path.clone(), problem, remedy })
        };
        let own = nix::unistd::geteuid().as_raw();
        if !facts.is_dir() {
            return refuse("it is a link".to_owned(), format!("rm {}", path.display()));
        }
        if facts.uid() != own {
            return refuse(
                format!("it belongs to uid {}", facts.uid()),
                format!("chown {own} {}", path.display()),
            );
        }
        if facts.mode() & OTHERS_WRITE != 0 {
            warn!("{}: others could write to it: closed", path.display());
            let closed = Permissions::from_mode(facts.mode() & 0o7777 & !OTHERS_WRITE);
            fs::set_permissions(path, closed).map_err(error("chmod"))?;
        }
        Ok(())
    }

    /// Locks a file. Returns `None` if a process of this user holds the lock and this call must not wait.
    fn lock(&self, name: &str, wait: Wait) -> Result<Option<File>, RuntimeError> {
        self.prepare()?;
        let path = self.folder.join(name);
        let error = |what| {
            let path = path.clone();
            move |source| RuntimeError::File { what, path, source }
        };
        for _ in 0..REPLACEMENTS {
            let file = match private(&path) {
                Ok(file) => file,
                // A link or another non-regular file, which pomguard did not create.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => {
                    remove(&path)?;
                    continue;
                }
                Err(source) => return Err(error("open")(source)),
            };
            let facts = file.metadata().map_err(error("look at"))?;
            if !is_private(&facts) {
                if held_by_own(&facts) {
                    return Ok(None);
                }
                warn!("{}: others could open this lock: replaced", path.display());
                if is_at(&facts, &path) {
                    remove(&path)?;
                }
                continue;
            }
            match wait {
                Wait::Forever => file.lock().map_err(error("lock"))?,
                Wait::Never => match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(source)) => return Err(error("lock")(source)),
                },
            }
            // The file may have been replaced meanwhile: then the next process would lock another file.
            if is_at(&facts, &path) {
                return Ok(Some(file));
            }
        }
        Err(error("lock")(io::Error::other("it was replaced again and again")))
    }
}

/// Creates a file that no other user can open, or opens an existing file of any kind.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let facts = file.metadata()?;
    // The umask may have removed permissions of the owner, too.
    if is_private(&facts) && facts.mode() & 0o777 != PRIVATE {
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    Ok(file)
}

/// Returns true if the file belongs to this user and no other user could open the file.
fn is_private(facts: &fs::Metadata) -> bool {
    facts.is_file() && facts.uid() == nix::unistd::geteuid().as_raw() && facts.mode() & OF_OTHERS == 0
}

/// Returns true if this file is still the one at `path`.
fn is_at(facts: &fs::Metadata, path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (facts.dev(), facts.ino()))
}

fn remove(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RuntimeError::File { what: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Returns true if a process of this user holds a lock on the file: an earlier version of pomguard, whose locks
/// others could open. Such a lock counts; the lock of another user does not.
fn held_by_own(facts: &fs::Metadata) -> bool {
    let dev = facts.dev();
    let file = format!("{:02x}:{:02x}:{}", libc::major(dev), libc::minor(dev), facts.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().filter_map(|line| holder(line, &file)).any(is_of_own)
}

/// Returns the process that holds a lock on `file`, from a line of /proc/locks: number, kind, `ADVISORY`,
/// `WRITE`, process, file. The line of a waiting process has an arrow after the number.
fn holder(line: &str, file: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let (kind, pid, at) = (words.next()?, words.nth(2)?, words.next()?);
    (kind == "FLOCK" && at == file).then(|| pid.parse().ok())?
}

/// Returns true if all user ids of a process are this user's: a program that another user started counts as
/// theirs, even if the program runs with the rights of this user.
fn is_of_own(pid: u32) -> bool {
    let own = nix::unistd::geteuid().to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.is_some_and(|users| users.split_whitespace().all(|user| user == own))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn one_daemon_has_the_lock_and_a_second_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(&folder.path().join("run"));
        let first = runtime.only_daemon().unwrap();
        assert!(matches!(runtime.only_daemon(), Err(RuntimeError::Running { .. })));
        drop(first);
        runtime.only_daemon().unwrap();
    }

    #[test]
    fn who_changes_something_keeps_others_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(folder.path());
        let change = runtime.change().unwrap();
        assert!(runtime.try_change().unwrap().is_none());
        drop(change);
        assert!(runtime.try_change().unwrap().is_some());
    }

    #[test]
    fn failed_start_is_remembered_until_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(folder.path());
        assert_eq!(runtime.not_enforcing(), None);
        let mark = NotEnforcing { about: "refused".to_owned(), table: false };
        runtime.mark_not_enforcing(&mark).unwrap();
        assert_eq!(runtime.not_enforcing(), Some(mark));
        fs::write(folder.path().join(NOT_ENFORCING), "half").unwrap();
        assert!(runtime.not_enforcing().unwrap().table, "what cannot be read may stand for a table");
        runtime.clear_not_enforcing().unwrap();
        assert_eq!(runtime.not_enforcing(), None);
    }

    #[test]
    fn a_mark_stays_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(folder.path());
        assert!(!runtime.detached());
        runtime.clear_detached().unwrap();
        runtime.mark_detached().unwrap();
        assert!(runtime.detached());
        runtime.clear_detached().unwrap();
        assert!(!runtime.detached());
    }

    /// CP-03 and case f09: a lock of an earlier version that any user may open and some process holds.
    #[test]
    fn lock_that_others_could_open_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(folder.path());
        let path = folder.path().join("change.lock");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "precious").unwrap();
        let prepare: [fn(&Path); 5] = [
            |path| fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap(),
            |path| fs::set_permissions(path, Permissions::from_mode(0o660)).unwrap(),
            // Only root can give a file to another user.
            |path| drop(chown(path, Some(65_534), None)),
            |path| {
                fs::remove_file(path).unwrap();
                symlink(path.with_file_name("elsewhere"), path).unwrap();
            },
            |path| {
                fs::remove_file(path).unwrap();
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
        ];
        for prepare in prepare {
            drop(runtime.change().unwrap());
            prepare(&path);
            let lock = runtime.try_change().unwrap().expect("nobody of ours holds it");
            let facts = fs::symlink_metadata(&path).unwrap();
            assert!(is_private(&facts) && facts.mode() & 0o777 == PRIVATE, "{:o}", facts.mode());
            assert!(
                is_at(&lock.metadata().unwrap(), &path),
                "the file that is locked is the one at its path"
            );
            assert!(runtime.try_change().unwrap().is_none(), "and it keeps others out");
        }
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "precious", "a link is not followed");
    }

    /// A running earlier version created the lock with the umask of a shell: the lock still counts.
    #[test]
    fn open_lock_that_a_process_of_ours_holds_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(folder.path());
        let earlier = File::create(folder.path().join("pomguard.lock")).unwrap();
        earlier.set_permissions(Permissions::from_mode(0o644)).unwrap();
        earlier.lock().unwrap();
        assert!(matches!(runtime.only_daemon(), Err(RuntimeError::Running { .. })));
        drop(earlier);
        runtime.only_daemon().unwrap();
    }

    #[test]
    fn holder_of_a_lock_is_read_as_the_kernel_writes_it() {
        let line = "12: FLOCK  ADVISORY  WRITE 4711 00:1a:1234 0 EOF";
        assert_eq!(holder(line, "00:1a:1234"), Some(4_711));
        assert_eq!(holder(line, "00:1a:123"), None);
        assert_eq!(holder("12: POSIX  ADVISORY  WRITE 4711 00:1a:1234 0 EOF", "00:1a:1234"), None);
        assert_eq!(holder("12: -> FLOCK  ADVISORY  WRITE 4711 00:1a:1234 0 EOF", "00:1a:1234"), None);
        assert!(is_of_own(std::process::id()));
    }

    #[test]
    fn folder_that_others_may_write_to_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let runtime = Runtime::new(folder.path());
        drop(runtime.change().unwrap());
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o755);
        if chown(folder.path(), Some(65_534), None).is_ok() {
            let message = runtime.change().unwrap_err().to_string();
            assert!(message.contains("belongs to uid 65534") && message.contains("`chown 0 "), "{message}");
        }
    }
}
