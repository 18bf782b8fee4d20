//! The driver's message for a refusal of native XDP. A BPF link returns only an error number; the older way to
//! attach, by netlink, returns a sentence (extended acknowledgement). Therefore a refused program is offered
//! once more by netlink.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// linux/rtnetlink.h, linux/if_link.h and linux/netlink.h.
const SET_LINK: u16 = 19;
const XDP: u16 = 43;
const NESTED: u16 = 1 << 15;
const XDP_FD: u16 = 1;
const XDP_FLAGS: u16 = 3;
/// Flags: only if there is no program, and only in the driver.
const IF_NONE: u32 = 1;
const IN_DRIVER: u32 = 1 << 2;
/// The flag of an answer that ends with attributes, and the attribute with the message.
const HAS_WORDS: u16 = 0x200;
const WORDS: u16 = 1;
/// Bytes of `struct nlmsghdr`, and of the error number with the header of the request after it.
const HEADER: usize = 16;
const ERROR: usize = 4 + HEADER;

/// Offers a program to the driver of an interface and returns the driver's message; `None` if the kernel has no
/// message. If the driver accepts the program this time, the program is detached again, because pomguard
/// attaches with a link.
pub(super) fn words(ifindex: u32, program: BorrowedFd<'_>) -> Option<String> {
    let (code, words) = offer(ifindex, program.as_raw_fd(), IF_NONE | IN_DRIVER).ok()?;
    if code == 0 {
        let _ = offer(ifindex, -1, IN_DRIVER);
    }
    words
}

/// Returns the command that solves the problem in the message.
pub(super) fn remedy(interface: &str, words: &str) -> String {
    let lower = words.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if has(&["mtu", "frame size", "buffer", "frags", "too large"]) {
        format!("ip link set dev {interface} mtu 1500")
    } else if has(&["lro", "gro_hw", "gro hw", "guest offload"]) {
        format!("ethtool -K {interface} lro off rx-gro-hw off")
    } else if has(&["queue", "channel", "ring"]) {
        format!("ethtool -l {interface}")
    } else {
        format!("ethtool -i {interface}")
    }
}

/// Sends the request and returns the error number (0: accepted) and the message.
fn offer(ifindex: u32, fd: i32, flags: u32) -> io::Result<(i32, Option<String>)> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    // `struct ifinfomsg`: family, padding, type, index, flags, change.
    let mut body = vec![0_u8; 4];
    body.extend_from_slice(&ifindex.to_ne_bytes());
    body.extend_from_slice(&[0; 8]);
    // Each of the two attributes has 8 bytes; the enclosing attribute has 20.
    body.extend_from_slice(&20_u16.to_ne_bytes());
    body.extend_from_slice(&(XDP | NESTED).to_ne_bytes());
    for (kind, value) in [(XDP_FD, fd.to_ne_bytes()), (XDP_FLAGS, flags.to_ne_bytes())] {
        body.extend_from_slice(&8_u16.to_ne_bytes());
        body.extend_from_slice(&kind.to_ne_bytes());
        body.extend_from_slice(&value);
    }
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend_from_slice(&SET_LINK.to_ne_bytes());
    request.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    request.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    request.extend(body);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    read(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads an acknowledgement: the error number and the message.
fn read(answer: &[u8]) -> Option<(i32, Option<String>)> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if i32::from(half(4)?) != libc::NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    if half(6)? & HAS_WORDS == 0 {
        return Some((code, None));
    }
    let mut at = HEADER + ERROR;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        let length = usize::from(length);
        let Some(value) = answer.get(at + 4..at + length) else { break };
        if kind == WORDS {
            let words = String::from_utf8_lossy(value).trim_end_matches('\0').trim().to_owned();
            return Some((code, Some(words).filter(|words| !words.is_empty())));
        }
        at += length.next_multiple_of(4);
    }
    Some((code, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(flags: u16, words: Option<&str>) -> Vec<u8> {
        let mut body = (-libc::ERANGE).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER]);
        if let Some(words) = words {
            body.extend_from_slice(&u16::try_from(4 + words.len() + 1).unwrap().to_ne_bytes());
            body.extend_from_slice(&WORDS.to_ne_bytes());
            body.extend_from_slice(words.as_bytes());
            body.push(0);
        }
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&2_u16.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn words_of_an_acknowledgement_are_read() {
        let words = "MTU too large to enable XDP without frags";
        assert_eq!(read(&answer(HAS_WORDS, Some(words))), Some((-libc::ERANGE, Some(words.to_owned()))));
        assert_eq!(read(&answer(0, None)), Some((-libc::ERANGE, None)));
        assert_eq!(read(&answer(HAS_WORDS, None)), Some((-libc::ERANGE, None)));
        assert_eq!(read(&[0; 12]), None);
    }

    #[test]
    fn each_refusal_has_a_command() {
        for (words, command) in [
            ("MTU too large to enable XDP without frags", "ip link set dev eth0 mtu 1500"),
            ("Peer MTU is too large to set XDP", "ip link set dev eth0 mtu 1500"),
            (
                "Can't set XDP while host is implementing GRO_HW/CSUM, disable",
                "ethtool -K eth0 lro off rx-gro-hw off",
            ),
            ("not enough queues for XDP", "ethtool -l eth0"),
            ("Underlying driver does not support XDP in native mode", "ethtool -i eth0"),
        ] {
            assert_eq!(remedy("eth0", words), command, "{words}");
        }
    }
}
