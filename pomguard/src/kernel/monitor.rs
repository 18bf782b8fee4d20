//! The kernel's announcements of what happens to interfaces, their addresses and traffic-control filters.

use std::io;

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};

use super::KernelError;

/// Groups of linux/rtnetlink.h: interfaces, traffic control, IPv4 addresses and IPv6 addresses.
const GROUPS: u32 = 1 | 8 | 0x10 | 0x100;
/// Bytes of an announcement that are read; the rest of a longer one is dropped with it.
const LONG: usize = 4_096;
/// Announcements that are taken at once.
const ENOUGH: usize = 1_000;

/// What the announcements came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Something changed.
    Changed,
    /// So much changed that the kernel could not tell all of it.
    Missed,
}

/// Listens. What the announcements say is not read: whoever hears of a change looks at everything,
/// so that a lost one costs nothing.
pub struct Monitor {
    socket: TokioSocket,
}

impl Monitor {
    /// Begins to listen, in the network namespace of the caller.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn new() -> Result<Self, KernelError> {
        let fail = || KernelError::system("netlink", "listen to the kernel's routing socket");
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(fail())?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS)).map_err(fail())?;
        Ok(Self { socket })
    }

    /// Waits for the next announcement, and takes those that are there with it.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn news(&mut self) -> Result<News, KernelError> {
        let first = self.socket.recv(&mut [0_u8; LONG].as_mut_slice()).await.map(drop);
        let mut news = message(first)?;
        // Bounded, so that a flood of announcements cannot keep the daemon from everything else.
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

/// What an attempt to read came to.
fn message(read: io::Result<()>) -> Result<News, KernelError> {
    match read {
        Ok(()) => Ok(News::Changed),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(News::Missed),
        Err(error) => Err(KernelError::system("netlink", "read the kernel's announcements")(error)),
    }
}

/// Reads one announcement and drops it.
fn take(socket: &Socket) -> io::Result<()> {
    socket.recv(&mut [0_u8; LONG].as_mut_slice(), libc::MSG_DONTWAIT).map(drop)
}
