//! Counts what reaches a machine's stack, past XDP and before anything else of it looks.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use pomguard_common::protocol::{TCP, UDP};
use pomguard_netlab::Namespace;

use super::sender::packet_socket;
use crate::{daemon::INTERFACE, packet::ether};

/// A socket whose filter takes the TCP and UDP packets of one sender. The kernel counts them; nobody
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
    /// Hears what `sender` sends to `port` (to any port: none), at the machine's interface.
    pub fn new(machine: &Namespace, sender: (Ipv4Addr, Ipv6Addr), port: Option<u16>) -> Self {
        let program = filter(sender, port);
        let socket = machine.run(|| packet_socket(INTERFACE, libc::ETH_P_ALL as u16, &program)).unwrap();
        Self { socket, heard: 0 }
    }

    /// Packets until now.
    pub fn heard(&mut self) -> u64 {
        // SAFETY: two integers, for which zero is a value.
        let mut counts: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&counts) as libc::socklen_t;
        // SAFETY: both pointers are to live values, and the length is that of the first.
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
        // The kernel counts anew from here on; what found no room in the socket is among the packets.
        self.heard += u64::from(counts.tp_packets);
        self.heard
    }
}

/// Takes TCP and UDP of a sender. Offsets are those of frames without options and extension headers,
/// which are all that these tests send.
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
        // As much as the socket is to keep of it.
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

/// A jump to the end of the filter.
const REFUSE: u8 = u8::MAX;
