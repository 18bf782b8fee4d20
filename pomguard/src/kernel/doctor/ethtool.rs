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
    /// True if the card merges segments (LRO), which excludes native XDP.
    pub lro: bool,
    /// True if the card removes VLAN tags from the frames.
    pub strips_vlan: bool,
}

/// Receive queues of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CardQueues {
    /// Number of receive queues: current, maximum.
    pub receive: (u32, u32),
    /// Number of frames in the receive ring of a queue: current, maximum.
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

/// Returns the offloads of an interface; `None` if the driver does not tell.
pub(super) fn features(interface: &str) -> Option<Features> {
    // `struct ethtool_value`: command and flags.
    let [_, flags] = ask(interface, [GET_FLAGS, 0]).ok()?;
    Some(Features { lro: flags & LRO != 0, strips_vlan: flags & STRIPS_VLAN != 0 })
}

/// Returns queues and rings of an interface; a number that the driver does not tell is zero. `None` if the
/// driver tells nothing.
pub(super) fn queues(interface: &str) -> Option<CardQueues> {
    // `struct ethtool_channels`: command; the maximum of received, sent, other, combined; the same four now.
    let channels = ask(interface, [GET_CHANNELS, 0, 0, 0, 0, 0, 0, 0, 0]).ok();
    // `struct ethtool_ringparam`: command; the maximum of received, mini, jumbo, sent; the same four now.
    let rings = ask(interface, [GET_RINGS, 0, 0, 0, 0, 0, 0, 0, 0]).ok();
    if channels.is_none() && rings.is_none() {
        return None;
    }
    let receive = channels.map_or((0, 0), |[_, rx_most, _, _, most, rx, _, _, combined]| {
        (rx.saturating_add(combined), rx_most.max(most))
    });
    let ring = rings.map_or((0, 0), |[_, most, _, _, _, now, _, _, _]| (now, most));
    Some(CardQueues { receive, ring })
}

/// Sends a command to the driver; the kernel fills the words of the command's structure.
fn ask<const N: usize>(interface: &str, mut words: [u32; N]) -> io::Result<[u32; N]> {
    let socket = UnixDatagram::unbound()?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: words.as_mut_ptr(), rest: [0; 16] };
    for (to, from) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    // SAFETY: the request is a whole `ifreq`, and the words behind the pointer have the size of the command's
    // structure; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(words) }
}
