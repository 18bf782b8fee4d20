//! A laboratory of network namespaces.
//!
//! Hosts ([`Namespace`]), cables ([`Veth`]) and switches ([`Switch`]) for pomguard's demo, tests and benches,
//! made with netlink alone: no `ip`, `tc` or `ethtool` program has to be installed.
//!
//! A namespace has no name in the file system. It lives as long as something holds it: the handle, a socket,
//! a process inside. So nothing is left behind when the process ends, however it ends, and two laboratories
//! on one machine never meet.
//!
//! Everything here is blocking and short, apart from [`Station`], which runs asynchronous tasks inside a
//! namespace as long as the station is kept.
//!
//! ```no_run
//! use pomguard_netlab::{Namespace, Port, Switch};
//!
//! # fn main() -> anyhow::Result<()> {
//! let switch = Switch::new("lan")?;
//! let server = Namespace::new("server")?;
//! let client = Namespace::new("client")?;
//! switch.join(&server, &Port::new("eth0").address("10.0.0.1/24".parse()?))?;
//! switch.join(&client, &Port::new("eth0").address("10.0.0.2/24".parse()?))?;
//!
//! let listener = server.run(|| std::net::TcpListener::bind("10.0.0.1:80"))??;
//! client.run(|| std::net::TcpStream::connect("10.0.0.1:80"))??;
//! # drop(listener);
//! # Ok(())
//! # }
//! ```
//!
//! `/sys/class/net` shows the interfaces of the namespace that *mounted* sysfs, not of the reader's: inside a
//! laboratory ask [`Namespace::links`] or `if_nametoindex`.

pub mod daemon;
mod link;
mod namespace;
mod napi;
mod notify;
mod offload;
pub mod outside;
pub mod sandbox;
mod station;
mod switch;
mod veth;

use std::io::Write as _;

pub use crate::{
    link::{Link, LinkState},
    namespace::{Namespace, die_with_parent},
    napi::{Receiver, Right, occupy},
    notify::{Notify, SOCKET as NOTIFY_SOCKET},
    offload::Offload,
    station::Station,
    switch::Switch,
    veth::{Port, Veth},
};

/// Returns true if this process may make namespaces. Otherwise prints that `what` was skipped, past the test
/// runner's capture, because a skipped test must not look like a test that ran.
pub fn root_or_skip(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "skipped: {what}: it needs root");
    }
    root
}
