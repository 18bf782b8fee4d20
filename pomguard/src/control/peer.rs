//! Who is on the other side of a connection, as the kernel says, and what they may.

use std::{fmt, fs, io, os::fd::AsRawFd as _};

use tokio::net::UnixStream;

/// Supplementary groups of one process that are looked at; the kernel allows as many.
const GROUPS: usize = 65_536;

/// The process at the other end, when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process number, for the log; 0 when it is of another PID namespace.
    pub pid: i32,
    /// The user who logged in where it comes from, as the kernel says; `None` for a process of a service.
    pub login: Option<u32>,
    /// All its groups.
    pub groups: Vec<u32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "uid {} pid {}", self.uid, self.pid)
    }
}

/// What somebody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Ask, and change nothing.
    Read,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it does not say: then nobody is served.
    pub fn from_stream(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = supplementary_groups(stream)?;
        groups.push(credentials.gid());
        let pid = credentials.pid().unwrap_or(0);
        Ok(Self { uid: credentials.uid(), pid, login: login_user(pid), groups })
    }

    /// Root may everything, members of `readers` may ask; others nothing.
    #[must_use]
    pub fn access(&self, readers: Option<u32>) -> Option<Access> {
        if self.uid == 0 {
            return Some(Access::Full);
        }
        readers.filter(|group| self.groups.contains(group)).map(|_| Access::Read)
    }
}

/// The user who logged in where a process comes from; `None` for a process of a service.
#[must_use]
pub fn login_user(pid: i32) -> Option<u32> {
    let written = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    written.trim().parse().ok().filter(|&uid| uid != u32::MAX)
}

/// SO_PEERGROUPS (Linux 4.13): the groups that the process had, not those that a file says it has.
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the buffer is as long as said and outlives the call.
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
        let peer = |uid, groups: &[u32]| Peer { uid, pid: 1, login: None, groups: groups.to_vec() };
        assert_eq!(peer(0, &[]).access(None), Some(Access::Full));
        assert_eq!(peer(1_000, &[7, 990]).access(Some(990)), Some(Access::Read));
        assert_eq!(peer(1_000, &[7]).access(Some(990)), None);
        assert_eq!(peer(1_000, &[0]).access(None), None, "root's group is not root");
    }

    #[tokio::test]
    async fn the_kernel_says_who_we_are() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::from_stream(&one).unwrap();
        assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert!(peer.groups.contains(&nix::unistd::getgid().as_raw()));
    }
}
