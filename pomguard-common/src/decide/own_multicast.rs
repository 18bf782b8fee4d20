//! The host's own multicast, as XDP sees it in generic mode.
//!
//! The kernel delivers a copy of each multicast packet that this host sends to the group's members on this
//! host (`dev_loopback_xmit`). In generic mode XDP sees the copy without an Ethernet header: the IP header
//! begins where an Ethernet header should. No field tells the two apart, so each frame has two readings. A
//! stranger on the link can send the *twin* of such a copy: an Ethernet frame with the same bytes, which the
//! kernel then reads as Ethernet.
//!
//! The EtherType of the twin is part of the source address of the copy. A frame passes only if no part of the
//! kernel takes frames of this EtherType: then the copy goes to the group's members, and the twin goes to
//! nobody. A host with an address that spells an EtherType of the kernel does not hear its own multicast in
//! generic mode.

use super::{Env, address::group};
use crate::{
    control::{ControlView as _, generic, word},
    image::{Address, Barrier as _, Family},
    packet::{Packet, be16, be32, words},
    parse::ethertype,
    reason::Reason,
};

/// Returns the number of the reason that decides a frame of no known EtherType: [`Reason::OwnMulticast`] for
/// a copy of the host's own multicast at an interface in generic mode, else [`Reason::EtherType`]. A separate
/// function in the programs.
#[inline(never)]
pub(super) fn own_multicast<P, E>(packet: &P, env: &E) -> u8
where
    P: Packet + ?Sized,
    E: Env,
{
    let lines = env.image().lines();
    let wanted = generic(packet.interface());
    // No branches: the verifier would follow each.
    let mut listed = 0;
    let mut at = 0;
    while at < word::GENERIC_WORDS {
        listed |= (lines.control(word::GENERIC + at) ^ wanted).wrapping_sub(1) >> 63;
        at += 1;
    }
    if lines.barrier(listed) != 0 && is_copy(packet, env) {
        Reason::OwnMulticast as u8
    } else {
        Reason::EtherType as u8
    }
}

/// Returns true if the frame is an IP packet without a link header, sent by this host to a group, and if the
/// kernel delivers the twin to nobody.
#[inline(always)]
fn is_copy<P, E>(packet: &P, env: &E) -> bool
where
    P: Packet + ?Sized,
    E: Env,
{
    let Some(start) = packet.window::<20>(0) else { return false };
    if !goes_to_nobody(be16::<12, 20>(start), be16::<14, 20>(start)) {
        return false;
    }
    match start[0] >> 4 {
        4 => {
            let (header, total) = (u16::from(start[0] & 0x0f) * 4, be16::<2, 20>(start));
            let whole = header >= 20 && total >= header && u32::from(total) <= packet.length();
            let (source, destination) = ([be32::<12, 20>(start), 0, 0, 0], [be32::<16, 20>(start), 0, 0, 0]);
            whole && group(Family::V4, &destination) && sends(env, Family::V4, &source)
        }
        6 => {
            let Some(start) = packet.window::<40>(0) else { return false };
            let whole = 40 + u32::from(be16::<4, 40>(start)) <= packet.length();
            let source = words::<8, 12, 16, 20, 40>(start);
            let destination = words::<24, 28, 32, 36, 40>(start);
            whole && group(Family::V6, &destination) && sends(env, Family::V6, &source)
        }
        _ => false,
    }
}

/// Returns true if this host may send from an address.
#[inline(always)]
fn sends<E: Env>(env: &E, family: Family, address: &Address) -> bool {
    env.image().class(family, address).may_send(env.knows_holders())
}

/// Returns true if the kernel, with any set of modules, delivers a frame of this EtherType to nobody. `next`
/// is the field after the EtherType.
///
/// The EtherTypes that Linux takes (include/uapi/linux/if_ether.h) lie in the blocks that are named here. A
/// number below 1,536 is a length. A length of at most 2 leaves no room for an LLC header, which the kernel
/// requires (`llc_fixup_skb`), unless 0xffff follows, which means Novell's own framing.
#[inline(always)]
const fn goes_to_nobody(ether_type: u16, next: u16) -> bool {
    if ether_type < ethertype::FIRST {
        return ether_type <= 2 && next != 0xffff;
    }
    !matches!(
        ether_type >> 8,
        0x08 | 0x22 | 0x43 | 0x60 | 0x65 | 0x80..=0x9f | 0xda | 0xe0 | 0xe1 | 0xed | 0xfb
    )
}
