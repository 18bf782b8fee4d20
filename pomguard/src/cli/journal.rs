//! Writes one entry to the system's journal, for a verb that works without the daemon.

use std::os::unix::net::UnixDatagram;

use crate::daemon::journal::Entry;

/// Socket of any other logger (RFC 3164).
const SYSLOG: &str = "/dev/log";
/// Facility daemon.
const FACILITY: u8 = 3;

/// Sends an entry to the journal, or its message to syslog if there is no journal. On a machine without either,
/// only the history has the record.
pub(super) fn tell(entry: &Entry) {
    if entry.send().is_ok() {
        return;
    }
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A logger that hangs must not hold up an emergency.
    let _ = socket.set_nonblocking(true);
    let line = entry.message.replace('\n', " ");
    let line = format!("<{}>pomguard[{}]: {line}", FACILITY << 3 | entry.priority as u8, std::process::id());
    let _ = socket.send_to(line.as_bytes(), SYSLOG);
}
