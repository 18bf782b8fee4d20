//! The kernel's announcements about changes of interfaces, their addresses and traffic-control filters.

use std::io;

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};

use super::KernelError;

/// Groups of linux/rtnetlink.h: interfaces, traffic control, IPv4 addresses and IPv6 addresses.
const GROUPS: u32 = 1 | 8 | 0x10 | 0x100;
/// Bytes of an announcement to read; the rest of a longer one is discarded.
const LONG: usize = 4_096;
/// Maximum number of announcements to read at once.
const ENOUGH: usize = 1_000;

/// The result of reading announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Something changed.
    Changed,
    /// There were more changes than the kernel could announce.
    Missed,
}

/// A listener for announcements. The contents are not read: after any announcement the caller checks
/// everything, so a lost announcement does no harm.
pub struct Monitor {
    socket: TokioSocket,
}

impl Monitor {
    /// Begins to listen in the network namespace of the caller.
    ///
    /// # Errors
    /// If the kernel provides no socket.
    pub fn new() -> Result<Self, KernelError> {
        let fail = || KernelError::system("netlink", "listen to the kernel's routing socket");
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(fail())?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS)).map_err(fail())?;
        Ok(Self { socket })
    }

    /// Waits for the next announcement and reads all that are queued.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn news(&mut self) -> Result<News, KernelError> {
        let first = self.socket.recv(&mut [0_u8; LONG].as_mut_slice()).await.map(drop);
        let mut news = message(first)?;
        // Bounded, so that a flood of announcements cannot keep the daemon from other work.
        for _ in 0..ENOUGH {
            match take(self.socket.socket_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                taken => {
                    if message(taken)? == News::Missed {
                        news = News::Missed;
                    }
                }
            }
        }
        Ok(news)
    }
}

/// Converts the result of a read into news.
fn message(read: io::Result<()>) -> Result<News, KernelError> {
    match read {
        Ok(()) => Ok(News::Changed),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(News::Missed),
        Err(error) => Err(KernelError::system("netlink", "read the kernel's announcements")(error)),
    }
}

/// Reads and discards one announcement.
fn take(socket: &Socket) -> io::Result<()> {
    socket.recv(&mut [0_u8; LONG].as_mut_slice(), libc::MSG_DONTWAIT).map(drop)
}
