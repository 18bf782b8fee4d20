//! Reads the network devices of this network namespace, and the listening sockets.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{KernelError, driver, interface, sockets};
use crate::{
    input::Settings,
    policy::{
        Policy,
        conflict::Note,
        machine::{self, Device, Machine},
    },
};

/// Number of peers whose route is looked up; a large site has a hundred thousand.
const PATHS: usize = 32;

/// Compares this machine with the settings and the policy and returns remarks.
///
/// # Errors
/// If the kernel does not answer.
pub fn compare(settings: &Settings, policy: &Policy) -> Result<Vec<Note>, KernelError> {
    Ok(machine::compare(settings, policy, &read(settings, policy)?))
}

/// Reads only the devices and their relations.
///
/// # Errors
/// If the kernel does not answer.
pub fn devices() -> Result<Machine, KernelError> {
    let answers = interface::ask(&RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    let devices = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(device(&link)),
        _ => None,
    });
    Ok(Machine { devices: devices.collect(), ..Machine::default() })
}

/// Reads devices, addresses, default routes, the VLAN offload of guarded cards, listeners, and the routes to
/// some peers.
fn read(settings: &Settings, policy: &Policy) -> Result<Machine, KernelError> {
    let mut machine = devices()?;
    let addresses = interface::addresses_by_name()?;
    let defaults = default_routes()?;
    for device in &mut machine.devices {
        let own = addresses.iter().filter(|(name, _)| *name == device.name);
        device.addresses = own.map(|(_, address)| *address).collect();
        device.default_route = defaults.contains(&device.index);
        let guarded = settings.interfaces.iter().any(|at| at.value == device.name);
        device.strips_vlan_tags = guarded && driver::strips_vlan_tags(&device.name);
    }
    machine.listeners = sockets::listeners()?;
    for known in policy.known.iter().take(PATHS) {
        let peer = known.prefix.addr();
        machine.paths.extend(path(peer)?.map(|index| (peer, index)));
    }
    Ok(machine)
}

/// Returns the index of the interface through which packets to an address leave; `None` without a route.
fn path(to: IpAddr) -> Result<Option<u32>, KernelError> {
    let mut message = RouteMessage::default();
    let (family, address, length) = match to {
        IpAddr::V4(v4) => (AddressFamily::Inet, RouteAddress::Inet(v4), 32),
        IpAddr::V6(v6) => (AddressFamily::Inet6, RouteAddress::Inet6(v6), 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(address));
    let answers = match interface::ask(&RouteNetlinkMessage::GetRoute(message), 0) {
        // The error numbers for a missing route or a route that refuses.
        Err(KernelError::System { source, .. })
            if matches!(
                source.raw_os_error(),
                Some(
                    libc::ENETUNREACH
                        | libc::EHOSTUNREACH
                        | libc::EACCES
                        | libc::EINVAL
                        | libc::EAFNOSUPPORT
                        // A kernel with `ipv6.disable=1`.
                        | libc::EOPNOTSUPP
                )
            ) =>
        {
            return Ok(None);
        }
        answers => answers?,
    };
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => {
            route.attributes.iter().find_map(|it| match it {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })
        }
        _ => None,
    }))
}

fn device(link: &LinkMessage) -> Device {
    let mut device = Device {
        index: link.header.index,
        ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        up: link.header.flags.contains(LinkFlags::Up),
        ..Device::default()
    };
    let mut lower = None;
    let mut elsewhere = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Controller(index @ 1..) => device.controller = Some(*index),
            LinkAttribute::Link(index @ 1..) => lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(info) => describe(info, &mut device),
            _ => {}
        }
    }
    let stands_on_a_card =
        matches!(device.kind.as_str(), "vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "macsec");
    // The `link` of a veth is the other end, and that of a tunnel is the device of the route.
    device.below = lower.filter(|_| stands_on_a_card && !elsewhere);
    device.leaves_namespace = elsewhere && device.kind == "veth";
    device
}

fn describe(info: &[LinkInfo], device: &mut Device) {
    for fact in info {
        match fact {
            LinkInfo::Kind(kind) => device.kind = kind.to_string(),
            LinkInfo::Data(InfoData::Vlan(vlan)) => {
                device.vlan = vlan.iter().find_map(|it| match it {
                    InfoVlan::Id(id) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

/// Returns the indexes of the interfaces that a default route of any table uses.
fn default_routes() -> Result<Vec<u32>, KernelError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        for answer in interface::ask(&RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
                continue;
            }
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => found.push(*index),
                    RouteAttribute::MultiPath(hops) => {
                        found.extend(hops.iter().map(|hop| hop.interface_index));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}
