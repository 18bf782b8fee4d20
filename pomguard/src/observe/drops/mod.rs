//! Denied connections by peer, port and reason: the kernel's table, added up over time.
//!
//! | module | contents |
//! | --- | --- |
//! | this one | the counts of one peer at one port |
//! | [`ledger`] | the counts of the present hour, and the kernel's counts that they include |
//! | [`peers`] | the peers of known systems whose openings were dropped lately |
//! | [`journal`] | lines for the system's journal |
//! | [`store`] | the hours on disk |
//! | [`report`] | the same counts with names, selected and sorted |

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use pomguard_common::{
    drops::{DropKey, PeerKind},
    reason::Reason,
};
use serde::{Deserialize, Serialize};

pub mod journal;
pub mod ledger;
pub mod peers;
pub mod report;
pub mod store;

/// Packets of one peer or prefix at one port, under one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes, link header included.
    pub bytes: u64,
    /// Seconds since 1970 of the first packet.
    pub first: u64,
    /// Seconds since 1970 of the last packet.
    pub last: u64,
    /// The peer of the first packet: for the prefix of a stranger, the stranger's address.
    pub peer: [u64; 2],
    /// The port at the other end of the first packet.
    pub other_port: u16,
}

impl Counts {
    /// Adds other counts of the same key.
    pub const fn add(&mut self, more: &Self) {
        if self.packets == 0 || more.packets != 0 && more.first < self.first {
            self.first = more.first;
            self.peer = more.peer;
            self.other_port = more.other_port;
        }
        if more.last > self.last {
            self.last = more.last;
        }
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// Counts by key. The key of a stranger holds the prefix.
pub type Table = BTreeMap<DropKey, Counts>;

/// Returns the key under which related entries are added up: a stranger's key loses the bits that do not
/// distinguish entries.
#[must_use]
pub fn group(key: DropKey) -> DropKey {
    let [high, low] = key.mask();
    DropKey { peer: [key.peer[0] & high, key.peer[1] & low], what: key.what }
}

/// The peer of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeniedPeer {
    /// The frame names no peer.
    None,
    /// An address.
    Address(IpAddr),
    /// The MAC address of a frame that is not IP.
    Mac([u8; 6]),
}

impl DeniedPeer {
    /// Returns the peer in the words of a key, or in the words of the first packet.
    #[must_use]
    pub fn new(kind: PeerKind, words: [u64; 2]) -> Self {
        match kind {
            PeerKind::None => Self::None,
            PeerKind::V4 => Self::Address(IpAddr::from(((words[0] >> 32) as u32).to_be_bytes())),
            PeerKind::V6 => {
                let number = u128::from(words[0]) << 64 | u128::from(words[1]);
                Self::Address(IpAddr::from(number.to_be_bytes()))
            }
            PeerKind::Mac => {
                let [_, _, mac @ ..] = words[0].to_be_bytes();
                Self::Mac(mac)
            }
        }
    }

    /// Returns the address; `None` if the peer has no IP address.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::None | Self::Mac(_) => None,
        }
    }
}

impl fmt::Display for DeniedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("-"),
            Self::Address(address) => f.pad(&address.to_string()),
            Self::Mac(mac) => f.pad(&mac.map(|byte| format!("{byte:02x}")).join(":")),
        }
    }
}

/// Returns the prefix of a stranger's key: /24, or /48. `None` for a known system, and for a peer without an
/// address.
#[must_use]
pub fn prefix(key: DropKey) -> Option<IpNet> {
    let length = match key.kind() {
        PeerKind::V4 => 24,
        PeerKind::V6 => 48,
        PeerKind::None | PeerKind::Mac => return None,
    };
    let address = DeniedPeer::new(key.kind(), group(key).peer).address().filter(|_| !key.known())?;
    IpNet::new(address, length).ok()
}

/// Returns the reason of a key.
#[must_use]
pub fn reason(key: DropKey) -> Reason {
    Reason::from_number(key.reason_number()).unwrap_or(Reason::Internal)
}

/// Returns port and protocol in the usual notation: `13724/tcp`, `icmp 8/0`, `gre`, `ethertype 0x88cc`.
#[must_use]
pub fn service(key: DropKey) -> String {
    let port = key.port();
    match (key.kind(), key.protocol()) {
        (PeerKind::Mac, _) => format!("ethertype {port:#06x}"),
        (PeerKind::None, _) => "-".to_owned(),
        (_, 6) => format!("{port}/tcp"),
        (_, 17) => format!("{port}/udp"),
        (_, 1) => format!("icmp {}/{}", port >> 8, port & 0xff),
        (_, 58) => format!("icmpv6 {}/{}", port >> 8, port & 0xff),
        (_, number) => format!("protocol {number}"),
    }
}
