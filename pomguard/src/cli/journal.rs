//! Writes one line to the system's journal, for a verb that works without the daemon.

use std::os::unix::net::UnixDatagram;

use crate::observe::journal;

/// Socket of any other logger (RFC 3164).
const SYSLOG: &str = "/dev/log";
/// Severity: error, as the daemon logs a suspended policy.
const PRIORITY: u8 = 3;
/// Facility daemon.
const FACILITY: u8 = 3;

/// Sends a line to the journal, or to syslog if there is no journal. On a machine without either, only the
/// history has the record.
pub(super) fn tell(line: &str) {
    if journal::send(&journal::datagram(PRIORITY, line, [])).is_ok() {
        return;
    }
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A logger that hangs must not hold up an emergency.
    let _ = socket.set_nonblocking(true);
    let line = line.replace('\n', " ");
    let entry = format!("<{}>pomguard[{}]: {line}", FACILITY << 3 | PRIORITY, std::process::id());
    let _ = socket.send_to(entry.as_bytes(), SYSLOG);
}
