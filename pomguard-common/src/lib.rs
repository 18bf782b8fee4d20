//! What the BPF programs and the daemon share.
//!
//! One place for every number that both sides use, and one implementation of packet parsing and
//! of the decision: the same code is compiled into the XDP and TC programs and into host tests.
//! The oracle that checks it is a second, naive implementation and lives in `pomguard::policy`.
//!
//! # Layout, in the way of a packet
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`limits`] | sizes and bounds |
//! | [`names`] | names of maps, programs and globals |
//! | [`reason`] | why a packet passed or was dropped: the append-only list |
//! | [`control`] | what holds alongside the generations: panic, deadlines, overrides |
//! | [`image`] | the bytes of one compiled policy, as user space writes and the programs read them |
//! | [`packet`], [`parse`] | bytes of a frame, and what they say |
//! | [`flow`] | flows that this host opened |
//! | [`serve`] | local ports that something other than an answer was let in to |
//! | [`rate`] | what may come in only so often |
//! | [`decide`] | what becomes of a packet, and why |
//! | [`counter`] | what is counted |
//! | [`drops`] | who was denied, at which port, and why |
//! | [`mod@bench`] | what the bench's own programs are called and made of |

#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod barrier;
pub mod bench;
pub mod control;
pub mod counter;
mod datagram;
pub mod decide;
pub mod drops;
pub mod flow;
pub mod image;
pub mod limits;
pub mod names;
pub mod net;
pub mod packet;
pub mod parse;
pub mod rate;
pub mod reason;
pub mod serve;
mod served;
mod word;

/// Version of everything laid out here: map layouts, image layout, counter layout.
/// A daemon that finds pinned maps of another version makes its own alongside them.
pub const ABI_VERSION: u32 = 5;

/// A direction as seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[repr(u8)]
pub enum Direction {
    /// From the network to this host (XDP).
    Inbound = 0,
    /// From this host to the network (TC egress).
    Outbound = 1,
}

impl Direction {
    /// Both, in index order.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// Index into tables that have one part per direction.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used in tables, JSON and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// IANA protocol numbers that the programs treat by name.
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// IGMP, RFC 3376.
    pub const IGMP: u8 = 2;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// VRRP, RFC 9568.
    pub const VRRP: u8 = 112;
}
