//! The addresses of this network namespace, and the interfaces that have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};

use super::{KernelError, interface::ask};
use crate::policy::own::{Addresses, Present};

/// The facts about an interface that decide which interface guards an address.
struct Link {
    name: Arc<str>,
    /// Index of the bridge or bond that receives the packets of this interface.
    controller: Option<u32>,
    /// Index of the interface below: for a VLAN, macvlan or ipvlan.
    below: Option<u32>,
}

/// Reads every address with a netlink dump, so that no earlier change is missed.
///
/// `guarded` are the names of the guarded interfaces. The addresses of an interface above a guarded one (a
/// bridge, a bond, a VLAN, a macvlan) count as guarded: their packets pass the programs, too.
///
/// # Errors
/// If the kernel does not answer.
pub fn addresses(guarded: &[String]) -> Result<Addresses, KernelError> {
    let links = links()?;
    let guarded = with_those_above(&links, guarded);
    let mut found = Addresses::default();
    for answer in ask(&RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        let Some(address) = usable(&message).filter(|address| !address.is_loopback()) else { continue };
        let index = message.header.index;
        let name =
            links.get(&index).map_or_else(|| format!("interface {index}").into(), |it| it.name.clone());
        let of = if guarded.contains(&index) { &mut found.guarded } else { &mut found.others };
        of.push(Present { address, interface: name });
    }
    found.guarded.sort();
    found.others.sort_by(|one, next| (&one.interface, one.address).cmp(&(&next.interface, next.address)));
    Ok(found)
}

/// A global address that nobody else was found to have; `None` for others.
fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let unsettled = AddressFlags::Tentative | AddressFlags::Dadfailed;
    let header = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    let flagged = message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Flags(flags) => flags.intersects(unsettled),
        _ => false,
    });
    if flagged || message.header.flags.intersects(header) || message.header.scope != AddressScope::Universe {
        return None;
    }
    let find = |of: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(of);
    // On a point-to-point link, `Address` is the address of the other end.
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn links() -> Result<BTreeMap<u32, Link>, KernelError> {
    let answers = ask(&RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some((message.header.index, Link::of(&message))),
        _ => None,
    });
    Ok(links.collect())
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let mut link = Self { name: "".into(), controller: None, below: None };
        let (mut lower, mut stacked) = (None, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name.as_str().into(),
                LinkAttribute::Controller(index @ 1..) => link.controller = Some(*index),
                LinkAttribute::Link(index) => lower = Some(*index),
                // The lower interface of a veth is the other end, possibly in another namespace.
                LinkAttribute::LinkInfo(info) => {
                    stacked = info.iter().any(|it| {
                        matches!(
                            it,
                            LinkInfo::Kind(
                                InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan
                            )
                        )
                    });
                }
                _ => {}
            }
        }
        link.below = lower.filter(|_| stacked);
        link
    }
}

/// Returns the indexes of these interfaces and of all interfaces above them.
fn with_those_above(links: &BTreeMap<u32, Link>, names: &[String]) -> BTreeSet<u32> {
    let named = links.iter().filter(|(_, link)| names.iter().any(|name| **name == *link.name));
    let mut found: BTreeSet<u32> = named.map(|(index, _)| *index).collect();
    loop {
        let before = found.len();
        for (index, link) in links {
            if link.below.is_some_and(|below| found.contains(&below)) {
                found.insert(*index);
            }
            if found.contains(index) {
                found.extend(link.controller);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, controller: Option<u32>, below: Option<u32>) -> Link {
        Link { name: name.into(), controller, below }
    }

    #[test]
    fn interfaces_above_guarded_ones_count_as_guarded() {
        let links = BTreeMap::from([
            (2, link("eth0", Some(4), None)),
            (3, link("eth1", None, None)),
            (4, link("bond0", Some(6), None)),
            (5, link("bond0.30", None, Some(4))),
            (6, link("br0", None, None)),
            (7, link("eth1.30", None, Some(3))),
        ]);
        let above = |name: &str| with_those_above(&links, &[name.to_owned()]).into_iter().collect::<Vec<_>>();
        assert_eq!(above("eth0"), [2, 4, 5, 6]);
        assert_eq!(above("eth1"), [3, 7]);
        assert_eq!(above("br0"), [6], "what is below a guarded interface is not guarded");
        assert!(above("eth9").is_empty());
    }
}
