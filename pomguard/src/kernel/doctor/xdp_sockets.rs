//! AF_XDP sockets, which receive packets from a card and bypass every filter of the host.

use std::io;

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// linux/socket.h.
const AF_XDP: u8 = 44;
/// linux/sock_diag.h: the request and the answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// linux/xdp_diag.h: asks for the interface and the queue.
const XDP_SHOW_INFO: u32 = 1;
const XDP_DIAG_INFO: u16 = 1;
/// Bytes of `struct nlmsghdr` and `struct xdp_diag_msg`.
const HEADER: usize = 16;
const MESSAGE: usize = 16;

/// Returns the indices of the interfaces that have AF_XDP sockets, each once.
pub(super) fn interfaces() -> io::Result<Vec<u32>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    // `struct xdp_diag_req`: family, protocol, padding, inode, requested information, cookie.
    let mut request = Vec::with_capacity(HEADER + 20);
    request.extend_from_slice(&36_u32.to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    let flags = netlink_packet_core::NLM_F_REQUEST | netlink_packet_core::NLM_F_DUMP;
    request.extend_from_slice(&flags.to_ne_bytes());
    request.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    request.extend_from_slice(&[AF_XDP, 0, 0, 0]);
    request.extend_from_slice(&0_u32.to_ne_bytes());
    request.extend_from_slice(&XDP_SHOW_INFO.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    socket.send(&request, 0)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        if read(&bytes, &mut found)? {
            found.sort_unstable();
            found.dedup();
            return Ok(found);
        }
    }
}

/// Reads one buffer of answers. Returns true at the end of the list. A kernel without AF_XDP answers that the
/// family does not exist, which ends the list.
fn read(bytes: &[u8], found: &mut Vec<u32>) -> io::Result<bool> {
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let length = word(rest, 0) as usize;
        let kind = half(rest, 4);
        if length < HEADER || length > rest.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = word(rest, HEADER).cast_signed();
                return match -code {
                    0 | libc::ENOENT | libc::EINVAL => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code)),
                };
            }
            _ => attributes(rest.get(HEADER + MESSAGE..length).unwrap_or_default(), found),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Reads the attributes of one socket.
fn attributes(bytes: &[u8], found: &mut Vec<u32>) {
    let mut rest = bytes;
    while rest.len() >= 4 {
        let length = usize::from(half(rest, 0));
        if length < 4 || length > rest.len() {
            return;
        }
        // `struct xdp_diag_info`: interface and queue. Interface 0 means that the socket is not bound.
        if half(rest, 2) == XDP_DIAG_INFO && length >= 12 && word(rest, 4) != 0 {
            found.push(word(rest, 4));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Returns four bytes in the byte order of this machine; zero beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// Returns two bytes in the byte order of this machine; zero beyond the end.
fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|part| part.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn sockets_are_read_to_the_end_of_the_list() {
        let mut body = vec![0; MESSAGE];
        body.extend_from_slice(&12_u16.to_ne_bytes());
        body.extend_from_slice(&XDP_DIAG_INFO.to_ne_bytes());
        body.extend_from_slice(&7_u32.to_ne_bytes());
        body.extend_from_slice(&0_u32.to_ne_bytes());
        let mut bytes = answer(SOCK_DIAG_BY_FAMILY, &body);
        let mut found = Vec::new();
        assert!(!read(&bytes, &mut found).unwrap());
        assert_eq!(found, [7]);
        bytes.extend(answer(3, &[0; 4]));
        assert!(read(&bytes, &mut found).unwrap());
        assert!(read(&answer(2, &(-libc::ENOENT).to_ne_bytes()), &mut found).unwrap());
        assert!(read(&answer(2, &(-libc::EPERM).to_ne_bytes()), &mut found).is_err());
        assert!(read(&bytes[..20], &mut found).is_err(), "a message that is cut short");
    }

    #[test]
    fn kernel_answers() {
        // Without AF_XDP sockets, or without the permission to ask, the test claims nothing.
        let _ = interfaces().map(|found| assert!(found.iter().all(|index| *index > 0)));
    }
}
