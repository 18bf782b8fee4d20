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
    /// Creates a switch without ports. The switch speaks no protocol of its own: every frame that arrives at
    /// a host was sent by another host.
    pub fn new(name: &str) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        // Link-local addresses of the bridge and its ports would send neighbour discovery messages.
        for scope in ["all", "default"] {
            let path = format!("net/ipv6/conf/{scope}/disable_ipv6");
            if std::fs::exists(format!("/proc/sys/{path}"))? {
                namespace.set_sysctl(&path, "1")?;
            }
        }
        namespace.add_bridge(BRIDGE)?;
        Ok(Self { namespace, ports: AtomicU32::new(0) })
    }

    /// Connects a host: gives the host the interface that `port` describes, and sets the interface up.
    pub fn join<'a>(&self, host: &'a Namespace, port: &Port) -> Result<Link<'a>> {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) =
            Veth::connect((&self.namespace, &Port::new(&format!("port{number}"))), (host, port))?;
        ours.attach_to(&self.namespace.link(BRIDGE))?;
        Ok(theirs)
    }

    /// Returns the namespace of the bridge.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}
