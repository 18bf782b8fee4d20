//! One interface of a namespace, and operations on the interface.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
    link::{BondMode, LinkAttribute, LinkFlags, LinkMessage},
};
use rtnetlink::{Handle, LinkBond, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan};

use crate::{namespace::Namespace, napi::Receiver, offload::Offload};

/// An interface, by its name.
#[derive(Debug, Clone)]
pub struct Link<'a> {
    namespace: &'a Namespace,
    name: String,
}

impl<'a> Link<'a> {
    pub(crate) fn new(namespace: &'a Namespace, name: &str) -> Self {
        Self { namespace, name: name.to_owned() }
    }

    /// Returns the interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the index of the interface in its namespace.
    pub fn index(&self) -> Result<u32> {
        self.namespace.index(&self.name)
    }

    /// Sets the link up.
    pub fn up(&self) -> Result<()> {
        self.change("up", LinkMessageBuilder::up)
    }

    /// Sets the link down.
    pub fn down(&self) -> Result<()> {
        self.change("down", LinkMessageBuilder::down)
    }

    /// Sets the MTU.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        self.change("mtu", |link| link.mtu(mtu))
    }

    /// Lets the link send and receive up to `bytes` bytes of TCP segments in one packet (BIG TCP). Fails on
    /// kernels without this feature (IPv6 before Linux 5.19, IPv4 before 6.3).
    pub fn set_segments_in_one(&self, bytes: u32) -> Result<()> {
        self.change("segments in one packet", |link| {
            let sizes = [
                LinkAttribute::GsoMaxSize(bytes),
                LinkAttribute::GroMaxSize(bytes),
                LinkAttribute::GsoIpv4MaxSize(bytes),
                LinkAttribute::GroIpv4MaxSize(bytes),
            ];
            sizes.into_iter().fold(link, LinkMessageBuilder::append_extra_attribute)
        })
    }

    /// Sets the link-layer address.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        self.change("address", |link| link.address(mac.to_vec()))
    }

    /// Renames the link. The link is set down for this, and up again if it was up.
    pub fn rename(self, name: &str) -> Result<Self> {
        let was_up = self.state()?.up;
        if was_up {
            self.down()?;
        }
        self.change("name", |link| link.name(name))?;
        let renamed = Self { name: name.to_owned(), ..self };
        if was_up {
            renamed.up()?;
        }
        Ok(renamed)
    }

    /// Moves the link to another namespace, where it arrives down and without its addresses.
    pub fn move_to(self, namespace: &'a Namespace) -> Result<Self> {
        self.change("namespace", |link| link.setns_by_fd(namespace.raw()))?;
        Ok(Self { namespace, ..self })
    }

    /// Makes the link a port of a bridge, or a member of a bond, in the same namespace. A member must be down.
    pub fn attach_to(&self, upper: &Self) -> Result<()> {
        let controller = upper.index()?;
        self.change("controller", |link| link.controller(controller))
    }

    /// Deletes the link, and with it the peer.
    pub fn delete(self) -> Result<()> {
        self.talk("deleting", async |netlink, index| Ok(netlink.link().del(index).execute().await?))
    }

    /// Adds an address that is usable at once: IPv6 without duplicate address detection.
    pub fn add_address(&self, address: IpNet) -> Result<()> {
        self.talk("adding an address to", async |netlink, index| {
            let mut request = netlink.address().add(index, address.addr(), address.prefix_len());
            if address.addr().is_ipv6() {
                let message = request.message_mut();
                message.header.flags |= AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            Ok(request.execute().await?)
        })
        .with_context(|| address.to_string())
    }

    /// Adds a permanent neighbour, so that reaching the neighbour needs no address resolution.
    pub fn add_neighbour(&self, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        self.talk("adding a neighbour to", async |netlink, index| {
            let neighbours = netlink.neighbours();
            Ok(neighbours.add(index, address).link_layer_address(&mac).execute().await?)
        })
        .with_context(|| address.to_string())
    }

    /// Switches an offload of the link on or off.
    pub fn set_offload(&self, offload: Offload, on: bool) -> Result<()> {
        self.namespace.run(|| offload.set(&self.name, on))?.with_context(|| {
            format!("setting the offload {offload:?} of {} in {}", self.name, self.namespace.name())
        })
    }

    /// Makes the kernel receive packets of this link in a thread of the link's own. The link needs a name
    /// that no other interface of the machine has, and a peer that leaves TCP segmentation to the stack.
    pub fn receive_in_thread(&self) -> Result<Receiver> {
        Receiver::of(self.namespace, &self.name).with_context(|| format!("threaded receive on {}", self.name))
    }

    /// Reads the present state of the link.
    pub fn state(&self) -> Result<LinkState> {
        let links = self.namespace.links()?;
        links
            .into_iter()
            .find(|link| link.name == self.name)
            .with_context(|| format!("no interface {} in {}", self.name, self.namespace.name()))
    }

    fn change(
        &self,
        what: &str,
        with: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
    ) -> Result<()> {
        self.talk(&format!("setting {what} of"), async |netlink, index| {
            let message = with(LinkUnspec::new_with_index(index)).build();
            Ok(netlink.link().change(message).execute().await?)
        })
    }

    fn talk<T: Send>(&self, what: &str, say: impl AsyncFnOnce(Handle, u32) -> Result<T> + Send) -> Result<T> {
        self.index()
            .and_then(|index| self.namespace.netlink(async |netlink| say(netlink, index).await))
            .with_context(|| format!("{what} {} in {}", self.name, self.namespace.name()))
    }
}

/// The kernel's description of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// Index in the namespace.
    pub index: u32,
    /// Name of the interface.
    pub name: String,
    /// Link-layer address, if the interface has one.
    pub mac: Option<[u8; 6]>,
    /// MTU, in bytes.
    pub mtu: u32,
    /// True if the interface is administratively up.
    pub up: bool,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
}

impl LinkState {
    pub(crate) async fn all(netlink: &Handle) -> Result<Vec<Self>> {
        Ok(netlink.link().get().execute().map_ok(|message| Self::read(&message)).try_collect().await?)
    }

    fn read(message: &LinkMessage) -> Self {
        let mut state = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            received: 0,
            sent: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => state.name.clone_from(name),
                LinkAttribute::Address(mac) => state.mac = mac.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
                LinkAttribute::Stats64(stats) => {
                    (state.received, state.sent) = (stats.rx_packets, stats.tx_packets);
                }
                _ => {}
            }
        }
        state
    }
}

impl Namespace {
    /// Returns an interface of this namespace. The interface need not exist yet.
    pub fn link(&self, name: &str) -> Link<'_> {
        Link::new(self, name)
    }

    /// Lists the interfaces that exist now, with `lo`.
    pub fn links(&self) -> Result<Vec<LinkState>> {
        self.netlink(async |netlink| LinkState::all(&netlink).await)
            .with_context(|| format!("listing the interfaces of {}", self.name))
    }

    /// Adds a bond in active-backup mode, down and without members. Needs the `bonding` driver.
    pub fn add_bond(&self, name: &str) -> Result<Link<'_>> {
        /// The interval of the check of the members' links, in milliseconds.
        const LINK_CHECK: u32 = 50;
        self.netlink(async |netlink| {
            let bond = LinkBond::new(name).mode(BondMode::ActiveBackup).miimon(LINK_CHECK).build();
            Ok(netlink.link().add(bond).execute().await?)
        })
        .with_context(|| format!("adding the bond {name} to {}", self.name))?;
        Ok(self.link(name))
    }

    /// Adds a VLAN device over an interface, down and without addresses. Needs the `8021q` driver.
    pub fn add_vlan(&self, name: &str, over: &Link<'_>, id: u16) -> Result<Link<'_>> {
        let index = over.index()?;
        self.netlink(async |netlink| {
            Ok(netlink.link().add(LinkVlan::new(name, index, id).build()).execute().await?)
        })
        .with_context(|| format!("adding the VLAN device {name} to {}", self.name))?;
        Ok(self.link(name))
    }

    /// Adds a bridge and sets it up, without spanning tree and multicast snooping: frames pass at once.
    pub fn add_bridge(&self, name: &str) -> Result<Link<'_>> {
        self.netlink(async |netlink| {
            let bridge = LinkBridge::new(name).mcast_snooping(false).build();
            Ok(netlink.link().add(bridge).execute().await?)
        })
        .with_context(|| format!("adding the bridge {name} to {}", self.name))?;
        Ok(self.link(name))
    }
}
