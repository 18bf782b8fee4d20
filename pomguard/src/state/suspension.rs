//! The bypass or lockdown in force, saved outside the maps. A version with another layout of the maps cannot
//! read them and must neither end a suspension early nor begin one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    history::{By, replace},
    model::SuspensionKind,
};

/// A suspension of the policy in force: bypass or lockdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Bypass or lockdown.
    pub kind: SuspensionKind,
    /// The boot that `deadline` belongs to. A reboot ends a suspension.
    pub boot: String,
    /// The tick at which the suspension ends; 0 means without an end.
    pub deadline: u32,
    /// Seconds since 1970 at which the suspension began; 0 if an earlier version wrote the file.
    #[serde(default)]
    pub since: u64,
    /// Seconds since 1970 at which the suspension ends, for people; the tick is the one that counts.
    #[serde(default)]
    pub until: u64,
    /// The process that asked for the suspension; `None` if unknown.
    #[serde(default)]
    pub by: Option<By>,
    /// The operator's reason.
    #[serde(default)]
    pub why: Option<String>,
}

fn file(runtime: &Path) -> PathBuf {
    runtime.join("suspension.json")
}

/// Returns the path of the file that versions with layout 4 wrote. The next save removes the file.
fn former_file(runtime: &Path) -> PathBuf {
    runtime.join("panic.json")
}

/// Reads the suspension. Without a file there is none.
///
/// # Errors
/// If the file exists and cannot be used.
pub fn load(runtime: &Path) -> io::Result<Option<Suspension>> {
    for path in [file(runtime), former_file(runtime)] {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => return Ok(Some(serde_json::from_slice(&read?)?)),
        }
    }
    Ok(None)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the suspension, or removes the file if there is none. A file that cannot be replaced is removed before
/// the next attempt: a start would take the former suspension for the one that holds, and its room may be enough.
///
/// # Errors
/// If the file cannot be written or removed. If it cannot be written, there is none: the maps have the word.
pub fn save(runtime: &Path, suspension: Option<&Suspension>) -> io::Result<()> {
    match suspension {
        Some(suspension) => {
            let (path, text) = (file(runtime), serde_json::to_vec(suspension)?);
            if replace(&path, &text).is_err() {
                remove(&path)?;
                remove(&former_file(runtime))?;
                replace(&path, &text)?;
            }
        }
        None => remove(&file(runtime))?,
    }
    remove(&former_file(runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_it_was_written_and_is_gone_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let suspension = Suspension {
            kind: SuspensionKind::Lockdown,
            boot: "a".to_owned(),
            deadline: 7,
            since: 1,
            until: 2,
            by: Some(By { uid: 0, pid: 7, login: None, claimed: None }),
            why: Some("intruder".to_owned()),
        };
        save(folder.path(), None).unwrap();
        assert_eq!(load(folder.path()).unwrap(), None);
        save(folder.path(), Some(&suspension)).unwrap();
        assert_eq!(load(folder.path()).unwrap(), Some(suspension));
        save(folder.path(), None).unwrap();
        assert_eq!(load(folder.path()).unwrap(), None);
        fs::write(file(folder.path()), r#"{"kind":"open","boot":"a","deadline":7}"#).unwrap();
        assert_eq!(load(folder.path()).unwrap().unwrap().since, 0, "of an earlier version");
        fs::write(file(folder.path()), "{").unwrap();
        assert!(load(folder.path()).is_err());
    }

    #[test]
    fn former_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(former_file(folder.path()), r#"{"kind":"open","boot":"a","deadline":7}"#).unwrap();
        let suspension = load(folder.path()).unwrap().unwrap();
        assert_eq!(
            (suspension.kind, suspension.boot.as_str(), suspension.deadline),
            (SuspensionKind::Bypass, "a", 7)
        );
        save(folder.path(), Some(&suspension)).unwrap();
        assert!(!former_file(folder.path()).exists());
        assert_eq!(load(folder.path()).unwrap(), Some(suspension));
    }
}
