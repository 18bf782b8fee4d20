//! Sends a message to all logged-in users, as wall(1) does: to the terminals that accept messages.
//!
//! A command reports the operator's action. The daemon reports its own actions: the unit has the group of the
//! terminals, and `PrivateDevices=` leaves the terminals visible.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::observe::printable::printable;

/// The folder of the sessions' terminals.
const TERMINALS: &str = "/dev/pts";
/// Permission bit of the terminal's group to write, which `mesg n` removes.
const TAKES_MESSAGES: u32 = 0o020;

/// Writes a sentence to every terminal that accepts messages. Skips a terminal that cannot be written to,
/// without waiting.
pub(crate) fn tell(sentence: &str) {
    let text = format!("\r\n\x07pomguard: {}\r\n", printable(sentence));
    for entry in fs::read_dir(Path::new(TERMINALS)).into_iter().flatten().flatten() {
        let Ok(facts) = entry.metadata() else { continue };
        let number = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !number || !facts.file_type().is_char_device() || facts.mode() & TAKES_MESSAGES == 0 {
            continue;
        }
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
        if let Ok(mut terminal) = OpenOptions::new().write(true).custom_flags(flags).open(entry.path()) {
            // A terminal whose reader has stopped is full: the write fails and does not delay the others.
            let _ = terminal.write_all(text.as_bytes());
        }
    }
}
