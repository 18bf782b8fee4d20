//! Events that are no change of policy, such as the emergency commands: one line of JSON each, oldest first.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{durable::replace, record::By};

/// The name of the file in the history's folder.
const FILE: &str = "events";
/// The size in bytes above which the older half of the lines is dropped.
const LARGEST: u64 = 1 << 20;

/// An event that is no change of policy, for example an emergency command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970.
    pub at: u64,
    /// The command's word on the command line.
    pub verb: String,
    /// A sentence that describes the event.
    pub about: String,
    /// The process that asked for the event; `None` for the daemon itself.
    pub by: Option<By>,
    /// The operator's reason.
    pub why: Option<String>,
}

/// Appends an event as a line and waits until the disk has the line.
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

/// Returns every event, oldest first; none if the file does not exist yet. Skips a line that was cut short.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Event>> {
    let text = match fs::read_to_string(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
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
        assert_eq!(read(&folder).unwrap(), []);
        for at in 0..3 {
            append(&folder, &event(at)).unwrap();
        }
        OpenOptions::new().append(true).open(folder.join(FILE)).unwrap().write_all(b"{\"at\":").unwrap();
        assert_eq!(read(&folder).unwrap(), [event(0), event(1), event(2)], "half a line is left out");
        fs::write(folder.join(FILE), "x\n".repeat(600_000)).unwrap();
        append(&folder, &event(4)).unwrap();
        assert!(fs::metadata(folder.join(FILE)).unwrap().len() < LARGEST);
        assert_eq!(read(&folder).unwrap(), [event(4)]);
        fs::remove_file(folder.join(FILE)).unwrap();
        fs::create_dir(folder.join(FILE)).unwrap();
        assert!(read(&folder).is_err(), "what cannot be read is not empty");
    }
}
