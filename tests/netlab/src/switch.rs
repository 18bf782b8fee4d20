//! An Ethernet switch: a bridge in a namespace of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::{
    link::Link,
    namespace::Namespace,
    veth::{Port, Veth},
};

const BRIDGE: &str = "br0";

/// A switch that joins any number of hosts.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    ports: AtomicU32,
}

impl Switch {
    /// A switch without ports. It speaks no protocol of its own: whatever arrives at a host was sent
    /// by another host.
    pub fn new(name: &str) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        // Link-local addresses of the bridge and its ports would be heard as neighbour discovery.
        for scope in ["all", "default"] {
            let path = format!("net/ipv6/conf/{scope}/disable_ipv6");
            if std::fs::exists(format!("/proc/sys/{path}"))? {
                namespace.set_sysctl(&path, "1")?;
            }
        }
        namespace.add_bridge(BRIDGE)?;
        Ok(Self { namespace, ports: AtomicU32::new(0) })
    }

    /// Plugs a host in: gives it the interface that `port` describes, up.
    pub fn join<'a>(&self, host: &'a Namespace, port: &Port) -> Result<Link<'a>> {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) =
            Veth::connect((&self.namespace, &Port::new(&format!("port{number}"))), (host, port))?;
        ours.attach_to(&self.namespace.link(BRIDGE))?;
        Ok(theirs)
    }

    /// The namespace that the bridge is in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}
