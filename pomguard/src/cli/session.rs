//! The session that a command is typed in, where that came over the network.

use std::{env, fs, net::IpAddr};

use crate::policy::{Direction, oracle::Opening};

/// Ancestors that are looked at: a shell in a multiplexer in a shell is no more than a few.
const ANCESTORS: usize = 16;

/// The SSH session of this command as this server sees it; none at a console.
///
/// sudo takes SSH_CONNECTION away, but the shell that it was typed in still has it.
pub(super) fn ssh() -> Option<Opening> {
    if let Some(found) = env::var("SSH_CONNECTION").ok().and_then(|value| read(&value)) {
        return Some(found);
    }
    let mut pid = std::os::unix::process::parent_id();
    for _ in 0..ANCESTORS {
        if pid <= 1 {
            return None;
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        let found = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="));
        if let Some(found) = found.and_then(|value| read(&String::from_utf8_lossy(value))) {
            return Some(found);
        }
        pid = parent(pid)?;
    }
    None
}

fn parent(pid: u32) -> Option<u32> {
    // The name, in brackets, may have blanks and brackets of its own.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// `client-address client-port server-address server-port`, as sshd(8) writes it.
fn read(value: &str) -> Option<Opening> {
    let mut words = value.split(' ');
    let mut address =
        || Some((words.next()?.parse::<IpAddr>().ok()?.to_canonical(), words.next()?.parse().ok()?));
    let (source, source_port) = address()?;
    let (destination, destination_port) = address()?;
    if source.is_loopback() {
        return None;
    }
    Some(Opening {
        direction: Direction::Inbound,
        source,
        source_port,
        destination,
        destination_port,
        protocol: 6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_read_as_sshd_writes_it() {
        let session = read("10.9.0.7 51022 10.20.0.11 22").unwrap();
        assert_eq!((session.source.to_string().as_str(), session.destination_port), ("10.9.0.7", 22));
        assert_eq!(read("::ffff:10.9.0.7 51022 ::ffff:10.20.0.11 22"), Some(session));
        for none in
            ["", "10.9.0.7 51022", "UNKNOWN 65535 UNKNOWN 65535", "127.0.0.1 4 127.0.0.1 22", "a b c d"]
        {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_parent_is_found() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
