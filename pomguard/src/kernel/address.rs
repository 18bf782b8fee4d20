//! The addresses of this network namespace, and the interfaces that have them.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};

use super::{KernelError, interface::ask, machine};
use crate::policy::own::{Addresses, Present};

/// Reads every address with a netlink dump, so that no earlier change is missed, and the VLANs of the guarded
/// interfaces.
///
/// `guarded` are the names of the guarded interfaces. The addresses of an interface above a guarded one (a
/// bridge, a bond, a VLAN, a macvlan) count as guarded: their packets pass the programs, too.
///
/// # Errors
/// If the kernel does not answer.
pub fn addresses(guarded: &[String]) -> Result<Addresses, KernelError> {
    let machine = machine::devices()?;
    let names = guarded.iter().map(String::as_str).collect();
    let guarded = machine.with_those_above(&names);
    let vlans = machine.vlans_between(&names).into_iter().collect();
    let mut found = Addresses { vlans, ..Addresses::default() };
    for answer in ask(&RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        let Some(address) = usable(&message).filter(|address| !address.is_loopback()) else { continue };
        let index = message.header.index;
        let device = machine.devices.iter().find(|device| device.index == index);
        let name = device.map_or_else(|| format!("interface {index}").into(), |it| it.name.as_str().into());
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
