//! One line to the system's journal, from a verb that no daemon logs for.

use std::os::unix::net::UnixDatagram;

/// Where systemd-journald takes entries, in its own form.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where any other logger takes them (RFC 3164).
const SYSLOG: &str = "/dev/log";
/// Severity: error, as the daemon logs a suspended policy.
const PRIORITY: u8 = 3;
/// Facility daemon.
const FACILITY: u8 = 3;

/// Sends a line to the journal, or to syslog where there is none. A machine without either keeps the history alone.
pub(super) fn tell(line: &str) {
    // The form ends a field at a line feed.
    let line = line.replace('\n', " ");
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A logger that hangs must not hold up an emergency.
    let _ = socket.set_nonblocking(true);
    let entry = format!("PRIORITY={PRIORITY}\nSYSLOG_IDENTIFIER=pomguard\nMESSAGE={line}\n");
    if socket.send_to(entry.as_bytes(), JOURNAL).is_err() {
        let entry = format!("<{}>pomguard[{}]: {line}", FACILITY << 3 | PRIORITY, std::process::id());
        let _ = socket.send_to(entry.as_bytes(), SYSLOG);
    }
}
