//! The flows of this machine, read from the kernel's socket table.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::{KernelError, netlink};
use crate::policy::{Direction, machine::Listener, oracle::Opening};

/// States of a socket (include/net/tcp_states.h).
mod state {
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const SYN_SENT: u8 = 2;
    pub(super) const FIN_WAIT1: u8 = 4;
    pub(super) const FIN_WAIT2: u8 = 5;
    pub(super) const TIME_WAIT: u8 = 6;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const CLOSE_WAIT: u8 = 8;
    pub(super) const LISTEN: u8 = 10;
}

/// One flow with another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// IANA protocol number: TCP or UDP.
    pub protocol: u8,
    /// This machine's end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// True if the peer opened the flow: this machine listens at the local port.
    pub inbound: bool,
}

impl Connection {
    /// Returns the addresses and ports of the packet that opened the flow.
    #[must_use]
    pub const fn opening(&self) -> Opening {
        let Self { protocol, local, peer, inbound } = *self;
        let (direction, source, destination) =
            if inbound { (Direction::Inbound, peer, local) } else { (Direction::Outbound, local, peer) };
        Opening {
            direction,
            source: source.ip(),
            source_port: source.port(),
            destination: destination.ip(),
            destination_port: destination.port(),
            protocol,
        }
    }
}

/// Returns every flow with another machine: TCP in any open state, and connected UDP. Leaves out flows within
/// this machine.
///
/// # Errors
/// If the kernel does not answer.
pub fn connections() -> Result<Vec<Connection>, KernelError> {
    Ok(talking()?.into_iter().map(|(connection, _)| connection).collect())
}

/// Returns the flows whose sockets have these inode numbers.
///
/// # Errors
/// If the kernel does not answer.
pub fn owned(inodes: &[u32]) -> Result<Vec<Connection>, KernelError> {
    let all = talking()?.into_iter();
    Ok(all.filter(|(_, inode)| inodes.contains(inode)).map(|(connection, _)| connection).collect())
}

/// Returns every flow with the inode number of the socket.
fn talking() -> Result<Vec<(Connection, u32)>, KernelError> {
    let mut found = Vec::new();
    for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
        let mut sockets = Vec::new();
        for family in [AF_INET, AF_INET6] {
            sockets.extend(dump(family, protocol)?);
        }
        let listening: HashSet<u16> = sockets
            .iter()
            .filter(|socket| listens(protocol, socket))
            .map(|socket| socket.local.port())
            .collect();
        found.extend(sockets.into_iter().filter(|socket| talks(protocol, socket)).map(|socket| {
            let inbound = listening.contains(&socket.local.port());
            (Connection { protocol, local: socket.local, peer: socket.peer, inbound }, socket.inode)
        }));
    }
    Ok(found)
}

/// Returns every socket that waits for peers, except sockets on loopback addresses.
///
/// # Errors
/// If the kernel does not answer.
pub fn listeners() -> Result<Vec<Listener>, KernelError> {
    let mut found = Vec::new();
    for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
        for family in [AF_INET, AF_INET6] {
            let waiting = dump(family, protocol)?.into_iter().filter(|line| listens(protocol, line));
            found.extend(waiting.map(|line| Listener {
                protocol,
                address: line.local.ip(),
                port: line.local.port(),
            }));
        }
    }
    found.retain(|listener| !listener.address.is_loopback());
    found.sort();
    found.dedup();
    Ok(found)
}

/// The two ends of a connection: local, peer.
pub type Endpoints = (SocketAddr, SocketAddr);

/// Returns the ends of every TCP socket that has two ends, including TIME-WAIT, each with true if the stack has
/// seen at most one side's FIN. Returns `None` if the kernel has no such table.
///
/// # Errors
/// If the kernel does not answer.
pub fn tcp() -> Result<Option<HashMap<Endpoints, bool>>, KernelError> {
    use state::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, SYN_SENT};
    let mut found = HashMap::new();
    for family in [AF_INET, AF_INET6] {
        let Some(lines) = dump_if_any(family, IPPROTO_TCP)? else { return Ok(None) };
        let connected = lines.into_iter().filter(|line| line.state != state::LISTEN);
        found.extend(connected.map(|line| {
            let goes_on = [ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT].contains(&line.state);
            ((line.local, line.peer), goes_on)
        }));
    }
    Ok(Some(found))
}

/// A line of the socket table.
struct Line {
    state: u8,
    local: SocketAddr,
    peer: SocketAddr,
    /// Inode number of the socket.
    inode: u32,
}

fn listens(protocol: u8, line: &Line) -> bool {
    line.state == if protocol == IPPROTO_TCP { state::LISTEN } else { state::CLOSE }
}

fn talks(protocol: u8, line: &Line) -> bool {
    let open = if protocol == IPPROTO_TCP {
        ![state::LISTEN, state::CLOSE, state::TIME_WAIT].contains(&line.state)
    } else {
        line.state == state::ESTABLISHED
    };
    let away = |address: IpAddr| !address.is_loopback() && !address.is_unspecified();
    open && away(line.peer.ip()) && line.peer.ip() != line.local.ip()
}

/// Returns the address on the wire: a socket for both families may have an IPv4 flow.
fn on_the_wire(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// Returns the lines of a table; empty if the kernel has no such table (udp_diag not loaded).
fn dump(family: u8, protocol: u8) -> Result<Vec<Line>, KernelError> {
    Ok(dump_if_any(family, protocol)?.unwrap_or_default())
}

/// Returns the lines of a table; `None` if the kernel has no such table.
fn dump_if_any(family: u8, protocol: u8) -> Result<Option<Vec<Line>>, KernelError> {
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let answers = match netlink::ask(NETLINK_SOCK_DIAG, &SockDiagMessage::InetRequest(request), NLM_F_DUMP) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        answers => answers.map_err(KernelError::system("netlink", "request to the kernel's socket table"))?,
    };
    let line = |answer| {
        let SockDiagMessage::InetResponse(response) = answer else { return None };
        let header = response.header;
        let id = header.socket_id;
        Some(Line {
            state: header.state,
            inode: header.inode,
            local: on_the_wire(id.source_address, id.source_port),
            peer: on_the_wire(id.destination_address, id.destination_port),
        })
    };
    Ok(Some(answers.into_iter().filter_map(line).collect()))
}
