//! The network devices of the machine as the kernel lists them, and their stacking. Plain data:
//! `kernel::machine` reads it.

use std::{collections::BTreeSet, net::IpAddr};

mod compare;

pub use compare::{compare, needs_attention};

/// One network device of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own that the kernel lists")]
pub struct Device {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Kind as `ip -d link` shows it (`bridge`, `vlan`, `veth`); empty for a physical network card.
    pub kind: String,
    /// True if the frames of the device have an Ethernet header.
    pub ethernet: bool,
    /// True if the device is up.
    pub up: bool,
    /// Index of the bridge, bond or other device that takes the packets that arrive on this device.
    pub controller: Option<u32>,
    /// Index of the device below this one: the card below a VLAN or macvlan device.
    pub below: Option<u32>,
    /// True if the other end is in another network namespace: the interface of a container.
    pub leaves_namespace: bool,
    /// VLAN id of a VLAN device.
    pub vlan: Option<u16>,
    /// Addresses of the device.
    pub addresses: Vec<IpAddr>,
    /// True if a default route leaves by the device.
    pub default_route: bool,
    /// True if the card removes VLAN tags before a program sees a frame.
    pub strips_vlan_tags: bool,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// IANA protocol number: TCP or UDP.
    pub protocol: u8,
    /// Local address; unspecified if the socket accepts every address.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
}

/// One reading of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Every network device.
    pub devices: Vec<Device>,
    /// Every listening socket.
    pub listeners: Vec<Listener>,
    /// Peer addresses, each with the index of the device by which packets to that peer leave.
    pub paths: Vec<(IpAddr, u32)>,
}

impl Machine {
    /// Returns the device of this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// Returns the devices directly above this one: its bridge or bond, its VLAN and macvlan devices.
    pub fn above<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Device> {
        self.devices
            .iter()
            .filter(|other| device.controller == Some(other.index) || other.below == Some(device.index))
    }

    /// Returns the devices directly below this one: the ports of a bridge or bond, the card of a VLAN device.
    pub fn below<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Device> {
        self.devices
            .iter()
            .filter(|other| other.controller == Some(device.index) || device.below == Some(other.index))
    }

    /// Returns the indices of the devices of these names, and of all devices above them.
    #[must_use]
    pub fn with_those_above(&self, names: &BTreeSet<&str>) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&Device> =
            self.devices.iter().filter(|device| names.contains(device.name.as_str())).collect();
        while let Some(device) = next.pop() {
            if found.insert(device.index) {
                next.extend(self.above(device));
            }
        }
        found
    }

    /// Returns the VLAN ids of the frames that reach one of these devices through another one: a VLAN device on a
    /// card, or a bridge over a VLAN device on a card. The guard of the card has to let these VLANs through to
    /// the guard above.
    #[must_use]
    pub fn vlans_between(&self, names: &BTreeSet<&str>) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        for device in self.devices.iter().filter(|device| names.contains(device.name.as_str())) {
            self.collect_vlans(device, names, &BTreeSet::new(), &mut Vec::new(), &mut found);
        }
        found
    }

    /// Adds the VLAN ids between `device` and each guarded device below it to `found`. `above` are the ids from
    /// the guarded device at the top down to this one. A reading may show a circle, so `path` ends the way.
    fn collect_vlans(
        &self,
        device: &Device,
        names: &BTreeSet<&str>,
        above: &BTreeSet<u16>,
        path: &mut Vec<u32>,
        found: &mut BTreeSet<u16>,
    ) {
        if path.contains(&device.index) {
            return;
        }
        path.push(device.index);
        let ids = above.iter().copied().chain(device.vlan).collect();
        for lower in self.below(device) {
            if names.contains(lower.name.as_str()) {
                found.extend(&ids);
            }
            self.collect_vlans(lower, names, &ids, path, found);
        }
        path.pop();
    }

    /// Sorts the names so that every device comes before the devices above it: the kernel accepts no program on
    /// a device while a device above has one. Names of missing devices stay at the end, in their order.
    #[must_use]
    pub fn lower_first<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut order: Vec<(usize, &str)> = names.into_iter().map(|name| (self.height(name), name)).collect();
        // Stable sort: names of one height keep the order of the file.
        order.sort_by_key(|(height, _)| *height);
        order.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns the number of devices in the longest chain below this one; `usize::MAX` for the name of a
    /// missing device.
    fn height(&self, name: &str) -> usize {
        self.device(name).map_or(usize::MAX, |device| self.height_of(device, &mut BTreeSet::new()))
    }

    fn height_of(&self, device: &Device, seen: &mut BTreeSet<u32>) -> usize {
        // The kernel allows no cycles, but a reading that is not a consistent snapshot may show one.
        if !seen.insert(device.index) {
            return 0;
        }
        let height = self.below(device).map(|lower| 1 + self.height_of(lower, seen)).max().unwrap_or(0);
        seen.remove(&device.index);
        height
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, name: &str) -> Device {
        Device { index, name: name.to_owned(), ..Device::default() }
    }

    /// eth0 with VLAN 100, over which QinQ 200 and a bridge stand; a bond with VLAN 7, over which a macvlan stands.
    fn stacked() -> Machine {
        let vlan = |id, below, of: Device| Device { vlan: Some(id), below: Some(below), ..of };
        Machine {
            devices: vec![
                device(2, "eth0"),
                Device { controller: Some(5), ..vlan(100, 2, device(3, "eth0.100")) },
                vlan(200, 3, device(4, "eth0.100.200")),
                device(5, "br0"),
                Device { controller: Some(7), ..device(6, "eth1") },
                device(7, "bond0"),
                vlan(7, 7, device(8, "bond0.7")),
                Device { below: Some(8), ..device(9, "mac0") },
                vlan(9, 10, device(11, "eth3.9")),
            ],
            ..Machine::default()
        }
    }

    #[test]
    fn vlans_of_guards_above_other_guards() {
        let machine = stacked();
        let between = |names: &[&str]| -> Vec<u16> {
            machine.vlans_between(&names.iter().copied().collect()).into_iter().collect()
        };
        assert_eq!(between(&["eth0", "eth0.100"]), [100]);
        assert_eq!(between(&["eth0", "eth0.100.200"]), [100, 200], "both tags pass the card");
        assert_eq!(between(&["eth0.100", "eth0.100.200"]), [200], "the card is not guarded");
        assert_eq!(between(&["eth0", "br0"]), [100], "the bridge takes the frames of the VLAN device");
        assert_eq!(between(&["bond0", "mac0"]), [7]);
        assert_eq!(between(&["eth1", "bond0.7"]), [7], "the members of a bond carry the tags, too");
        for alone in ["eth0", "eth0.100", "eth0.100.200", "br0", "bond0", "mac0", "eth3.9", "absent"] {
            assert_eq!(between(&[alone]), [0; 0], "{alone}");
        }
    }

    #[test]
    fn devices_above_others() {
        let machine = stacked();
        let above =
            |name: &str| machine.with_those_above(&BTreeSet::from([name])).into_iter().collect::<Vec<_>>();
        assert_eq!(above("eth0"), [2, 3, 4, 5]);
        assert_eq!(above("eth1"), [6, 7, 8, 9]);
        assert_eq!(above("br0"), [5], "what is below a guarded interface is not guarded");
        assert!(above("eth9").is_empty());
    }

    #[test]
    fn order_of_interfaces_lower_first() {
        let machine = Machine {
            devices: vec![
                Device { controller: Some(3), ..device(2, "eth0") },
                device(3, "bond0"),
                Device { below: Some(3), controller: Some(5), ..device(4, "bond0.7") },
                device(5, "br0"),
                device(6, "eth9"),
            ],
            ..Machine::default()
        };
        let names = ["br0", "absent", "bond0.7", "eth9", "bond0", "eth0"];
        assert_eq!(machine.lower_first(names), ["eth9", "eth0", "bond0", "bond0.7", "br0", "absent"]);
        let above: Vec<_> = machine.above(&machine.devices[1]).map(|it| it.name.as_str()).collect();
        assert_eq!(above, ["bond0.7"]);
    }

    #[test]
    fn order_of_interfaces_in_a_circle_ends() {
        let machine = Machine {
            devices: vec![
                Device { below: Some(3), ..device(2, "a") },
                Device { below: Some(2), ..device(3, "b") },
            ],
            ..Machine::default()
        };
        assert_eq!(machine.lower_first(["b", "a"]).len(), 2);
    }
}
