//! The drops with names, selected and sorted: the content of `pomguard drops`.

use std::{cmp::Reverse, net::IpAddr};

use ipnet::IpNet;
use pomguard_common::{
    Direction,
    drops::{DropKey, PeerKind},
    reason::Reason,
};
use serde::Serialize;

use super::{
    Counts, DeniedPeer,
    ledger::{Hour, RestTable},
    prefix, reason, service,
};
use crate::{
    observe::snapshot::Disposition,
    policy::{Policy, RowId, oracle::Opening},
};

/// The selection of drops. `None` selects all.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Drops with a packet at this time or later (seconds since 1970).
    pub since: u64,
    /// `Some(true)` for known systems, `Some(false)` for strangers.
    pub known: Option<bool>,
    /// Drops under this reason.
    pub reason: Option<Reason>,
    /// Drops of peers in these prefixes; empty for all peers.
    pub peers: Vec<IpNet>,
    /// Drops at this port.
    pub port: Option<u16>,
}

impl Query {
    fn wants(&self, key: DropKey, counts: &Counts) -> bool {
        counts.last >= self.since
            && self.known.is_none_or(|known| known == key.known())
            && self.reason.is_none_or(|wanted| wanted == reason(key))
            && self.port.is_none_or(|port| port == key.port())
            && (self.peers.is_empty() || self.wants_peer(key, counts))
    }

    /// Returns true if packets of this key can be of a selected peer. The packets of a stranger are recorded by prefix.
    fn wants_peer(&self, key: DropKey, counts: &Counts) -> bool {
        let peer = DeniedPeer::new(key.kind(), counts.peer).address();
        match prefix(key) {
            Some(prefix) => {
                self.peers.iter().any(|wanted| wanted.contains(&prefix) || prefix.contains(wanted))
            }
            None => peer.is_some_and(|peer| self.peers.iter().any(|wanted| wanted.contains(&peer))),
        }
    }

    /// Returns true if a part of the rest can contain selected drops.
    fn wants_rest(&self, part: DropKey) -> bool {
        self.known.is_none_or(|known| known == part.known())
            && self.reason.is_none_or(|wanted| wanted == reason(part))
            && self.peers.is_empty()
            && self.port.is_none()
    }
}

/// The packets of one peer or prefix at one port, under one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Short id, by which `explain --drop` asks about the line. It depends only on the peer, the port and the
    /// reason, so the line keeps it as the counts grow.
    pub id: String,
    /// Direction.
    pub direction: Direction,
    /// `drop`; `audit`: passed, and would be dropped in enforce; `pass`: sent although no row lists the
    /// connection.
    pub verdict: Disposition,
    /// Reason by name.
    pub reason: &'static str,
    /// True if the site file named the peer when the packets came.
    pub known: bool,
    /// The host, or the systems or the name of the peer entry, that has the address; `None` for a stranger.
    pub system: Option<String>,
    /// The peer's address; for a stranger the first one; a MAC address if the frame is not IP.
    pub peer: String,
    /// The prefix under which a stranger's packets are added up.
    pub prefix: Option<String>,
    /// Port and protocol in words. The port belongs to the service.
    pub service: String,
    /// True if the packets seem to be replies: the port belongs to the sender.
    pub from_service: bool,
    /// The service port; `None` for protocols without ports.
    pub port: Option<u16>,
    /// IANA protocol number; `None` if the frame is not IP.
    pub protocol: Option<u8>,
    /// The VLAN id, if the reason concerns VLANs.
    pub vlan: Option<u16>,
    /// The port at the other end of the first packet; `None` for protocols without ports.
    pub other_port: Option<u16>,
    /// The first row of this host that names the port, for other peers.
    pub row: Option<RowId>,
    /// Packets.
    pub packets: u64,
    /// Bytes, link header included.
    pub bytes: u64,
    /// Seconds since 1970 of the first packet.
    pub first: u64,
    /// Seconds since 1970 of the last packet.
    pub last: u64,
    /// The key from which the item was made.
    #[serde(skip)]
    pub key: DropKey,
}

/// Packets that are counted without a peer, because the table had no room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestItem {
    /// Direction.
    pub direction: Direction,
    /// The same values as [`Item::verdict`].
    pub verdict: Disposition,
    /// Reason by name.
    pub reason: &'static str,
    /// True if the packets are of known systems.
    pub known: bool,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The selected drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DropsReport {
    /// Seconds since 1970 of the reading.
    pub at: u64,
    /// The start of the selection in seconds since 1970. Packets are counted by the hour.
    pub since: u64,
    /// Known systems before strangers, systems with many packets first, and within each the largest counts
    /// first.
    pub drops: Vec<Item>,
    /// Packets without a peer.
    pub rest: Vec<RestItem>,
    /// The peers that were asked for; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<IpNet>,
}

impl DropsReport {
    /// Selects, names and sorts the drops of the hours. Without a policy there are no names.
    #[must_use]
    pub fn new(all: &Hour, query: &Query, policy: Option<&Policy>, at: u64) -> Self {
        let wanted = all.table.iter().filter(|(key, counts)| query.wants(**key, counts));
        let mut drops: Vec<Item> = wanted.map(|(key, counts)| item(*key, counts, policy)).collect();
        sort(&mut drops);
        Self { at, since: query.since, drops, rest: rest(&all.rest, query), peers: query.peers.clone() }
    }

    /// Returns the prefix that an item stands for, if the packets can also be of addresses that were not asked for.
    #[must_use]
    pub fn wider(&self, item: &Item) -> Option<IpNet> {
        let prefix = prefix(item.key)?;
        let whole = self.peers.is_empty() || self.peers.iter().any(|wanted| wanted.contains(&prefix));
        (!whole).then_some(prefix)
    }

    /// Returns the packets of known systems, or of strangers, without the packets that were sent because no
    /// rule forbids them.
    #[must_use]
    pub fn packets(&self, known: bool) -> u64 {
        let drops = self.drops.iter().filter(|item| item.known == known && item.verdict != Disposition::Pass);
        let rest = self.rest.iter().filter(|rest| rest.known == known && rest.verdict != Disposition::Pass);
        drops.map(|item| item.packets).sum::<u64>() + rest.map(|rest| rest.packets).sum::<u64>()
    }
}

/// Returns the system and the prefix or peer under which an item is grouped.
#[must_use]
pub fn owner(item: &Item) -> (&str, &str) {
    (item.system.as_deref().unwrap_or_default(), item.prefix.as_deref().unwrap_or(&item.peer))
}

fn sort(drops: &mut [Item]) {
    let mut totals = std::collections::BTreeMap::<(String, String), u64>::new();
    let own = |item: &Item| (owner(item).0.to_owned(), owner(item).1.to_owned());
    for item in drops.iter() {
        *totals.entry(own(item)).or_default() += item.packets;
    }
    drops.sort_by_cached_key(|item| {
        let owner = own(item);
        let total = totals.get(&owner).copied().unwrap_or_default();
        (!item.known, Reverse(total), owner, Reverse(item.packets), item.key)
    });
}

fn rest(table: &RestTable, query: &Query) -> Vec<RestItem> {
    let mut rest: Vec<RestItem> = table
        .iter()
        .filter(|(part, counts)| counts[0] > 0 && query.wants_rest(**part))
        .map(|(part, [packets, bytes])| RestItem {
            direction: part.direction(),
            verdict: verdict(*part),
            reason: reason(*part).name(),
            known: part.known(),
            packets: *packets,
            bytes: *bytes,
        })
        .collect();
    rest.sort_by_key(|rest| (!rest.known, Reverse(rest.packets)));
    rest
}

const fn verdict(key: DropKey) -> Disposition {
    match (key.audited(), key.reason_number() < pomguard_common::reason::FIRST_DROP) {
        (true, _) => Disposition::Audit,
        (false, true) => Disposition::Pass,
        (false, false) => Disposition::Drop,
    }
}

/// Returns the counts of a key with names.
#[must_use]
pub fn item(key: DropKey, counts: &Counts, policy: Option<&Policy>) -> Item {
    let peer = DeniedPeer::new(key.kind(), counts.peer);
    let ip = matches!(key.kind(), PeerKind::V4 | PeerKind::V6);
    let ports = ip && matches!(key.protocol(), 6 | 17);
    Item {
        id: id(key),
        direction: key.direction(),
        verdict: verdict(key),
        reason: reason(key).name(),
        known: key.known(),
        system: policy.zip(peer.address()).and_then(|(policy, address)| system(policy, address)),
        peer: peer.to_string(),
        prefix: prefix(key).map(|prefix| prefix.to_string()),
        service: service(key),
        from_service: key.is_sender_port(),
        port: ports.then(|| key.port()),
        protocol: ip.then(|| key.protocol()),
        vlan: (key.vlan() != 0).then(|| key.vlan()),
        other_port: ports.then_some(counts.other_port),
        row: policy.filter(|_| ports).and_then(|policy| row(policy, key)),
        packets: counts.packets,
        bytes: counts.bytes,
        first: counts.first,
        last: counts.last,
        key,
    }
}

/// Returns four hexadecimal digits of a hash of the key (FNV-1a).
fn id(key: DropKey) -> String {
    let words = [key.peer[0], key.peer[1], key.what];
    let bytes = words.iter().flat_map(|word| word.to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:04x}", (hash ^ hash >> 32) as u16 ^ (hash >> 16) as u16)
}

/// Returns the first packet of the connection that an item belongs to, as a question to the policy; `None` if a
/// packet of this kind opens no connection. The table does not hold this host's address: the first one of the
/// family stands for all.
#[must_use]
pub fn opened(item: &Item, policy: &Policy) -> Option<Opening> {
    let peer = item.peer.parse::<IpAddr>().ok()?;
    let protocol = item.protocol?;
    let echo = matches!((protocol, item.key.port()), (1, 0x0800) | (58, 0x8000));
    if matches!(protocol, 1 | 58) && !echo || !may_open(reason(item.key)) {
        return None;
    }
    let family = |address: &&IpAddr| address.is_ipv4() == peer.is_ipv4();
    let unlisted = policy.machine.held.iter().filter(|_| {
        matches!(reason(item.key), Reason::NotLocal | Reason::NotLocalKnown | Reason::SourceNotOurs)
    });
    let listed = policy.local.iter().chain(&policy.machine.taken);
    let local = *unlisted.chain(listed).find(family)?;
    let (port, other) = (item.port.unwrap_or_default(), item.other_port.unwrap_or_default());
    let opened = match (item.direction, item.from_service) {
        (Direction::Inbound, false) | (Direction::Outbound, true) => Direction::Inbound,
        (Direction::Outbound, false) | (Direction::Inbound, true) => Direction::Outbound,
    };
    let (source, destination) = match opened {
        Direction::Inbound => (peer, local),
        Direction::Outbound => (local, peer),
    };
    Some(Opening {
        direction: opened,
        source,
        source_port: other,
        destination,
        destination_port: port,
        protocol,
    })
}

/// Returns true if a packet with this reason can belong to a connection that a row would allow.
const fn may_open(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Untracked
            | Reason::NoPolicy
            | Reason::Protocol
            | Reason::ProtocolKnown
            | Reason::Port
            | Reason::PortKnown
            | Reason::Source
            | Reason::SourceKnown
            | Reason::ClientPort
            | Reason::NoFlow
            | Reason::NoFlowKnown
            | Reason::SpoofedSource
            | Reason::NotLocal
            | Reason::NotLocalKnown
            | Reason::IcmpType
            | Reason::SourceNotOurs
            | Reason::Destination
            | Reason::UnsolicitedReply
            | Reason::FlowTableFull
            | Reason::Isolated
            | Reason::RateLimited
    )
}

/// Returns the name of the longest prefix of the site that contains an address.
fn system(policy: &Policy, address: IpAddr) -> Option<String> {
    let known = policy.known.iter().filter(|known| known.prefix.contains(&address));
    known.max_by_key(|known| known.prefix.prefix_len()).map(|known| known.name.to_string())
}

/// Returns the first row that names the port, for any peer.
fn row(policy: &Policy, key: DropKey) -> Option<RowId> {
    let opened = match (key.direction(), key.is_sender_port()) {
        (Direction::Inbound, false) | (Direction::Outbound, true) => Direction::Inbound,
        (Direction::Outbound, false) | (Direction::Inbound, true) => Direction::Outbound,
    };
    let mut rows = policy.rows_in(opened);
    let names = |service: &crate::policy::Service| {
        service.protocol == key.protocol() && service.ports.contains(key.port())
    };
    rows.find(|row| row.services.iter().any(names)).map(|row| row.id.clone())
}
