//! The native protocol of the systemd journal (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram for each entry,
//! with fields of the sender's own.

use std::{env, io, os::unix::net::UnixDatagram, path::PathBuf};

/// The socket of the journal.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The environment variable that names another socket, for tests.
const SOCKET_VARIABLE: &str = "POMGUARD_JOURNAL";
/// The program's name in each entry.
const IDENTIFIER: &str = "pomguard";
/// The longest field, in characters: an entry fits one datagram.
const LONGEST: usize = 2_000;

/// Returns the datagram of an entry. `priority` is a number of syslog(3). Each field is a line `NAME=value`; a value
/// with line ends is preceded by its length. Empty values are left out.
#[must_use]
pub fn datagram<'a>(
    priority: u8,
    message: &str,
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, "MESSAGE", message);
    put(&mut bytes, "PRIORITY", &priority.to_string());
    put(&mut bytes, "SYSLOG_IDENTIFIER", IDENTIFIER);
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        put(&mut bytes, name, value);
    }
    bytes
}

/// Sends an entry without waiting.
///
/// # Errors
/// If nobody listens, or the journal has no room now: the entry is lost.
pub fn send(datagram: &[u8]) -> io::Result<()> {
    let path = env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(datagram, path).map(|_| ())
}

fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let value: String = value.chars().take(LONGEST).collect();
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}
