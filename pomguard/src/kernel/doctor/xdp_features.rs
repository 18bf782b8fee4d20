//! Asks the kernel if a driver supports XDP programs. Linux 6.3 and later answer (`netdev` family of generic
//! netlink).

use netlink_sys::protocols::NETLINK_GENERIC;

use crate::kernel::netlink::{self, Raw};

/// linux/genetlink.h: the controller, its command and the attributes of a family.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// linux/netdev.h: the command, the interface, the features of the driver.
const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// The driver supports the verdicts that pomguard returns (`NETDEV_XDP_ACT_BASIC`).
const BASIC: u64 = 1;
/// Bytes of `struct genlmsghdr`.
const HEADER: usize = 4;

/// Returns true if the driver supports XDP programs; `None` if the kernel does not tell.
pub(super) fn native(index: u32) -> Option<bool> {
    let family = ask(CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0")?;
    let family = u16::from_ne_bytes(netlink::attribute(&family, FAMILY_ID)?.get(..2)?.try_into().ok()?);
    let device = ask(family, DEV_GET, IFINDEX, &index.to_ne_bytes())?;
    let features = u64::from_ne_bytes(netlink::attribute(&device, XDP_FEATURES)?.get(..8)?.try_into().ok()?);
    Some(features & BASIC != 0)
}

/// Sends a request with one attribute and returns the attributes of the answer; `None` if the kernel does not know the
/// family or the command.
fn ask(family: u16, command: u8, attribute: u16, value: &[u8]) -> Option<Vec<u8>> {
    let mut body = vec![command, 1, 0, 0];
    netlink::append(&mut body, attribute, value);
    let answers = netlink::ask(NETLINK_GENERIC, &Raw { kind: family, body }, 0).ok()?;
    let answer = answers.into_iter().find(|answer| answer.kind == family)?;
    Some(answer.body.get(HEADER..)?.to_vec())
}
