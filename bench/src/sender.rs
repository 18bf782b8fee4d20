//! The host that sends packets to the hosts under test.

use std::path::Path;

use anyhow::Result;
use nix::unistd::Pid;
use pomguard_common::bench;
use pomguard_netlab::{Namespace, Offload, Port, Right, Veth, occupy};

use super::{
    shuffler::{self, Shuffler},
    traffic::Header,
};

/// The sending processor. The receiver runs on another one.
const PROCESSOR: usize = 0;
/// The number of frames per call: about 30 ms of sending. The kernel waits about 15 ms before and after.
pub(super) const FRAMES: u32 = 262_144;

/// A host with one cable to each host under test.
pub(super) struct Sender {
    namespace: Namespace,
    shuffler: Shuffler,
}

impl Sender {
    /// Creates a sender with the programs of the bench's object.
    pub(super) fn new(object: &Path) -> Result<Self> {
        let namespace = Namespace::new("sender")?;
        // The sender sends no frames of its own: every frame that a host sees belongs to the experiment.
        for scope in ["all", "default"] {
            namespace.set_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
        }
        Ok(Self { namespace, shuffler: Shuffler::load(object)? })
    }

    /// Connects a host by a cable and returns the interface index of this end. Frames that come back are
    /// dropped.
    pub(super) fn connect(&mut self, host: &Namespace, interface: &Port) -> Result<u32> {
        let port = Port::new("new").mac(shuffler::SOURCE);
        let (near, _) = Veth::connect((&self.namespace, &port), (host, interface))?;
        let index = near.index()?;
        let near = near.rename(&format!("to{index}"))?;
        self.namespace.run(|| self.shuffler.attach(bench::FLOOR_XDP, index))??;
        near.set_offload(Offload::GenericReceive, true)?;
        Ok(index)
    }

    /// Sets the headers to send in turn.
    pub(super) fn fill(&mut self, headers: &[Header]) -> Result<()> {
        self.shuffler.fill(headers)
    }

    /// Sends [`FRAMES`] through the cable whose near end is `link`, as fast as possible, before everything else on
    /// the processor.
    pub(super) fn burst(&mut self, link: u32) -> Result<()> {
        self.shuffler.direct(link)?;
        self.namespace.run(|| {
            occupy(Pid::from_raw(0), PROCESSOR, Right::First)?;
            self.shuffler.send(FRAMES)
        })?
    }

    /// Sends through the cable whose near end is `link` as fast as possible, with ordinary scheduling, as long as
    /// `more` returns true.
    pub(super) fn flood(&mut self, link: u32, more: impl Fn() -> bool + Sync) -> Result<()> {
        self.shuffler.direct(link)?;
        self.namespace.run(|| {
            occupy(Pid::from_raw(0), PROCESSOR, Right::Ordinary)?;
            while more() {
                self.shuffler.send(8 * FRAMES)?;
            }
            Ok(())
        })?
    }

    /// Attaches the program that knows the right answers to an interface of a host.
    pub(super) fn attach_oracle(&mut self, host: &Namespace, interface: &str) -> Result<()> {
        let index = host.link(interface).index()?;
        host.run(|| self.shuffler.attach(bench::ORACLE_XDP, index))?
    }
}
