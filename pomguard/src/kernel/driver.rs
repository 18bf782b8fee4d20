//! The driver of an interface, by the name that `ethtool -i` shows.

use std::{
    io,
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
};

/// `SIOCETHTOOL`, linux/sockios.h.
const ETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GFLAGS`, linux/ethtool.h.
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`: the card takes VLAN tags off.
const RX_VLAN: u32 = 1 << 8;
/// `ETHTOOL_GDRVINFO`, linux/ethtool.h.
const DRIVER_INFO: u32 = 3;

/// `struct ethtool_drvinfo`: the command, the driver's name, and what is not asked for here.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ifreq` with the pointer of its union.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut libc::c_void,
    rest: [u8; 16],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);
const _: () = assert!(size_of::<Request>() == 40);

/// `struct ethtool_value`.
#[repr(C)]
struct Flags {
    command: u32,
    data: u32,
}

/// The driver of an interface; none where it has none that tells.
#[must_use]
pub fn name(interface: &str) -> Option<String> {
    ask(interface).ok().filter(|name| !name.is_empty())
}

/// Returns true if the card of an interface takes VLAN tags off before a program sees a frame; false where it does
/// not tell.
#[must_use]
pub fn strips_vlan_tags(interface: &str) -> bool {
    let mut flags = Flags { command: GET_FLAGS, data: 0 };
    ethtool(interface, (&raw mut flags).cast()).is_ok() && flags.data & RX_VLAN != 0
}

fn ask(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    ethtool(interface, (&raw mut info).cast())?;
    let end = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}

/// Asks the driver of an interface. `data` points to a whole structure of the command that it begins with.
fn ethtool(interface: &str, data: *mut libc::c_void) -> io::Result<()> {
    // Any socket will do, and the unit allows no other that needs no capability.
    let socket = UnixDatagram::unbound()?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], data, rest: [0; 16] };
    for (to, from) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    // SAFETY: the request is a whole `ifreq`, and the callers of this module point it to a whole structure of
    // their command; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
