//! The driver of an interface, by the name that `ethtool -i` shows.

use std::{
    io,
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
};

/// `SIOCETHTOOL`, linux/sockios.h.
const ETHTOOL: libc::c_ulong = 0x8946;
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
    data: *mut DriverInfo,
    rest: [u8; 16],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);
const _: () = assert!(size_of::<Request>() == 40);

/// The driver of an interface; none where it has none that tells.
#[must_use]
pub fn name(interface: &str) -> Option<String> {
    ask(interface).ok().filter(|name| !name.is_empty())
}

fn ask(interface: &str) -> io::Result<String> {
    // Any socket will do, and the unit allows no other that needs no capability.
    let socket = UnixDatagram::unbound()?;
    let mut info = DriverInfo { command: DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut info, rest: [0; 16] };
    for (to, from) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    // SAFETY: the request is a whole `ifreq`, and what it points to is a whole `ethtool_drvinfo`; both outlive
    // the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let end = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}
