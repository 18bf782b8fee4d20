//! Counts the packets that reach a machine's stack, after XDP and before any other part of the stack.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use pomguard_common::protocol::{TCP, UDP};
use pomguard_netlab::Namespace;

use super::sender::packet_socket;
use crate::{daemon::INTERFACE, packet::ether};

/// A socket whose filter accepts the TCP and UDP packets of one sender. The kernel counts them and nobody
/// reads them, so that a flood costs the machine nothing more.
#[derive(Debug)]
pub struct PacketCounter {
    socket: OwnedFd,
    heard: u64,
}

// linux/filter.h and linux/bpf_common.h: classic BPF.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

impl PacketCounter {
    /// Counts packets from `sender` to `port` (`None`: to any port) at the machine's interface.
    pub fn new(machine: &Namespace, sender: (Ipv4Addr, Ipv6Addr), port: Option<u16>) -> Self {
        let program = filter(sender, port);
        let socket = machine.run(|| packet_socket(INTERFACE, libc::ETH_P_ALL as u16, &program)).unwrap();
        Self { socket, heard: 0 }
    }

    /// Returns the number of packets until now.
    pub fn heard(&mut self) -> u64 {
        // SAFETY: two integers, for which zero is a valid value.
        let mut counts: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&counts) as libc::socklen_t;
        // SAFETY: both pointers are to live values, and the length is the size of the first.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "PACKET_STATISTICS: {}", io::Error::last_os_error());
        // The kernel resets its counters with each read. Packets that found no room in the socket are
        // counted, too.
        self.heard += u64::from(counts.tp_packets);
        self.heard
    }
}

/// Builds a filter for TCP and UDP packets of a sender. Offsets are valid for frames without options and
/// extension headers; these tests send no others.
fn filter((v4, v6): (Ipv4Addr, Ipv6Addr), port: Option<u16>) -> Vec<libc::sock_filter> {
    let last_word = v6.to_bits() as u32;
    let family = |next, source, sender, at| {
        let mut program = vec![
            (LOAD_BYTE, next, None),
            (JUMP_EQUAL, u32::from(TCP), Some((1, 0))),
            (JUMP_EQUAL, u32::from(UDP), Some((0, REFUSE))),
            (LOAD_WORD, source, None),
            (JUMP_EQUAL, sender, Some((0, REFUSE))),
        ];
        if let Some(port) = port {
            program.extend([(LOAD_HALF, at, None), (JUMP_EQUAL, port.into(), Some((0, REFUSE)))]);
        }
        // The number of bytes that the socket keeps of the packet.
        program.push((RETURN, 64, None));
        program
    };
    let (v4, v6) = (family(23, 26, v4.to_bits(), 36), family(20, 34, last_word, 56));
    let mut program =
        vec![(LOAD_HALF, 12, None), (JUMP_EQUAL, ether::IPV4.into(), Some((0, v4.len() as u8)))];
    program.extend(v4);
    program.push((JUMP_EQUAL, ether::IPV6.into(), Some((0, REFUSE))));
    program.extend(v6);
    program.push((RETURN, 0, None));
    let end = program.len() - 1;
    program
        .iter()
        .enumerate()
        .map(|(at, &(code, k, jumps))| {
            let (jt, jf) = jumps.unwrap_or_default();
            let jf = if jf == REFUSE { (end - at - 1) as u8 } else { jf };
            libc::sock_filter { code, jt, jf, k }
        })
        .collect()
}

/// A jump target: the end of the filter.
const REFUSE: u8 = u8::MAX;
