//! Computes the set of packets that a row allows, and the difference between two rows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use serde::{Deserialize, Serialize};

use super::{PortRange, Row, Service};

/// Ranges of numbers, first and last included; sorted and disjoint.
type Ranges = Vec<(u128, u128)>;

/// The packets that one row allows and another does not, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// Addresses, with every service of the row.
    pub peers: Vec<IpNet>,
    /// Services, for every address of the row.
    pub services: Vec<Service>,
    /// Client ports, for every address and service of the row.
    pub client_ports: Vec<PortRange>,
}

impl Area {
    /// Returns everything that a row allows.
    #[must_use]
    pub fn new(row: &Row) -> Self {
        Self {
            peers: row.peers.iter().map(|peer| peer.prefix).collect(),
            services: row.services.clone(),
            client_ports: vec![row.client_ports],
        }
    }

    /// Returns true if the area is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.services.is_empty() && self.client_ports.is_empty()
    }

    /// Returns the parts of `row` that `other` lacks. A row without addresses or services allows nothing, so
    /// compared with such a row all of `row` is new.
    #[must_use]
    pub fn beyond(row: &Row, other: &Row) -> Self {
        if row.peers.is_empty() || row.services.is_empty() {
            return Self::default();
        }
        if other.peers.is_empty() || other.services.is_empty() {
            return Self::new(row);
        }
        Self {
            peers: addresses_beyond(row, other),
            services: services_beyond(row, other),
            client_ports: ports_of(&subtract(&[span(row.client_ports)], &[span(other.client_ports)])),
        }
    }
}

fn span(ports: PortRange) -> (u128, u128) {
    (ports.first.into(), ports.last.into())
}

fn ports_of(ranges: &[(u128, u128)]) -> Vec<PortRange> {
    ranges.iter().map(|&(first, last)| PortRange { first: first as u16, last: last as u16 }).collect()
}

fn addresses_beyond(row: &Row, other: &Row) -> Vec<IpNet> {
    let mut found = Vec::new();
    for v4 in [true, false] {
        for (first, last) in subtract(&addresses(row, v4), &addresses(other, v4)) {
            found.extend(prefixes(v4, first, last));
        }
    }
    found
}

/// Returns the addresses of one family as ranges.
fn addresses(row: &Row, v4: bool) -> Ranges {
    let nets = row.peers.iter().map(|peer| peer.prefix).filter(|net| net.addr().is_ipv4() == v4);
    union(nets.map(|net| (number(net.network()), number(net.broadcast()))).collect())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// Returns the fewest prefixes that cover exactly these addresses.
fn prefixes(v4: bool, first: u128, last: u128) -> IpSubnets {
    if v4 {
        IpSubnets::V4(Ipv4Subnets::new(Ipv4Addr::from(first as u32), Ipv4Addr::from(last as u32), 0))
    } else {
        IpSubnets::V6(Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0))
    }
}

fn services_beyond(row: &Row, other: &Row) -> Vec<Service> {
    let by_protocol = |row: &Row| {
        let mut found: BTreeMap<u8, Ranges> = BTreeMap::new();
        for service in &row.services {
            found.entry(service.protocol).or_default().push(span(service.ports));
        }
        found
    };
    let others = by_protocol(other);
    let mut found = Vec::new();
    for (protocol, ranges) in by_protocol(row) {
        let taken = others.get(&protocol).cloned().unwrap_or_default();
        let left = ports_of(&subtract(&union(ranges), &union(taken)));
        found.extend(left.into_iter().map(|ports| Service { protocol, ports }));
    }
    found
}

/// Sorts the ranges, and merges ranges that touch.
fn union(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut merged: Ranges = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Returns the numbers in the first set and not in the second. Both sets must come from [`union`].
fn subtract(from: &[(u128, u128)], taken: &[(u128, u128)]) -> Ranges {
    let mut left = Vec::new();
    let mut taken = taken.iter().peekable();
    for &(mut first, last) in from {
        let mut whole = true;
        while let Some(&&(start, end)) = taken.peek() {
            if end < first {
                taken.next();
                continue;
            }
            if start > last {
                break;
            }
            if start > first {
                left.push((first, start - 1));
            }
            if end >= last {
                whole = false;
                break;
            }
            first = end + 1;
            taken.next();
        }
        if whole {
            left.push((first, last));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_is_in_the_first_and_not_in_the_second(
            from in prop::collection::vec((0_u128..60, 0_u128..12), 0..8),
            taken in prop::collection::vec((0_u128..60, 0_u128..12), 0..8),
        ) {
            let ranges = |it: Vec<(u128, u128)>| union(it.into_iter().map(|(at, length)| (at, at + length)).collect());
            let set = |ranges: &Ranges| ranges.iter().flat_map(|&(a, b)| a..=b).collect::<BTreeSet<_>>();
            let (from, taken) = (ranges(from), ranges(taken));
            let expected: BTreeSet<u128> = set(&from).difference(&set(&taken)).copied().collect();
            prop_assert_eq!(set(&subtract(&from, &taken)), expected);
        }
    }

    #[test]
    fn the_ends_of_both_families_are_no_special_case() {
        let all = vec![(0, u128::MAX)];
        assert_eq!(subtract(&all, &all), vec![]);
        assert_eq!(union(vec![(0, u128::MAX), (5, 6)]), all);
        let half: Vec<IpNet> = prefixes(true, 0x0a00_0000, 0x0a00_00ff).collect();
        assert_eq!(half, ["10.0.0.0/24".parse().unwrap()]);
    }
}
