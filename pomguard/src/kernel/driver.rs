//! The driver of an interface, by the name that `ethtool -i` shows.

use std::{
    io,
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
};

use pomguard_common::text::FixedText;

/// `SIOCETHTOOL`, linux/sockios.h.
const ETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GFLAGS`, linux/ethtool.h.
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`: the card removes VLAN tags.
const RX_VLAN: u32 = 1 << 8;
/// `ETHTOOL_GDRVINFO`, linux/ethtool.h.
const DRIVER_INFO: u32 = 3;

/// `struct ethtool_drvinfo`: the command, the driver's name, and fields that pomguard does not use.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: FixedText<32>,
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

/// Returns the name of an interface's driver; `None` if the interface has no driver that tells.
#[must_use]
pub fn name(interface: &str) -> Option<String> {
    ask(interface).ok().filter(|name| !name.is_empty())
}

/// Returns true if the card of an interface removes VLAN tags before a program sees a frame; false if the
/// driver does not tell.
#[must_use]
pub fn strips_vlan_tags(interface: &str) -> bool {
    let mut flags = Flags { command: GET_FLAGS, data: 0 };
    ethtool(interface, (&raw mut flags).cast()).is_ok() && flags.data & RX_VLAN != 0
}

fn ask(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: DRIVER_INFO, driver: FixedText::new(""), rest: [0; 160] };
    ethtool(interface, (&raw mut info).cast())?;
    Ok(info.driver.to_string())
}

/// Sends a command to the driver of an interface. `data` points to a whole structure of the command, which is
/// the first field.
fn ethtool(interface: &str, data: *mut libc::c_void) -> io::Result<()> {
    // Any socket works; the unit allows no other socket that needs no capability.
    let socket = UnixDatagram::unbound()?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], data, rest: [0; 16] };
    for (to, from) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    // SAFETY: the request is a whole `ifreq`, and the callers in this module pass a pointer to a whole
    // structure of their command; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
