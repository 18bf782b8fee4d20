//! A cable between two namespaces.

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::{link::Link, namespace::Namespace};

/// Properties of one end of a cable.
#[derive(Debug, Clone)]
pub struct Port {
    name: String,
    mac: Option<[u8; 6]>,
    mtu: Option<u32>,
    addresses: Vec<IpNet>,
}

impl Port {
    /// Describes an interface of this name, with the kernel's defaults.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), mac: None, mtu: None, addresses: Vec::new() }
    }

    /// Sets the link-layer address.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Sets the MTU; at the other end too, unless the other end has its own.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Adds an address. The prefix is on the link.
    #[must_use]
    pub fn address(mut self, address: IpNet) -> Self {
        self.addresses.push(address);
        self
    }

    fn describe<T>(
        &self,
        other: &Self,
        namespace: &Namespace,
        message: LinkMessageBuilder<T>,
    ) -> LinkMessageBuilder<T> {
        let mut message = message.name(self.name.clone()).setns_by_fd(namespace.raw());
        if let Some(mac) = self.mac {
            message = message.address(mac.to_vec());
        }
        if let Some(mtu) = self.mtu.or(other.mtu) {
            message = message.mtu(mtu);
        }
        message
    }

    fn dress<'a>(&self, namespace: &'a Namespace) -> Result<Link<'a>> {
        let link = namespace.link(&self.name);
        for address in &self.addresses {
            link.add_address(*address)?;
        }
        link.up()?;
        Ok(link)
    }
}

/// A pair of virtual Ethernet interfaces.
#[derive(Debug)]
pub struct Veth;

impl Veth {
    /// Connects two namespaces by a cable: both ends get the properties of their [`Port`], and are up.
    pub fn connect<'a, 'b>(
        (here, near): (&'a Namespace, &Port),
        (there, far): (&'b Namespace, &Port),
    ) -> Result<(Link<'a>, Link<'b>)> {
        here.netlink(async |netlink| {
            let peer = far.describe(near, there, LinkMessageBuilder::<LinkUnspec>::new()).build();
            let kind = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth);
            let message =
                near.describe(far, here, kind).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
            Ok(netlink.link().add(message).execute().await?)
        })
        .with_context(|| {
            format!("connecting {} of {} with {} of {}", near.name, here.name(), far.name, there.name())
        })?;
        Ok((near.dress(here)?, far.dress(there)?))
    }
}
