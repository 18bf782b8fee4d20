//! The drops with names, chosen and sorted: what `pomguard drops` shows.

use std::{cmp::Reverse, net::IpAddr};

use ipnet::IpNet;
use pomguard_common::{
    Direction,
    drops::{Key, PeerKind},
    reason::Reason,
};
use serde::Serialize;

use super::{
    Counts, Peer,
    ledger::{Hour, RestTable},
    prefix, reason, service,
};
use crate::{
    observe::snapshot::Outcome,
    policy::{Policy, RowId},
};

/// Which drops are asked for. `None` asks for all.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Those of which a packet came at this time or later (seconds since 1970).
    pub since: u64,
    /// Known systems, or strangers.
    pub known: Option<bool>,
    /// Under this reason.
    pub reason: Option<Reason>,
    /// Of peers in this prefix.
    pub peer: Option<IpNet>,
    /// At this port.
    pub port: Option<u16>,
}

impl Query {
    fn wants(&self, key: Key, counts: &Counts) -> bool {
        let peer = || Peer::new(key.kind(), counts.peer).address();
        counts.last >= self.since
            && self.known.is_none_or(|known| known == key.known())
            && self.reason.is_none_or(|wanted| wanted == reason(key))
            && self.port.is_none_or(|port| port == key.port())
            && self.peer.is_none_or(|wanted| {
                peer().is_some_and(|peer| {
                    // Of a stranger only the prefix is known, and the address that came first.
                    wanted.contains(&peer) || prefix(key).is_some_and(|prefix| prefix.contains(&wanted))
                })
            })
    }

    /// Returns true if a part of the rest can have what is asked for.
    fn wants_rest(&self, part: Key) -> bool {
        self.known.is_none_or(|known| known == part.known())
            && self.reason.is_none_or(|wanted| wanted == reason(part))
            && self.peer.is_none()
            && self.port.is_none()
    }
}

/// The packets of one peer or prefix at one port, under one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Direction.
    pub direction: Direction,
    /// `drop`; `audit`, passed and would be dropped in enforce; `pass`, left although no row lists it.
    pub verdict: Outcome,
    /// Reason by name.
    pub reason: &'static str,
    /// True if the site file named the peer when the packets came.
    pub known: bool,
    /// The host, or the systems or name of the peer entry, of whom the address is; `None` for a stranger.
    pub system: Option<String>,
    /// The peer's address; of a stranger the one that came first; a MAC address if the frame is not IP.
    pub peer: String,
    /// The prefix that a stranger's packets are added up by.
    pub prefix: Option<String>,
    /// Port and protocol in words. The port is the service's.
    pub service: String,
    /// True if the packets seem to answer: the port is that of whoever sent them.
    pub from_service: bool,
    /// The service port; `None` for protocols without ports.
    pub port: Option<u16>,
    /// IANA protocol number; `None` if the frame is not IP.
    pub protocol: Option<u8>,
    /// The VLAN id, if the reason is one about VLANs.
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
    /// What it was made of.
    #[serde(skip)]
    pub key: Key,
}

/// Packets that are counted without a peer: the table had no room for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestItem {
    /// Direction.
    pub direction: Direction,
    /// As [`Item::verdict`].
    pub verdict: Outcome,
    /// Reason by name.
    pub reason: &'static str,
    /// True if they are of known systems.
    pub known: bool,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Seconds since 1970 of the reading.
    pub at: u64,
    /// Seconds since 1970 from which on packets are counted, by the hour: what was asked for.
    pub since: u64,
    /// Known systems before strangers, systems with many packets first, and of each the frequent first.
    pub drops: Vec<Item>,
    /// Packets without a peer.
    pub rest: Vec<RestItem>,
}

impl Report {
    /// Chooses, names and sorts what the hours have. Without a policy there are no names.
    #[must_use]
    pub fn new(all: &Hour, query: &Query, policy: Option<&Policy>, at: u64) -> Self {
        let wanted = all.table.iter().filter(|(key, counts)| query.wants(**key, counts));
        let mut drops: Vec<Item> = wanted.map(|(key, counts)| item(*key, counts, policy)).collect();
        sort(&mut drops);
        Self { at, since: query.since, drops, rest: rest(&all.rest, query) }
    }

    /// The packets of known systems, or of strangers, without those that left because nothing forbids it.
    #[must_use]
    pub fn packets(&self, known: bool) -> u64 {
        let drops = self.drops.iter().filter(|item| item.known == known && item.verdict != Outcome::Pass);
        let rest = self.rest.iter().filter(|rest| rest.known == known && rest.verdict != Outcome::Pass);
        drops.map(|item| item.packets).sum::<u64>() + rest.map(|rest| rest.packets).sum::<u64>()
    }
}

/// Whom an item is grouped under.
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

const fn verdict(key: Key) -> Outcome {
    match (key.audited(), key.reason_number() < pomguard_common::reason::FIRST_DROP) {
        (true, _) => Outcome::Audit,
        (false, true) => Outcome::Pass,
        (false, false) => Outcome::Drop,
    }
}

/// Names the counts of a key.
#[must_use]
pub fn item(key: Key, counts: &Counts, policy: Option<&Policy>) -> Item {
    let peer = Peer::new(key.kind(), counts.peer);
    let ip = matches!(key.kind(), PeerKind::V4 | PeerKind::V6);
    let ports = ip && matches!(key.protocol(), 6 | 17);
    Item {
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

/// The name of the longest prefix of the site that holds an address.
fn system(policy: &Policy, address: IpAddr) -> Option<String> {
    let known = policy.known.iter().filter(|known| known.prefix.contains(&address));
    known.max_by_key(|known| known.prefix.prefix_len()).map(|known| known.name.to_string())
}

/// The first row that names the port, for whomever.
fn row(policy: &Policy, key: Key) -> Option<RowId> {
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
