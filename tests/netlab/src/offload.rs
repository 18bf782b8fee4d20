//! Offloads, set through the ethtool ioctl. By default veth leaves checksums, segmentation and VLAN tags to
//! the receiver; a test with real frames needs the sender to do this work.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

// linux/ethtool.h
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_SSG: u32 = 0x19;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETH_FLAG_TXVLAN: u32 = 1 << 7;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// Work that an interface can do for the stack above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Fills in checksums of sent packets; if off, the stack does.
    TxChecksum,
    /// Sends from scattered memory.
    ScatterGather,
    /// Segments large TCP sends.
    TcpSegmentation,
    /// Segments large sends of any kind just before the interface.
    GenericSegmentation,
    /// Merges received segments.
    GenericReceive,
    /// Inserts the VLAN tag into sent frames; if off, the tag is already in the frame.
    TxVlan,
    /// Removes the VLAN tag from received frames.
    RxVlan,
}

/// linux/ethtool.h: `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

impl Offload {
    /// Sets the offload at an interface of the calling thread's namespace.
    pub(crate) fn set(self, interface: &str, on: bool) -> io::Result<()> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let (command, data) = match self {
            Self::TxChecksum => (ETHTOOL_STXCSUM, u32::from(on)),
            Self::ScatterGather => (ETHTOOL_SSG, u32::from(on)),
            Self::TcpSegmentation => (ETHTOOL_STSO, u32::from(on)),
            Self::GenericSegmentation => (ETHTOOL_SGSO, u32::from(on)),
            Self::GenericReceive => (ETHTOOL_SGRO, u32::from(on)),
            Self::TxVlan | Self::RxVlan => {
                let flag = if self == Self::TxVlan { ETH_FLAG_TXVLAN } else { ETH_FLAG_RXVLAN };
                let now = ethtool(&socket, interface, EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 })?;
                (ETHTOOL_SFLAGS, if on { now | flag } else { now & !flag })
            }
        };
        ethtool(&socket, interface, EthtoolValue { command, data }).map(drop)
    }
}

/// Runs one command and returns the value that the kernel stored.
fn ethtool(socket: &OwnedFd, interface: &str, mut value: EthtoolValue) -> io::Result<u32> {
    // SAFETY: `ifreq` is plain C data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the descriptor is a socket. SIOCETHTOOL reads and writes `request` and, through its pointer,
    // `value`; both outlive the call, and every command used here takes an `ethtool_value`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
