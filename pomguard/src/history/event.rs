//! Emergency verbs and other events that are no change of policy: a line of JSON each, in the order in which they
//! happened.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{durable::replace, record::By};

/// The file below the folder of the history.
const FILE: &str = "events";
/// Bytes at which the older half of the lines is dropped.
const LARGEST: u64 = 1 << 20;

/// Something that an operator did alongside changes of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970.
    pub at: u64,
    /// Its word on the command line.
    pub verb: String,
    /// A sentence about it.
    pub about: String,
    /// By whom; `None` for the daemon itself.
    pub by: Option<By>,
    /// What for, in the operator's words.
    pub why: Option<String>,
}

/// Adds a line, down to the disk.
pub(super) fn append(folder: &Path, event: &Event) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(FILE);
    if fs::metadata(&path).is_ok_and(|facts| facts.len() > LARGEST) {
        let text = fs::read_to_string(&path)?;
        let lines: Vec<&str> = text.lines().collect();
        let kept = lines.get(lines.len() / 2..).unwrap_or_default().join("\n");
        replace(&path, format!("{kept}\n").as_bytes())?;
    }
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    // One write: a line that another process adds at the same time stays whole.
    file.write_all(&line)?;
    file.sync_all()
}

/// Every event that can be read, oldest first. A line that was cut short is left out.
pub(super) fn read(folder: &Path) -> Vec<Event> {
    let text = fs::read_to_string(folder.join(FILE)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64) -> Event {
        Event {
            at,
            verb: "isolate".to_owned(),
            about: "panic isolate for 10 min".to_owned(),
            by: Some(By { uid: 0, pid: 7, login: None, claimed: None }),
            why: Some("a \"ticket\"\n".to_owned()),
        }
    }

    #[test]
    fn events_read_as_they_were_written_and_old_ones_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("history");
        assert_eq!(read(&folder), []);
        for at in 0..3 {
            append(&folder, &event(at)).unwrap();
        }
        OpenOptions::new().append(true).open(folder.join(FILE)).unwrap().write_all(b"{\"at\":").unwrap();
        assert_eq!(read(&folder), [event(0), event(1), event(2)], "half a line is left out");
        fs::write(folder.join(FILE), "x\n".repeat(600_000)).unwrap();
        append(&folder, &event(4)).unwrap();
        assert!(fs::metadata(folder.join(FILE)).unwrap().len() < LARGEST);
        assert_eq!(read(&folder), [event(4)]);
    }
}
