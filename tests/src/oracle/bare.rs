//! The host's own multicast in generic mode: IP packets without an Ethernet header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pomguard::policy::Policy;

use super::{address::is_group, own::sends};

/// EtherTypes whose frames Linux may accept: the blocks of the list in its header, first and last.
const TAKEN: [(usize, usize); 11] = [
    (3, 0x05ff),
    (0x0800, 0x08ff),
    (0x2200, 0x22ff),
    (0x4300, 0x43ff),
    (0x6000, 0x60ff),
    (0x6500, 0x65ff),
    (0x8000, 0x9fff),
    (0xda00, 0xdaff),
    (0xe000, 0xe1ff),
    (0xed00, 0xedff),
    (0xfb00, 0xfbff),
];

/// Returns true if the frame can be a copy of a packet that this host sent to a group, and if no protocol
/// accepts the same bytes as an Ethernet frame from the wire.
pub(super) fn is_own_multicast(policy: &Policy, fresh: bool, frame: &[u8]) -> bool {
    let Some((source, destination)) = ends(frame) else { return false };
    let kind = usize::from(frame[12]) << 8 | usize::from(frame[13]);
    let taken = TAKEN.iter().any(|&(first, last)| (first..=last).contains(&kind));
    let novell = kind < 3 && frame[14..16] == [0xff, 0xff];
    sends(policy, source, fresh) && is_group(destination) && !taken && !novell
}

/// Returns source and destination, if the frame begins with an IP header whose lengths fit the frame.
fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let two = |at: usize| Some(usize::from(*frame.get(at)?) << 8 | usize::from(*frame.get(at + 1)?));
    match frame.first()? / 16 {
        4 => {
            let header = usize::from(frame[0] % 16) * 4;
            let four = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
            let fits = header >= 20 && (header..=frame.len()).contains(&two(2)?);
            fits.then_some((four(12)?.into(), four(16)?.into()))
        }
        6 => {
            let many = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
            (40 + two(4)? <= frame.len()).then_some((many(8)?.into(), many(24)?.into()))
        }
        _ => None,
    }
}
