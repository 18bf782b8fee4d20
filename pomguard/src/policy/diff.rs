//! Compares two policies: rows by their ids, with a packet for each change that demonstrates the change.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Direction, Mode, Policy, PortRange, Row, RowId, Service,
    area::Area,
    oracle::{Opening, judge},
    setting::{self, SettingChange},
};
use crate::input::Settings;

/// Most questions to the oracle. Each question walks a whole policy; changes beyond this number go without a
/// packet.
const QUESTIONS: usize = 4_000;
/// Prefixes and services of one change that are tried, from either end.
const TRIED: usize = 6;

/// All differences of two policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// Directions whose mode changes.
    pub modes: Vec<ModeChange>,
    /// Rows that are added, removed or changed, in the new policy's order; removed rows last.
    pub rows: Vec<RowChange>,
    /// Other changes than rows and settings: own addresses, the matrix.
    pub other: Vec<String>,
    /// Settings that change.
    #[serde(default)]
    pub settings: Vec<SettingChange>,
}

/// The change of a direction's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeChange {
    /// The direction.
    pub direction: Direction,
    /// The mode before.
    pub from: Mode,
    /// The mode after.
    pub to: Mode,
}

/// The kind of a row's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The row is new.
    Added,
    /// The row is removed.
    Removed,
    /// The row allows more.
    Widened,
    /// The row allows less.
    Narrowed,
    /// The row allows more in one part and less in another.
    Moved,
    /// The row allows the same, in another mode or rank.
    Marked,
}

impl Kind {
    /// Returns the word for this kind.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Widened => "widened",
            Self::Narrowed => "narrowed",
            Self::Moved => "moved",
            Self::Marked => "marked",
        }
    }
}

/// The change of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    /// Id of the row.
    pub id: RowId,
    /// Direction of the row.
    pub direction: Direction,
    /// Kind of the change.
    pub kind: Kind,
    /// The packets that the row allows now and did not allow before.
    pub more: Area,
    /// The packets that the row allowed before and does not allow now.
    pub less: Area,
    /// The mode before and after, if the mode changes.
    pub mode: Option<(Mode, Mode)>,
    /// The failsafe mark before and after, if the mark changes.
    pub failsafe: Option<(bool, bool)>,
    /// A packet that no row allowed before and that one allows now.
    pub newly_allowed: Option<Opening>,
    /// A packet that a row allowed before and that none allows now.
    pub newly_denied: Option<Opening>,
}

impl Diff {
    /// Returns true if nothing differs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.modes.is_empty() && self.rows.is_empty() && self.other.is_empty() && self.settings.is_empty()
    }

    /// Adds the settings that differ.
    #[must_use]
    pub fn with_settings(self, old: &Settings, new: &Settings) -> Self {
        Self { settings: setting::changes(old, new), ..self }
    }

    /// Compares two policies, with packets that demonstrate the changes.
    #[must_use]
    pub fn between(old: &Policy, new: &Policy) -> Self {
        Self::with(old, new, QUESTIONS)
    }

    /// Compares two policies without packets: as fast as the policies can be read.
    #[must_use]
    pub fn counted(old: &Policy, new: &Policy) -> Self {
        Self::with(old, new, 0)
    }

    fn with(old: &Policy, new: &Policy, questions: usize) -> Self {
        let modes = [
            ModeChange { direction: Direction::Inbound, from: old.inbound, to: new.inbound },
            ModeChange { direction: Direction::Outbound, from: old.outbound, to: new.outbound },
        ];
        let mut search = Search { old, new, left: questions };
        let rows = by_id(old);
        let mut changes: Vec<RowChange> = Vec::new();
        for row in &new.rows {
            changes.extend(search.change(rows.get(&(&row.id, row.direction)).copied(), Some(row)));
        }
        let kept = by_id(new);
        for row in old.rows.iter().filter(|row| !kept.contains_key(&(&row.id, row.direction))) {
            changes.extend(search.change(Some(row), None));
        }
        Self {
            modes: modes.into_iter().filter(|mode| mode.from != mode.to).collect(),
            rows: changes,
            other: other(old, new),
            settings: Vec::new(),
        }
    }
}

type ById<'a> = BTreeMap<(&'a RowId, Direction), &'a Row>;

fn by_id(policy: &Policy) -> ById<'_> {
    policy.rows.iter().map(|row| ((&row.id, row.direction), row)).collect()
}

fn other(old: &Policy, new: &Policy) -> Vec<String> {
    let mut found = Vec::new();
    if old.host != new.host {
        found.push(format!("this server is {} now, and was {}", new.host, old.host));
    }
    if old.matrix != new.matrix {
        found.push(format!("the matrix is {} now, and was {}", new.matrix.id, old.matrix.id));
    }
    let list =
        |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if old.local != new.local {
        found.push(format!("own addresses are {} now, and were {}", list(&new.local), list(&old.local)));
    }
    let prefixes = |of: &Policy| of.shared.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if old.shared != new.shared {
        let (old, new) = (prefixes(old), prefixes(new));
        found.push(format!("floating addresses and own prefixes are [{new}] now, and were [{old}]"));
    }
    if old.known != new.known {
        let lacking = |from: &Policy, of: &Policy| {
            from.known.iter().filter(|it| !of.known.iter().any(|other| other.prefix == it.prefix)).count()
        };
        let (more, fewer) = (lacking(new, old), lacking(old, new));
        if more + fewer > 0 {
            found.push(format!("known addresses: {more} prefixes come, {fewer} go"));
        }
    }
    found
}

/// A search for packets that demonstrate a change.
struct Search<'a> {
    old: &'a Policy,
    new: &'a Policy,
    /// Questions that may still be asked.
    left: usize,
}

impl Search<'_> {
    /// Returns the change of a row. Returns `None` if the row does not change.
    fn change(&mut self, old: Option<&Row>, new: Option<&Row>) -> Option<RowChange> {
        let any = new.or(old)?;
        let (more, less) = match (old, new) {
            (Some(old), Some(new)) => (Area::beyond(new, old), Area::beyond(old, new)),
            (None, Some(new)) => (Area::new(new), Area::default()),
            (Some(old), None) => (Area::default(), Area::new(old)),
            (None, None) => return None,
        };
        let both = old.zip(new);
        let mode = both.map(|(old, new)| (old.mode, new.mode)).filter(|(old, new)| old != new);
        let failsafe = both.map(|(old, new)| (old.failsafe, new.failsafe)).filter(|(old, new)| old != new);
        let kind = match (old, new, more.is_empty(), less.is_empty()) {
            (None, ..) => Kind::Added,
            (_, None, ..) => Kind::Removed,
            (_, _, false, true) => Kind::Widened,
            (_, _, true, false) => Kind::Narrowed,
            (_, _, false, false) => Kind::Moved,
            (_, _, true, true) if mode.is_some() || failsafe.is_some() => Kind::Marked,
            (_, _, true, true) => return None,
        };
        let newly_allowed = new.and_then(|row| self.witness(row, &more, self.old, self.new));
        let newly_denied = old.and_then(|row| self.witness(row, &less, self.new, self.old));
        Some(RowChange {
            id: any.id.clone(),
            direction: any.direction,
            kind,
            more,
            less,
            mode,
            failsafe,
            newly_allowed,
            newly_denied,
        })
    }

    /// Returns a packet of this part of a row that one policy denies and the other allows, according to the
    /// oracle.
    fn witness(&mut self, row: &Row, part: &Area, denies: &Policy, allows: &Policy) -> Option<Opening> {
        let peers: Vec<IpNet> = row.peers.iter().map(|peer| peer.prefix).collect();
        let clients = [row.client_ports];
        let boxes: [(&[IpNet], &[Service], &[PortRange]); 3] = [
            (&part.peers, &row.services, &clients),
            (&peers, &part.services, &clients),
            (&peers, &row.services, &part.client_ports),
        ];
        for (peers, services, clients) in boxes {
            for peer in ends(peers) {
                for service in ends(services) {
                    for client in clients {
                        if let Some(found) = self.corner(row, peer, &service, *client, denies, allows) {
                            return Some(found);
                        }
                    }
                }
            }
        }
        None
    }

    fn corner(
        &mut self,
        row: &Row,
        peer: IpNet,
        service: &Service,
        client: PortRange,
        denies: &Policy,
        allows: &Policy,
    ) -> Option<Opening> {
        for address in [some_host(peer), peer.broadcast()] {
            let local = allows.local.iter().find(|local| local.is_ipv4() == address.is_ipv4())?;
            for port in [service.ports.first, service.ports.last] {
                self.left = self.left.checked_sub(2)?;
                let with_ports = matches!(service.protocol, 6 | 17);
                let (source, destination) = match row.direction {
                    Direction::Inbound => (address, *local),
                    Direction::Outbound => (*local, address),
                };
                let opening = Opening {
                    direction: row.direction,
                    source,
                    source_port: if with_ports { client.last } else { 0 },
                    destination,
                    destination_port: if with_ports { port } else { 0 },
                    protocol: service.protocol,
                };
                let allowed = |policy| judge(policy, &opening).first.is_some();
                if allowed(allows) && !allowed(denies) {
                    return Some(opening);
                }
            }
        }
        None
    }
}

/// Returns an address of the prefix that a machine can have.
fn some_host(prefix: IpNet) -> IpAddr {
    prefix.hosts().next().unwrap_or_else(|| prefix.addr())
}

/// Returns the first few and the last few items.
fn ends<T: Clone>(all: &[T]) -> Vec<T> {
    let head = all.iter().take(TRIED);
    head.chain(all.iter().skip(TRIED.max(all.len().saturating_sub(TRIED)))).cloned().collect()
}

#[cfg(test)]
mod tests;
