//! Remarks about addresses that no peer can have, and rows that can never match.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Note;
use crate::input::{
    Draft,
    site::{Allow, Place, WrittenPlace},
};

/// Adds all remarks of this module.
pub(super) fn notes(draft: &Draft, notes: &mut Vec<Note>) {
    not_unicast(draft, notes);
    covering_hosts(draft, notes);
    for allow in &draft.site.allows {
        never_matching(allow, notes);
        nowhere(draft, allow, notes);
    }
}

/// Describes an address that no single machine can have. Returns `None` for an address that a machine can have.
fn strange(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_loopback() {
        Some("loopback")
    } else if address.is_multicast() {
        Some("multicast")
    } else if broadcast {
        Some("broadcast")
    } else {
        None
    }
}

/// Notes peers that are loopback, multicast or broadcast addresses.
fn not_unicast(draft: &Draft, notes: &mut Vec<Note>) {
    for peer in &draft.site.peers {
        for at in &peer.addresses {
            for (prefix, kind) in at.value.iter().filter_map(|it| Some((it, strange(it.addr())?))) {
                let message = format!(
                    "{}: {prefix} of peer {} is a {kind} address: no packet comes from there",
                    at.origin,
                    peer.label()
                );
                notes.push(Note { kind: "peer-not-unicast", message, rows: Vec::new() });
            }
        }
    }
}

/// Notes peers whose range covers hosts of the site: these hosts get the access of that peer.
fn covering_hosts(draft: &Draft, notes: &mut Vec<Note>) {
    for peer in &draft.site.peers {
        for at in &peer.addresses {
            for prefix in &at.value {
                let covered: Vec<&str> = draft
                    .site
                    .hosts
                    .iter()
                    .filter(|host| host.addresses.iter().any(|own| is_within(own.value, prefix)))
                    .map(|host| host.name.value.as_str())
                    .collect();
                if !covered.is_empty() {
                    let message = format!(
                        "{}: {prefix} of peer {} covers {}, a host of the site: rows for that peer let it in, too",
                        at.origin,
                        peer.label(),
                        covered.join(", ")
                    );
                    notes.push(Note { kind: "peer-covers-host", message, rows: Vec::new() });
                }
            }
        }
    }
}

/// Returns true if the prefix is wider than the host's own one and contains it.
fn is_within(own: IpNet, prefix: &IpNet) -> bool {
    prefix.contains(&own) && own != *prefix
}

/// Notes ends of a row that no packet can have.
fn never_matching(allow: &Allow, notes: &mut Vec<Note>) {
    let id = format!("site/{}", allow.name.value);
    for (end, places) in [("from", &allow.from), ("to", &allow.to)] {
        let strange: Vec<String> = places.iter().filter_map(never).collect();
        if !strange.is_empty() {
            let message = format!(
                "{}: {id} names {} in `{end}`: a row is about single machines, and never matches such a packet",
                allow.origin,
                strange.join(", ")
            );
            notes.push(Note { kind: "never-matches", message, rows: vec![id.clone()] });
        }
    }
}

fn never(place: &WrittenPlace) -> Option<String> {
    let Place::Addresses(prefixes) = &place.place else { return None };
    let kind = prefixes.iter().find_map(|prefix| strange(prefix.addr()))?;
    Some(format!("{} ({kind})", place.written))
}

/// Notes rows of the site with no host at either end.
fn nowhere(draft: &Draft, allow: &Allow, notes: &mut Vec<Note>) {
    let hosts = &draft.site.hosts;
    let is_host = |place: &WrittenPlace| match &place.place {
        Place::EveryHost => true,
        Place::Host(name) => hosts.iter().any(|host| host.name.value == *name),
        Place::System(system) => hosts.iter().any(|host| host.systems.iter().any(|at| at.value == *system)),
        Place::Addresses(prefixes) => hosts
            .iter()
            .flat_map(|host| &host.addresses)
            .any(|at| prefixes.iter().any(|prefix| prefix.contains(&at.value))),
        Place::Peer(_) => false,
    };
    if !allow.from.iter().chain(&allow.to).any(is_host) {
        let id = format!("site/{}", allow.name.value);
        let message = format!(
            "{}: {id} applies to no host: neither `from` nor `to` names a [[host]] of the site, its systems or its \
             addresses",
            allow.origin
        );
        notes.push(Note { kind: "allow-nowhere", message, rows: vec![id] });
    }
}
