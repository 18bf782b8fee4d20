//! Decides which addresses belong to this host: compares the site file with the machine.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use pomguard_common::{image::VLAN_IDS, limits};
use serde::{Deserialize, Serialize};

use super::{OwnAddresses, Policy};

/// The part of a policy that the machine decides: addresses in addition to those that the site file lists for this
/// host alone, and VLANs in addition to those of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineAddresses {
    /// Addresses taken as own because of `own_addresses = "machine"`. Sorted.
    pub taken: Vec<IpAddr>,
    /// Addresses of [`Policy::shared`], and addresses that the site file gives to no machine. Sorted.
    pub held: Vec<IpAddr>,
    /// [`Addresses::vlans`].
    #[serde(default)]
    pub vlans: Vec<u16>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Present {
    /// The address: global, and not tentative.
    pub address: IpAddr,
    /// Name of the interface.
    pub interface: Arc<str>,
}

/// The addresses of a machine, and the VLANs of its guards.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Addresses {
    /// Addresses of guarded interfaces, and of interfaces above them (a bridge, a bond, a VLAN). Sorted.
    pub guarded: Vec<Present>,
    /// Addresses of all other interfaces except the loopback, sorted by interface.
    pub others: Vec<Present>,
    /// VLAN ids of the frames that reach a guarded interface through another one. Sorted.
    pub vlans: Vec<u16>,
}

impl Addresses {
    /// Returns true if a guarded interface has the address.
    #[must_use]
    pub fn is_guarded(&self, address: IpAddr) -> bool {
        self.guarded.iter().any(|it| it.address == address)
    }
}

/// The owner of an address according to the site file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This host alone.
    Listed,
    /// This host, which may hold the address or not.
    Shared,
    /// Another machine, by name.
    Other(&'a str),
    /// No machine.
    Nobody,
}

/// Differences between the site file and the machine, each as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Differences {
    /// Addresses that are listed, and on no guarded interface.
    pub missing: Vec<String>,
    /// Addresses that are on a guarded interface, and not listed.
    pub unlisted: Vec<String>,
    /// Addresses that are on a guarded interface, and given to another machine.
    pub conflict: Vec<String>,
}

impl Differences {
    /// Returns true if there are no differences.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unlisted.is_empty() && self.conflict.is_empty()
    }
}

/// Returns the first of `addresses` that fit within [`limits::OWN_ADDRESSES`] of each family, after those of
/// `before`.
fn with_room(addresses: impl IntoIterator<Item = IpAddr>, before: &[IpAddr]) -> Vec<IpAddr> {
    let count = |v4: bool| before.iter().filter(|address| address.is_ipv4() == v4).count();
    let mut counts = [count(false), count(true)];
    let fits = |address: &IpAddr| {
        let [v6, v4] = &mut counts;
        let count = if address.is_ipv4() { v4 } else { v6 };
        *count += 1;
        *count <= limits::OWN_ADDRESSES
    };
    addresses.into_iter().filter(fits).collect()
}

impl Policy {
    /// Returns the owner of an address according to the site file. The narrowest entry decides.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Owner<'_> {
        if self.local.contains(&address) {
            return Owner::Listed;
        }
        let length = |net: &IpNet| net.contains(&address).then(|| net.prefix_len());
        let shared = self.shared.iter().filter_map(length).max();
        let known = self.known.iter().filter(|known| known.prefix.contains(&address));
        let known = known.max_by_key(|known| known.prefix.prefix_len());
        match (shared, known) {
            (Some(shared), Some(known)) if known.prefix.prefix_len() > shared => Owner::Other(&known.name),
            (Some(_), _) => Owner::Shared,
            (None, Some(known)) => Owner::Other(&known.name),
            (None, None) => Owner::Nobody,
        }
    }

    /// Returns true if packets to the address are for this host.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        matches!(self.owner(address), Owner::Listed | Owner::Shared) || self.machine.taken.contains(&address)
    }

    /// Returns true if this host sends from the address.
    #[must_use]
    pub fn may_send(&self, address: IpAddr) -> bool {
        self.is_own(address) && (self.owner(address) != Owner::Shared || self.machine.held.contains(&address))
    }

    /// Sorts the addresses of the machine into addresses that are this host's own and addresses that are only
    /// present. An address that the site file gives to another machine is neither: taking that address on this
    /// machine must not cut off the other machine.
    #[must_use]
    pub fn machine_of(&self, addresses: &Addresses) -> MachineAddresses {
        let present: BTreeSet<IpAddr> = addresses.guarded.iter().map(|it| it.address).collect();
        let owned_by = |owner: &Owner<'_>| {
            present.iter().copied().filter(|&address| self.owner(address) == *owner).collect::<Vec<_>>()
        };
        let nobodys = owned_by(&Owner::Nobody);
        let (taken, also_held) = match self.own_addresses {
            OwnAddresses::Machine => (nobodys, Vec::new()),
            OwnAddresses::Listed => (Vec::new(), nobodys),
        };
        let listed = self.local.iter().copied().chain(self.shared.iter().map(IpNet::addr));
        // A floating address that this machine holds counts before an address that nobody listed.
        let mut machine = MachineAddresses {
            taken: with_room(taken, &listed.collect::<Vec<_>>()),
            held: with_room(owned_by(&Owner::Shared).into_iter().chain(also_held), &[]),
            vlans: addresses.vlans.clone(),
        };
        machine.held.sort_unstable();
        machine
    }

    /// Returns the policy for a machine with these addresses.
    #[must_use]
    pub fn on(mut self, addresses: &Addresses) -> Self {
        self.machine = self.machine_of(addresses);
        self
    }

    /// Returns the VLAN ids whose frames are judged like untagged frames: those of the settings, and those of
    /// guarded VLAN devices on guarded cards as far as the image has room. Each once.
    #[must_use]
    pub fn served_vlans(&self) -> Vec<u16> {
        self.served_with(&self.machine.vlans)
    }

    /// Returns the same for a machine whose guards need these VLANs: the room goes to the lowest ids.
    #[must_use]
    pub fn served_with(&self, between: &[u16]) -> Vec<u16> {
        // Priority tags are always accepted.
        let listed: BTreeSet<u16> = self.packets.vlans.iter().copied().filter(|id| *id != 0).collect();
        let others = between.iter().copied().filter(|id| *id != 0 && !listed.contains(id));
        let room = VLAN_IDS.saturating_sub(listed.len());
        listed.iter().copied().chain(others.take(room)).collect()
    }

    /// Compares the site file with the machine.
    #[must_use]
    pub fn differences(&self, addresses: &Addresses) -> Differences {
        let mut found = Differences::default();
        let here: Vec<String> = addresses
            .guarded
            .iter()
            .filter(|it| !self.local.contains(&it.address))
            .map(|it| format!("{} has {}", it.interface, it.address))
            .collect();
        for address in &self.local {
            if addresses.is_guarded(*address) {
                continue;
            }
            let elsewhere = addresses.others.iter().find(|it| it.address == *address);
            found.missing.push(match elsewhere {
                Some(it) => format!("{address} is on {}, which is not guarded", it.interface),
                None if here.is_empty() => format!("{address} is on no interface of this machine"),
                None => format!("{address} is on no interface of this machine; {}", here.join(", ")),
            });
        }
        for Present { address, interface } in &addresses.guarded {
            match self.owner(*address) {
                Owner::Other(name) => found.conflict.push(format!(
                    "{interface} has {address}, which the site file gives to {name}: it is not taken as this \
                     host's"
                )),
                Owner::Nobody if !self.machine.taken.contains(address) => found.unlisted.push(format!(
                    "{interface} has {address}, which the site file gives to nobody: only failsafe rows and \
                     exceptions hold there"
                )),
                Owner::Shared if !self.machine.held.contains(address) => found.unlisted.push(format!(
                    "{interface} has {address}, which is one floating address too many: this host does not \
                     send from there ({} are taken of each family)",
                    limits::OWN_ADDRESSES
                )),
                Owner::Listed | Owner::Shared | Owner::Nobody => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
