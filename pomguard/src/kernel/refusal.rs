//! The driver's message for a refusal of native XDP. A BPF link returns only an error number; the older way to
//! attach, by netlink, returns a sentence (extended acknowledgement). Therefore a refused program is offered
//! once more by netlink.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::NLM_F_ACK;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::netlink::{self, Raw};

/// linux/rtnetlink.h, linux/if_link.h and linux/netlink.h.
const SET_LINK: u16 = 19;
const XDP: u16 = 43;
const NESTED: u16 = 1 << 15;
const XDP_FD: u16 = 1;
const XDP_FLAGS: u16 = 3;
/// Flags: only if there is no program, and only in the driver.
const IF_NONE: u32 = 1;
const IN_DRIVER: u32 = 1 << 2;
/// The attribute of an acknowledgement with the message.
const WORDS: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

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
    let mut program = Vec::new();
    netlink::append(&mut program, XDP_FD, &fd.to_ne_bytes());
    netlink::append(&mut program, XDP_FLAGS, &flags.to_ne_bytes());
    netlink::append(&mut body, XDP | NESTED, &program);
    let end = netlink::exchange(&socket, Raw { kind: SET_LINK, body }, NLM_F_ACK)?.end;
    let end = end.ok_or(io::ErrorKind::InvalidData)?;
    Ok((end.raw_code(), sentence(&end.header)))
}

/// Reads the message that follows the header of the request in an acknowledgement.
fn sentence(behind_the_code: &[u8]) -> Option<String> {
    let value = netlink::attribute(behind_the_code.get(HEADER..)?, WORDS)?;
    let words = String::from_utf8_lossy(value).trim_end_matches('\0').trim().to_owned();
    Some(words).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_acknowledgement_are_read() {
        let header = || vec![0; HEADER];
        let words = "MTU too large to enable XDP without frags";
        let mut with_words = header();
        netlink::append(&mut with_words, WORDS, format!("{words}\0").as_bytes());
        assert_eq!(sentence(&with_words).as_deref(), Some(words));
        let mut empty = header();
        netlink::append(&mut empty, WORDS, &[0]);
        for none in [header(), empty, Vec::new()] {
            assert_eq!(sentence(&none), None);
        }
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
