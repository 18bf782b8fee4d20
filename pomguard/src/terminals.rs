//! A word to everybody who is logged in, as wall(1) would: to the terminals that take messages.
//!
//! A verb says what was typed. The daemon says what came by itself: its unit has the group of the terminals,
//! and `PrivateDevices=` leaves them in sight.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::observe::printable::printable;

/// Where the terminals of sessions are.
const TERMINALS: &str = "/dev/pts";
/// Permission of others to write, which `mesg n` takes away.
const TAKES_MESSAGES: u32 = 0o020;

/// Tells every terminal that takes messages. One that cannot be written to is passed over: nobody waits.
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
            // A terminal whose reader has stopped is full: it does not hold up the others.
            let _ = terminal.write_all(text.as_bytes());
        }
    }
}
