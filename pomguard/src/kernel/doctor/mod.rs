//! Reads the facts about this machine that `pomguard doctor` reports. Reading needs no settings and changes
//! nothing. Facts that only root can read are `None` for other users. [`crate::observe::doctor`] judges the
//! facts.
//!
//! | part | module |
//! | --- | --- |
//! | kernel, memory, clock, security | `system` |
//! | interfaces and their relations | `links`, with `ethtool` and `xdp_features` |
//! | sockets that take packets from the driver | `xdp_sockets` |
//! | rules of other firewalls | `rules` |
//! | this boot and the next one | `boot` |

mod boot;
mod ethtool;
mod links;
mod rules;
mod system;
mod xdp_features;
mod xdp_sockets;

pub use boot::Boot;
pub use ethtool::{CardQueues, Features};
pub use links::{ForeignPrograms, Link};
pub use rules::{Chain, Rules};
pub use system::SystemFacts;

use super::{attach, pins::Pins};

/// All facts about the machine.
#[derive(Clone, Debug, Default)]
pub struct MachineFacts {
    /// True if root reads the facts.
    pub root: bool,
    /// The kernel and the machine.
    pub system: SystemFacts,
    /// Interfaces of this network namespace except the loopback, by name.
    pub links: Vec<Link>,
    /// Indices of interfaces with AF_XDP sockets; `None` if the kernel does not tell.
    pub xdp_sockets: Option<Vec<u32>>,
    /// Rules of other firewalls; `None` if they could not be read.
    pub rules: Option<Rules>,
    /// This boot and the next one.
    pub boot: Boot,
}

impl MachineFacts {
    /// Reads the machine. The programs behind the links pinned at `pins` are pomguard's own.
    #[must_use]
    pub fn read(pins: &Pins) -> Self {
        let root = nix::unistd::geteuid().is_root();
        let ours = root.then(|| attach::running(pins).unwrap_or_default());
        Self {
            root,
            system: SystemFacts::read(),
            links: links::read(ours.as_ref()),
            xdp_sockets: xdp_sockets::interfaces().ok(),
            rules: rules::read(),
            boot: Boot::read(),
        }
    }
}
