//! Assigns a class to each distinct prefix: the set of rows of all prefixes that cover the prefix.
//!
//! Prefixes are laminar: any two are nested or disjoint. After sorting, one walk with a stack sees for each
//! prefix the prefixes around it. A narrow prefix inherits the rows of the wider prefixes and so never hides
//! them.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use pomguard_common::image::Class;

use super::{
    error::CompileError,
    prefix::{Family, Prefix},
};
use crate::policy::Policy;

/// Limit of the rows of all classes together: keeps a policy that overlaps everywhere from taking minutes.
const MEMBERS: usize = 1 << 22;

/// Number of the class without rows.
pub(super) const EMPTY: u32 = 0;

/// A prefix, with the class and the marks of the addresses whose longest prefix it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) prefix: Prefix,
    /// Number of the class.
    pub(super) class: u32,
    /// [`Class::KNOWN`], [`Class::OWN`], [`Class::HELD`] and [`Class::SHARED`].
    pub(super) marks: u32,
}

/// Distinct sets of rows. The sets are sorted; the first one is empty.
#[derive(Debug)]
pub(super) struct Classes {
    pub(super) sets: Vec<Vec<u32>>,
    numbers: HashMap<Vec<u32>, u32>,
    /// Maps a class and the prefix's own class to the class of both.
    unions: HashMap<(u32, u32), u32>,
    members: usize,
}

impl Classes {
    pub(super) fn new() -> Self {
        Self {
            sets: vec![Vec::new()],
            numbers: HashMap::from([(Vec::new(), EMPTY)]),
            unions: HashMap::new(),
            members: 0,
        }
    }

    fn number(&mut self, set: &[u32]) -> Result<u32, CompileError> {
        if let Some(&number) = self.numbers.get(set) {
            return Ok(number);
        }
        self.members += set.len();
        if self.members > MEMBERS {
            return Err(CompileError::Overlap { what: "rows of nested prefixes", limit: MEMBERS });
        }
        let number = self.sets.len() as u32;
        self.sets.push(set.to_vec());
        self.numbers.insert(set.to_vec(), number);
        Ok(number)
    }

    fn union(&mut self, one: u32, other: u32) -> Result<u32, CompileError> {
        if one == other || other == EMPTY {
            return Ok(one);
        }
        if one == EMPTY {
            return Ok(other);
        }
        if let Some(&number) = self.unions.get(&(one, other)) {
            return Ok(number);
        }
        let mut set = [self.sets[one as usize].as_slice(), &self.sets[other as usize]].concat();
        set.sort_unstable();
        set.dedup();
        let number = self.number(&set)?;
        self.unions.insert((one, other), number);
        Ok(number)
    }

    /// Returns the entries of one family, sorted. A prefix with the same meaning as the next wider prefix is
    /// left out: the longest prefix of an address decides, and both give the same answer.
    pub(super) fn entries(&mut self, policy: &Policy, family: Family) -> Result<Vec<Entry>, CompileError> {
        let rows = policy.rows.iter().zip(0_u32..);
        let of_rows = rows.flat_map(|(row, number)| row.peers.iter().map(move |peer| (peer.prefix, number)));
        let known = policy.known.iter().map(|known| (known.prefix, Class::KNOWN));
        let mut named: Vec<(Prefix, u32)> = of_rows
            .chain(known)
            .chain(own(policy))
            .filter(|(net, _)| family.has(net.addr()))
            .map(|(net, number)| (Prefix::of(net), number))
            .collect();
        named.sort_unstable();
        named.dedup();
        let mut entries = Vec::new();
        let mut around: Vec<Entry> = Vec::new();
        let mut own = Vec::new();
        for group in named.chunk_by(|one, next| one.0 == next.0) {
            let prefix = group[0].0;
            while around.last().is_some_and(|wider| !wider.prefix.covers(prefix)) {
                around.pop();
            }
            let (outer, wider) = around.last().map_or((EMPTY, 0), |wider| (wider.class, wider.marks));
            own.clear();
            own.extend(group.iter().map(|&(_, row)| row).filter(|&row| row < MARKS));
            let marks =
                group.iter().map(|&(_, row)| row).filter(|&row| row >= MARKS).fold(0, |all, it| all | it);
            let number = self.number(&own)?;
            let class = self.union(outer, number)?;
            let entry = Entry { prefix, class, marks: marks | inherited(wider, marks) };
            if (class, entry.marks) != (outer, wider) {
                entries.push(entry);
                around.push(entry);
            }
        }
        Ok(entries)
    }
}

/// Numbers from here on are marks; smaller numbers are rows.
const MARKS: u32 = Class::OWN;

/// Returns the addresses of this host with their marks.
fn own(policy: &Policy) -> impl Iterator<Item = (IpNet, u32)> {
    let single = |marks: u32| move |&address: &IpAddr| (IpNet::from(address), marks);
    let alone = policy.local.iter().chain(&policy.machine.taken).map(single(Class::OWN | Class::HELD));
    let shared = policy.shared.iter().map(|&prefix| (prefix, Class::OWN | Class::SHARED));
    let held = policy.machine.held.iter().map(single(Class::HELD | Class::SHARED));
    alone.chain(shared).chain(held)
}

/// Returns the marks that a prefix inherits from the next wider prefix. A prefix that is given to another
/// machine is not this host's.
const fn inherited(wider: u32, marks: u32) -> u32 {
    let given_away = marks & Class::KNOWN != 0 && marks & Class::OWN == 0;
    if given_away { wider & Class::KNOWN } else { wider & (Class::KNOWN | Class::OWN | Class::SHARED) }
}
