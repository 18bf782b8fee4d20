//! Finds the network session in which a command was typed.

use std::{env, fs, iter, net::IpAddr};

use crate::{
    kernel::sockets,
    policy::{Direction, oracle::Opening},
};

/// Programs that serve a network login, by the kernel's names of their processes.
const LOGIN_SERVERS: [&str; 4] = ["sshd", "sshd-session", "dropbear", "in.telnetd"];

/// Most ancestors that are examined: a shell in a multiplexer in a shell has only a few.
const ANCESTORS: usize = 16;

/// Returns every session in which this command may be typed: the session that the environment names, and the
/// connections of the programs that serve this login. In a multiplexer the environment may name a session that
/// is over, and after `su -` the environment names none.
pub(super) fn own() -> Vec<Opening> {
    let mut found: Vec<Opening> = ssh().into_iter().collect();
    let sockets: Vec<u32> = ancestors().filter(|&pid| serves_a_login(pid)).flat_map(sockets_of).collect();
    if !sockets.is_empty() {
        for connection in sockets::owned(&sockets).unwrap_or_default() {
            let connection = connection.opening();
            if !found.contains(&connection) {
                found.push(connection);
            }
        }
    }
    found
}

/// Returns the process ids of this process's ancestors, nearest first.
fn ancestors() -> impl Iterator<Item = u32> {
    let first = std::os::unix::process::parent_id();
    iter::successors(Some(first), |&pid| parent(pid)).take_while(|&pid| pid > 1).take(ANCESTORS)
}

fn serves_a_login(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    LOGIN_SERVERS.contains(&name.trim_end())
}

/// Returns the inode numbers of the sockets that a process has open.
fn sockets_of(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok();
    entries.filter_map(link).filter_map(|link| socket_inode(&link)).collect()
}

/// Returns the number in `socket:[number]`.
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns the SSH session of this command as this server sees it. Returns `None` at a console.
///
/// sudo removes SSH_CONNECTION, but the shell above still has the variable.
pub(super) fn ssh() -> Option<Opening> {
    if let Some(found) = env::var("SSH_CONNECTION").ok().and_then(|value| read(&value)) {
        return Some(found);
    }
    ancestors().find_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        let found = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="));
        found.and_then(|value| read(&String::from_utf8_lossy(value)))
    })
}

fn parent(pid: u32) -> Option<u32> {
    // The name, in brackets, may itself contain blanks and brackets.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Parses `client-address client-port server-address server-port`, as sshd(8) writes them.
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
    fn sockets_of_a_process_are_found_by_their_inodes() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&one))).unwrap();
        let inode = socket_inode(link.to_str().unwrap()).unwrap();
        assert!(sockets_of(std::process::id()).contains(&inode));
        assert_eq!(socket_inode("pipe:[4]"), None);
    }

    #[test]
    fn a_parent_is_found() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
