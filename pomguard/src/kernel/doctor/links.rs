//! Interfaces, their drivers, and their relations (bond, bridge, VLAN).

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
};

use super::{
    ethtool::{self, CardQueues, Features},
    xdp_features,
};
use crate::kernel::{driver, interface, raw};

/// Parents of the clsact filters (TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS, linux/pkt_sched.h).
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub index: u32,
    /// True if the frames begin with an Ethernet header.
    pub ethernet: bool,
    /// True if the interface is up.
    pub up: bool,
    /// Sort of a software interface, as `ip -d link` shows it: `vlan`, `bond`, `bridge`, `veth`.
    pub kind: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Name of the driver.
    pub driver: Option<String>,
    /// True if the driver reports support for XDP programs; `None` if the kernel cannot tell (before Linux
    /// 6.3).
    pub native: Option<bool>,
    /// Offloads; `None` if the driver does not tell.
    pub features: Option<Features>,
    /// Queues and rings; `None` if the driver does not tell.
    pub queues: Option<CardQueues>,
    /// The bond, bridge or team of which the interface is a member.
    pub controller: Option<String>,
    /// The interface below, for example of a VLAN.
    pub below: Option<String>,
    /// Members, or interfaces above.
    pub above: Vec<String>,
    /// True if the other end is in another network namespace: the interface of a container.
    pub container: bool,
    /// Foreign programs and filters; `None` if they could not be read.
    pub foreign: Option<ForeignPrograms>,
}

/// Programs and filters that are not pomguard's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignPrograms {
    /// Id of the XDP program.
    pub xdp: Option<u32>,
    /// Ids of TCX programs on egress.
    pub tcx: Vec<u32>,
    /// Number of filters on the clsact hooks: ingress, egress.
    pub clsact: (usize, usize),
}

/// Reads all interfaces except the loopback. `ours` are the ids of pomguard's own programs, `None` if they are
/// not known.
pub(super) fn read(ours: Option<&BTreeSet<u32>>) -> Vec<Link> {
    let Ok(answers) = interface::ask(&RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)
    else {
        return Vec::new();
    };
    let messages: Vec<LinkMessage> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .collect();
    let names: BTreeMap<u32, String> =
        messages.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect();
    let mut links: Vec<Link> = messages
        .iter()
        .filter(|link| link.header.link_layer_type != LinkLayerType::Loopback)
        .filter_map(|link| one(link, &names, ours))
        .collect();
    relate(&mut links);
    links.sort_by(|one, other| one.name.cmp(&other.name));
    links
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn one(message: &LinkMessage, names: &BTreeMap<u32, String>, ours: Option<&BTreeSet<u32>>) -> Option<Link> {
    let name = name_of(message)?;
    let index = message.header.index;
    let mut link = Link {
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        up: message.header.flags.contains(netlink_packet_route::link::LinkFlags::Up),
        driver: driver::name(&name),
        native: xdp_features::native(index),
        features: ethtool::features(&name),
        queues: ethtool::queues(&name),
        foreign: ours.and_then(|ours| foreign(index, ours)),
        name,
        index,
        ..Link::default()
    };
    let mut other_namespace = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(above @ 1..) => link.controller = names.get(above).cloned(),
            LinkAttribute::Link(below) if *below != index => link.below = names.get(below).cloned(),
            LinkAttribute::LinkNetNsId(_) => other_namespace = true,
            LinkAttribute::LinkInfo(facts) => {
                link.kind = facts.iter().find_map(|fact| match fact {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let is_veth = link.kind.as_deref() == Some("veth");
    link.container = other_namespace && is_veth;
    if other_namespace || is_veth {
        // The index belongs to the other namespace, or to the other end of the cable.
        link.below = None;
    }
    Some(link)
}

/// Sets in each interface the names of the members or interfaces above.
fn relate(links: &mut [Link]) {
    let mut above: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for link in links.iter() {
        if let Some(controller) = &link.controller {
            above.entry(controller.clone()).or_default().push(link.name.clone());
        }
        if let Some(below) = &link.below {
            above.entry(below.clone()).or_default().push(link.name.clone());
        }
    }
    for link in links {
        link.above = above.remove(&link.name).unwrap_or_default();
    }
}

/// Returns the foreign programs and filters on the hooks of an interface.
fn foreign(index: u32, ours: &BTreeSet<u32>) -> Option<ForeignPrograms> {
    let is_foreign = |id: &u32| !ours.contains(id);
    let count = |parent| {
        let filters = interface::filters(index, parent).ok()?;
        // An entry of handle 0 represents all filters of a priority.
        let of_others = |filter: &&interface::ClsactFilter| {
            filter.handle != 0 && filter.program.is_none_or(|program| is_foreign(&program))
        };
        Some(filters.iter().filter(of_others).count())
    };
    Some(ForeignPrograms {
        xdp: interface::xdp(index).ok()?.map(|state| state.program).filter(is_foreign),
        tcx: raw::tcx_egress(index).ok()?.into_iter().filter(is_foreign).collect(),
        clsact: (count(INGRESS)?, count(EGRESS)?),
    })
}
