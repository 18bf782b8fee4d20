//! A host under test: one interface, whose packets one kernel thread receives.

use std::{
    fs, process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use pomguard_netlab::{Namespace, Offload, Port, Receiver, Right};

use super::{
    policy::{HOST, POM_HOST},
    sender::Sender,
    shuffler,
};

/// The gateway for answers: a neighbour that discards them.
const GATEWAY: [&str; 2] = ["10.9.0.1", "fd00:9::1"];
/// The time within which an idle receiver must sleep. A receiver that does not is stuck.
const IDLE_WITHIN: Duration = Duration::from_secs(10);

/// A host with an interface to the sender.
pub(super) struct Host {
    pub(super) namespace: Namespace,
    /// The receiving interface.
    pub(super) interface: String,
    /// Interface index of the sender's end of the cable.
    pub(super) link: u32,
    receiver: Receiver,
}

/// The result of receiving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Packets that the driver received.
    pub(super) packets: u64,
    /// Run time of the receiving thread for these packets.
    pub(super) time: Duration,
    /// The part of the packets that reached TCP.
    pub(super) delivered: u64,
}

impl Receipt {
    /// Returns the nanoseconds per packet.
    pub(super) fn cost(&self) -> f64 {
        self.time.as_nanos() as f64 / self.packets.max(1) as f64
    }

    /// Returns the difference to an earlier receipt.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            time: self.time.saturating_sub(before.time),
            delivered: self.delivered - before.delivered,
        }
    }
}

impl Host {
    /// Creates a host without a filter. The receiver runs before everything else on its processor.
    pub(super) fn new(sender: &mut Sender, name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace = Namespace::new(name)?;
        // The name must be unique on the whole machine: the receiving thread is found by it.
        let interface = format!("b{}x{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let port = Port::new(&interface)
            .mac(shuffler::DESTINATION)
            .address(IpNet::new(HOST[0], 16)?)
            .address(IpNet::new(HOST[1], 64)?)
            .address(IpNet::from(POM_HOST[0]))
            .address(IpNet::from(POM_HOST[1]));
        let link = sender.connect(&namespace, &port)?;
        for scope in ["all", &interface] {
            namespace.set_sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        let near = namespace.link(&interface);
        for (gateway, anywhere) in GATEWAY.into_iter().zip(["0.0.0.0/0", "::/0"]) {
            near.add_neighbour(gateway.parse()?, shuffler::SOURCE)?;
            namespace.add_route(anywhere.parse()?, gateway.parse()?)?;
        }
        near.set_offload(Offload::GenericReceive, true)?;
        let receiver = near.receive_in_thread()?;
        receiver.occupy(last_processor()?, Right::First)?;
        Ok(Self { namespace, interface, link, receiver })
    }

    /// Makes the receiver share its processor with other threads.
    pub(super) fn share_processor(&self) -> Result<()> {
        self.receiver.occupy(last_processor()?, Right::Ordinary)
    }

    /// Waits until the receiving thread sleeps, and returns the receipt of that moment.
    pub(super) fn idle(&self) -> Result<Receipt> {
        let until = Instant::now() + IDLE_WITHIN;
        let mut last = self.receipt()?;
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
            let now = self.receipt()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        bail!("{} does not come to rest", self.namespace.name())
    }

    /// Returns the receipt since the host was made. Exact only while no packets arrive.
    fn receipt(&self) -> Result<Receipt> {
        Ok(Receipt {
            packets: self.namespace.link(&self.interface).state()?.received,
            time: self.receiver.run_time()?,
            delivered: self.segments()?,
        })
    }

    /// Returns the TCP segments that reached TCP, valid or not.
    fn segments(&self) -> Result<u64> {
        let text = self.namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let names = lines.next().unwrap_or_default().split_whitespace();
        let values = lines.next().unwrap_or_default().split_whitespace();
        let found = names.zip(values).find(|(name, _)| *name == "InSegs");
        found.and_then(|(_, value)| value.parse().ok()).context("no InSegs in /proc/net/snmp")
    }
}

/// Returns the number of the receiving processor.
fn last_processor() -> Result<usize> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let found = (1..CpuSet::count()).rev().find(|&at| set.is_set(at).unwrap_or(false));
    found.context("sending and receiving need a processor each, and there is but one here")
}
