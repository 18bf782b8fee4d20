//! AF_XDP sockets, which receive packets from a card and bypass every filter of the host.

use std::io;

use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::kernel::netlink::{self, Raw};

/// linux/socket.h.
const AF_XDP: u8 = 44;
/// linux/sock_diag.h: the request and the answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// linux/xdp_diag.h: asks for the interface and the queue.
const XDP_SHOW_INFO: u32 = 1;
const XDP_DIAG_INFO: u16 = 1;
/// Bytes of `struct xdp_diag_msg`.
const MESSAGE: usize = 16;

/// Returns the indices of the interfaces that have AF_XDP sockets, each once.
pub(super) fn interfaces() -> io::Result<Vec<u32>> {
    // `struct xdp_diag_req`: family, protocol, padding, inode, requested information, cookie.
    let mut body = vec![AF_XDP, 0, 0, 0];
    body.extend_from_slice(&0_u32.to_ne_bytes());
    body.extend_from_slice(&XDP_SHOW_INFO.to_ne_bytes());
    body.extend_from_slice(&[0; 8]);
    match netlink::ask(NETLINK_SOCK_DIAG, &Raw { kind: SOCK_DIAG_BY_FAMILY, body }, NLM_F_DUMP) {
        // A kernel without AF_XDP answers that the family does not exist.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(Vec::new()),
        answers => {
            let mut found: Vec<u32> = answers?.iter().filter_map(|answer| interface(&answer.body)).collect();
            found.sort_unstable();
            found.dedup();
            Ok(found)
        }
    }
}

/// Returns the interface of a socket; `None` if the socket is not bound.
fn interface(socket: &[u8]) -> Option<u32> {
    // `struct xdp_diag_info`: interface and queue. Interface 0 means that the socket is not bound.
    let info = netlink::attribute(socket.get(MESSAGE..)?, XDP_DIAG_INFO)?;
    let index = u32::from_ne_bytes(info.get(..4)?.try_into().ok()?);
    (index != 0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_a_bound_socket_is_read() {
        let socket = |index: u32| {
            let mut body = vec![0; MESSAGE];
            netlink::append(&mut body, XDP_DIAG_INFO, &[index.to_ne_bytes(), [0; 4]].concat());
            body
        };
        assert_eq!(interface(&socket(7)), Some(7));
        assert_eq!(interface(&socket(0)), None);
        assert_eq!(interface(&socket(7)[..MESSAGE + 6]), None, "cut short");
    }

    #[test]
    fn kernel_answers() {
        // Without AF_XDP sockets, or without the permission to ask, the test claims nothing.
        let _ = interfaces().map(|found| assert!(found.iter().all(|index| *index > 0)));
    }
}
