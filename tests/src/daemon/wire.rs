//! Frames of our own making, which no socket would send, and echo requests.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _},
    time::Duration,
};

use etherparse::PacketBuilder;
use pomguard_netlab::{Namespace, outside::Cable};

use super::{INTERFACE, Lab, patience};

/// TCP flags of a segment that claims to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// SYN and ACK: claims to answer an opening.
    SynAck,
    /// ACK alone: claims to belong to an established connection.
    Ack,
}

impl Lab {
    /// Sends one TCP segment from the peer to the server that claims to answer the server.
    pub fn claim(&self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), claim: Claim) {
        let mac = |namespace: &Namespace| namespace.link(INTERFACE).state().unwrap().mac.unwrap();
        let segment = PacketBuilder::ethernet2(mac(&self.peer), mac(&self.server))
            .ipv4(from.0.octets(), to.0.octets(), 64)
            .tcp(from.1, to.1, 1, 1_000)
            .ack(1);
        let segment = if claim == Claim::SynAck { segment.syn() } else { segment };
        let mut frame = Vec::new();
        segment.write(&mut frame, &[]).unwrap();
        Wire::of(&self.peer).send(&frame);
    }
}

/// A machine's end of a cable: sends and receives raw frames.
#[derive(Debug)]
pub struct Wire(UdpSocket);

impl Wire {
    /// Opens the cable at the machine's `eth0`.
    pub fn of(machine: &Namespace) -> Self {
        Self::at(machine, INTERFACE)
    }

    /// Opens the cable at an interface of a machine.
    pub fn at(machine: &Namespace, interface: &str) -> Self {
        machine.run(|| Self::open(interface)).unwrap()
    }

    fn open(interface: &str) -> Self {
        const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
        let index = nix::net::if_::if_nametoindex(interface).unwrap();
        // SAFETY: takes no pointer.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(ALL)) };
        assert!(socket >= 0, "AF_PACKET: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was made above, and nobody else has it. Packet sockets support `send` and
        // `recv`, the only calls made on it below.
        let socket = unsafe { UdpSocket::from_raw_fd(socket) };
        // SAFETY: `sockaddr_ll` is plain C data, for which all zeroes is a valid value.
        let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        at.sll_family = libc::AF_PACKET as u16;
        at.sll_protocol = ALL;
        at.sll_ifindex = index.cast_signed();
        let length = size_of_val(&at) as u32;
        // SAFETY: the pointer is to a live value of the size that is given.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        // Outgoing frames would fill the buffer for incoming frames.
        let yes = 1;
        let length = size_of_val(&yes) as u32;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING);
        // SAFETY: the pointer is to a live value of the size that is given.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const yes).cast(), length) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        assert_eq!(self.0.send(frame).unwrap(), frame.len());
    }

    /// Sends a frame of which the kernel keeps only the first `linear` bytes together; the rest lies in pages. The
    /// kernel splits only frames that are longer than a page.
    pub fn send_split(&self, frame: &[u8], linear: u16) {
        /// The header before each frame (`struct virtio_net_hdr`): flags and type of offload, then four numbers.
        const HEADER: usize = 10;
        const PACKET_VNET_HDR: i32 = 15;
        let on = |yes: i32| {
            let length = size_of_val(&yes) as u32;
            let (level, option) = (libc::SOL_PACKET, PACKET_VNET_HDR);
            // SAFETY: the pointer is to a live value of the size that is given.
            let set = unsafe {
                libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const yes).cast(), length)
            };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        };
        let mut bytes = vec![0; HEADER];
        bytes[2..4].copy_from_slice(&linear.to_le_bytes());
        bytes.extend(frame);
        on(1);
        let sent = self.0.send(&bytes);
        on(0);
        assert_eq!(sent.unwrap(), bytes.len());
    }

    /// Sends frames with `sendmmsg`: each system call takes as many as it can.
    pub fn send_all(&self, frames: &[Vec<u8>]) {
        let parts: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter()
            .map(|part| {
                // SAFETY: `mmsghdr` is plain C data, for which all zeroes is a valid value.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = (&raw const *part).cast_mut();
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut sent = 0;
        while sent < messages.len() {
            let left = &mut messages[sent..];
            // SAFETY: the messages point to `parts`, and `parts` to `frames`; all of them outlive the call.
            let count =
                unsafe { libc::sendmmsg(self.0.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, 0) };
            if let Ok(count) = usize::try_from(count) {
                sent += count;
                continue;
            }
            // The receiver is behind. Its buffer accepts more after a moment.
            let error = io::Error::last_os_error();
            assert!(matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)), "{error}");
            std::thread::yield_now();
        }
    }

    /// Returns the next frame, or `None` if no frame comes within this time.
    pub fn next(&self, within: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut buffer = vec![0; 4_096];
        let length = self.0.recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }
}

impl Cable for Wire {
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self.0.send(frame) {
            // One of the two interfaces is down.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS)) => Ok(()),
            sent => sent.map(drop),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.set_read_timeout(Some(Duration::from_millis(100)))?;
        match self.0.recv(buffer) {
            // The kernel reports this once to every socket of an interface that went down.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            received => received,
        }
    }
}

/// Returns true if an echo request is answered.
pub fn pings(from: &Namespace, to: impl Into<IpAddr>) -> bool {
    let to = to.into();
    from.set_sysctl("net/ipv4/ping_group_range", "0 0").unwrap();
    let (family, protocol, request) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128),
    };
    from.run(|| {
        // SAFETY: takes no pointer.
        let socket = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
        assert!(socket >= 0, "an echo socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was made above, and nobody else has it. The calls on it are valid for any
        // datagram socket; the kernel fills in identifier and checksum.
        let socket = unsafe { UdpSocket::from_raw_fd(socket) };
        socket.set_read_timeout(Some(patience(2))).unwrap();
        socket.send_to(&[request, 0, 0, 0, 0, 0, 0, 1], SocketAddr::new(to, 0)).unwrap();
        socket.recv(&mut [0; 64]).is_ok()
    })
    .unwrap()
}
