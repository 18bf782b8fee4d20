//! Offloads, queues and rings of a card, as `ethtool` shows them.

use std::{
    io,
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
};

/// `SIOCETHTOOL`, linux/sockios.h.
const ETHTOOL: libc::c_ulong = 0x8946;
/// Commands of linux/ethtool.h.
const GET_RINGS: u32 = 0x10;
const GET_FLAGS: u32 = 0x25;
const GET_CHANNELS: u32 = 0x3c;
/// Bits of the answer to [`GET_FLAGS`].
const STRIPS_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;

/// Offloads that change frames before a program sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The card merges segments (LRO): no native XDP.
    pub lro: bool,
    /// The card takes VLAN tags out.
    pub strips_vlan: bool,
}

/// Receive queues of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Queues that receive now, and at most.
    pub receive: (u32, u32),
    /// Frames in the receive ring of a queue now, and at most.
    pub ring: (u32, u32),
}

/// `struct ifreq` with the pointer of its union.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    rest: [u8; 16],
}

const _: () = assert!(size_of::<Request>() == 40);

/// The offloads of an interface; `None` if the driver does not tell.
pub(super) fn features(interface: &str) -> Option<Features> {
    // `struct ethtool_value`: command and flags.
    let [_, flags] = ask(interface, [GET_FLAGS, 0]).ok()?;
    Some(Features { lro: flags & LRO != 0, strips_vlan: flags & STRIPS_VLAN != 0 })
}

/// Queues and rings of an interface; zero for a number that the driver does not tell.
pub(super) fn queues(interface: &str) -> Option<Queues> {
    // `struct ethtool_channels`: command; at most received, sent, other, combined; the same now.
    let channels = ask(interface, [GET_CHANNELS, 0, 0, 0, 0, 0, 0, 0, 0]).ok();
    // `struct ethtool_ringparam`: command; at most received, mini, jumbo, sent; the same now.
    let rings = ask(interface, [GET_RINGS, 0, 0, 0, 0, 0, 0, 0, 0]).ok();
    if channels.is_none() && rings.is_none() {
        return None;
    }
    let receive = channels.map_or((0, 0), |[_, rx_most, _, _, most, rx, _, _, combined]| {
        (rx.saturating_add(combined), rx_most.max(most))
    });
    let ring = rings.map_or((0, 0), |[_, most, _, _, _, now, _, _, _]| (now, most));
    Some(Queues { receive, ring })
}

/// Asks the driver: the words of a command, which the kernel fills.
fn ask<const N: usize>(interface: &str, mut words: [u32; N]) -> io::Result<[u32; N]> {
    let socket = UnixDatagram::unbound()?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: words.as_mut_ptr(), rest: [0; 16] };
    for (to, from) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    // SAFETY: the request is a whole `ifreq`, and what it points to has the size of the command's structure;
    // both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(words) }
}
