//! A host under test: one interface, whose receive work one kernel thread does.

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

/// Where answers go: a neighbour that throws them away.
const GATEWAY: [&str; 2] = ["10.9.0.1", "fd00:9::1"];
/// A receiver that has nothing to do sleeps at once; one that does not within this time is stuck.
const IDLE_WITHIN: Duration = Duration::from_secs(10);

/// A host with an interface to the sender.
pub(super) struct Host {
    pub(super) namespace: Namespace,
    /// The interface that it receives on.
    pub(super) interface: String,
    /// Number of the sender's end of the cable.
    pub(super) link: u32,
    receiver: Receiver,
}

/// What receiving came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Packets that the driver took in.
    pub(super) packets: u64,
    /// Time that the receiving thread ran for them.
    pub(super) time: Duration,
    /// Those of them that got as far as TCP.
    pub(super) delivered: u64,
}

impl Receipt {
    /// Nanoseconds per packet.
    pub(super) fn cost(&self) -> f64 {
        self.time.as_nanos() as f64 / self.packets.max(1) as f64
    }

    /// What came in since an earlier moment.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            time: self.time.saturating_sub(before.time),
            delivered: self.delivered - before.delivered,
        }
    }
}

impl Host {
    /// A host without a filter, whose receiver goes before everything else on its processor.
    pub(super) fn new(sender: &mut Sender, name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace = Namespace::new(name)?;
        // A name of its own on the whole machine: its receiving thread is found by it.
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

    /// From now on the receiver shares its processor with what else runs there.
    pub(super) fn share_processor(&self) -> Result<()> {
        self.receiver.occupy(last_processor()?, Right::Ordinary)
    }

    /// Waits until the receiving thread sleeps; what has been received then.
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

    /// What has been received since the host was made. Exact only while nothing arrives.
    fn receipt(&self) -> Result<Receipt> {
        Ok(Receipt {
            packets: self.namespace.link(&self.interface).state()?.received,
            time: self.receiver.run_time()?,
            delivered: self.segments()?,
        })
    }

    /// TCP segments that came up to TCP, good or not.
    fn segments(&self) -> Result<u64> {
        let text = self.namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let names = lines.next().unwrap_or_default().split_whitespace();
        let values = lines.next().unwrap_or_default().split_whitespace();
        let found = names.zip(values).find(|(name, _)| *name == "InSegs");
        found.and_then(|(_, value)| value.parse().ok()).context("no InSegs in /proc/net/snmp")
    }
}

/// The processor that receives.
fn last_processor() -> Result<usize> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let found = (1..CpuSet::count()).rev().find(|&at| set.is_set(at).unwrap_or(false));
    found.context("sending and receiving need a processor each, and there is but one here")
}
