//! Code and numbers that the BPF programs and the daemon share.
//!
//! Every number that both sides use has one definition here, and packet parsing and the decision have one
//! implementation: the same code is compiled into the XDP and TC programs and into host tests. The oracle
//! that checks this code is a second, naive implementation in `pomguard::policy`.
//!
//! # Layout, in the order in which a packet meets the modules
//!
//! | module | contents |
//! | --- | --- |
//! | [`limits`] | sizes and bounds |
//! | [`names`] | names of maps, programs and globals |
//! | [`reason`] | reasons why packets pass or are dropped: the append-only list |
//! | [`control`] | state that holds in addition to the generations: suspension, deadlines, overrides |
//! | [`image`] | the bytes of one compiled policy, as user space writes and the programs read them |
//! | [`packet`], [`parse`] | bytes of a frame, and their meaning |
//! | [`ticks`] | the time since a stored time |
//! | [`flow`] | flows that this host opened |
//! | [`serve`] | local ports that let in a packet other than an answer |
//! | [`rate`] | rate limits of inbound packets |
//! | [`decide`] | the decision on a packet, and the reason for it |
//! | [`counter`] | the counters |
//! | [`drops`] | who was denied, at which port, and why |
//! | [`mod@bench`] | names and constants of the bench's own programs |

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
pub mod text;
pub mod ticks;
mod word;

/// Version of every layout in this crate: maps, image, counters. A daemon that finds pinned maps of another
/// version makes its own maps next to them.
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
    /// Both directions, in index order.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// Returns the index into tables that have one part per direction.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the word used in tables, JSON and metric labels.
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
