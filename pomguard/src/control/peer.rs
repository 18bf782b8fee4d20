//! The identity of a client, as reported by the kernel, and the client's rights.

use std::{fmt, fs, io, os::fd::AsRawFd as _};

use tokio::net::UnixStream;

/// The most supplementary groups of one process that are read; the kernel allows as many.
const GROUPS: usize = 65_536;

/// The client process at the time of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The user of the process.
    pub uid: u32,
    /// The process number, for the log; 0 if the process is in another PID namespace.
    pub pid: i32,
    /// The user of the login session, as reported by the kernel; `None` for a process of a service.
    pub login: Option<u32>,
    /// All groups of the process.
    pub groups: Vec<u32>,
}

impl fmt::Display for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "uid {} pid {}", self.uid, self.pid)
    }
}

/// The rights of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All requests.
    Full,
    /// Requests that change nothing.
    Read,
}

impl Client {
    /// Returns the client of a connection, as reported by the kernel.
    ///
    /// # Errors
    /// If the kernel does not report the client: then the connection is not served.
    pub fn from_stream(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = supplementary_groups(stream)?;
        groups.push(credentials.gid());
        let pid = credentials.pid().unwrap_or(0);
        Ok(Self { uid: credentials.uid(), pid, login: login_user(pid), groups })
    }

    /// Returns the rights of the client: all for root, reading for members of `readers`, otherwise `None`.
    #[must_use]
    pub fn access(&self, readers: Option<u32>) -> Option<Access> {
        if self.uid == 0 {
            return Some(Access::Full);
        }
        readers.filter(|group| self.groups.contains(group)).map(|_| Access::Read)
    }
}

/// Returns the user of the login session of a process; `None` for a process of a service.
#[must_use]
pub fn login_user(pid: i32) -> Option<u32> {
    let written = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    written.trim().parse().ok().filter(|&uid| uid != u32::MAX)
}

/// Reads SO_PEERGROUPS (Linux 4.13): the groups that the process had, not the groups that a file lists.
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the buffer has the given length and outlives the call.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count > GROUPS {
            return Err(error);
        }
        groups.resize(count.max(groups.len() + 1), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CP-01.
    #[test]
    fn root_may_everything_the_group_may_ask_and_others_nothing() {
        let peer = |uid, groups: &[u32]| Client { uid, pid: 1, login: None, groups: groups.to_vec() };
        assert_eq!(peer(0, &[]).access(None), Some(Access::Full));
        assert_eq!(peer(1_000, &[7, 990]).access(Some(990)), Some(Access::Read));
        assert_eq!(peer(1_000, &[7]).access(Some(990)), None);
        assert_eq!(peer(1_000, &[0]).access(None), None, "root's group is not root");
    }

    #[tokio::test]
    async fn the_kernel_says_who_we_are() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Client::from_stream(&one).unwrap();
        assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert!(peer.groups.contains(&nix::unistd::getgid().as_raw()));
    }
}
