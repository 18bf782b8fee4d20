//! Asks the kernel if a driver supports XDP programs. Linux 6.3 and later answer (`netdev` family of generic
//! netlink).

use std::io;

use netlink_sys::{Socket, protocols::NETLINK_GENERIC};

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
/// Bytes of `struct nlmsghdr` with `struct genlmsghdr`.
const HEADER: usize = 20;

/// Returns true if the driver supports XDP programs; `None` if the kernel does not tell.
pub(super) fn native(index: u32) -> Option<bool> {
    let socket = Socket::new(NETLINK_GENERIC).ok()?;
    let family = ask(&socket, CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0").ok()?;
    let family = u16::from_ne_bytes(find(&family, FAMILY_ID)?.get(..2)?.try_into().ok()?);
    let device = ask(&socket, family, DEV_GET, IFINDEX, &index.to_ne_bytes()).ok()?;
    let features = u64::from_ne_bytes(find(&device, XDP_FEATURES)?.get(..8)?.try_into().ok()?);
    Some(features & BASIC != 0)
}

/// Sends a request with one attribute and returns the attributes of the answer.
fn ask(socket: &Socket, family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let padded = value.len().next_multiple_of(4);
    let mut request = u32::try_from(HEADER + 4 + padded).map_err(too_long)?.to_ne_bytes().to_vec();
    request.extend_from_slice(&family.to_ne_bytes());
    request.extend_from_slice(&netlink_packet_core::NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    request.extend_from_slice(&[command, 1, 0, 0]);
    request.extend_from_slice(&u16::try_from(4 + value.len()).map_err(too_long)?.to_ne_bytes());
    request.extend_from_slice(&attribute.to_ne_bytes());
    request.extend_from_slice(value);
    request.resize(HEADER + 4 + padded, 0);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let kind = answer.get(4..6).and_then(|part| part.try_into().ok()).map_or(0, u16::from_ne_bytes);
    if kind != family {
        // An error: the kernel does not know the family or the command.
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(answer.get(HEADER..).unwrap_or_default().to_vec())
}

/// Returns the value of an attribute.
fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let mut bytes = Vec::new();
        for (kind, value) in [(1_u16, &[9_u8, 9, 9][..]), (3, &[1, 2, 3, 4])] {
            bytes.extend_from_slice(&u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        assert_eq!(find(&bytes, 3), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find(&bytes, 2), None);
        assert_eq!(find(&bytes[..9], 3), None, "cut short");
    }
}
