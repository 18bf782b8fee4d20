//! A socket that only sends: thousands of frames, and no memory for incoming frames.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use pomguard_netlab::Namespace;

use crate::daemon::INTERFACE;

/// A socket that sends whole frames on the cable of a machine.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// Opens the socket at the machine's interface. The socket stays there, whatever thread uses it.
    pub fn at(machine: &Namespace) -> Self {
        Self::at_link(machine, INTERFACE)
    }

    /// Opens the socket at another interface of the machine.
    pub fn at_link(machine: &Namespace, link: &str) -> Self {
        machine.run(|| Self(packet_socket(link, 0, &[]))).unwrap()
    }

    /// Opens the socket at the machine's interface such that frames skip the queueing discipline, and so the
    /// egress hook before it.
    pub fn past_the_queues(machine: &Namespace) -> Self {
        /// linux/if_packet.h
        const PACKET_QDISC_BYPASS: libc::c_int = 20;
        let (sender, yes) = (Self::at(machine), 1_i32);
        // SAFETY: the pointer is to a live value of the given size.
        let set = unsafe {
            libc::setsockopt(
                sender.0.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_QDISC_BYPASS,
                (&raw const yes).cast(),
                size_of_val(&yes) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "PACKET_QDISC_BYPASS: {}", io::Error::last_os_error());
        sender
    }

    /// Sends a frame. Returns false if the machine's own egress hook dropped the frame and the kernel reports
    /// that, or if the interface is down.
    pub fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: the pointer is to `frame.len()` live bytes.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent == frame.len().cast_signed() {
            return true;
        }
        let error = io::Error::last_os_error();
        assert!(matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENETDOWN)), "{error}");
        false
    }
}

/// Opens a packet socket at an interface in the namespace of the calling thread. The socket receives frames
/// of `protocol` (0: the socket only sends) that `filter` accepts (empty: all frames).
pub(super) fn packet_socket(link: &str, protocol: u16, filter: &[libc::sock_filter]) -> OwnedFd {
    // Without a protocol: the socket must receive nothing before its filter is attached.
    // SAFETY: takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "AF_PACKET: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was made above, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    if !filter.is_empty() {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the filter, whose length is in the program.
        let attached = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        assert_eq!(attached, 0, "SO_ATTACH_FILTER: {}", io::Error::last_os_error());
    }
    // SAFETY: `sockaddr_ll` is plain C data, for which all zeroes is a valid value.
    let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    at.sll_family = libc::AF_PACKET as u16;
    at.sll_ifindex = nix::net::if_::if_nametoindex(link).unwrap().cast_signed();
    at.sll_protocol = protocol.to_be();
    // SAFETY: the pointer is to a live value of the given size.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), size_of_val(&at) as u32) };
    assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
    socket
}
