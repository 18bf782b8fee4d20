//! Who does an interface's receive work: softirqs wherever they fall, or one kernel thread.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

use crate::namespace::Namespace;

/// Beyond the kernel's own limit of 15 bytes a name in `/proc` may be cut.
const COMM: usize = 15;
/// How often a new thread is looked for, and how long it takes to look again: a busy machine may not run
/// it for seconds.
const PATIENCE: u32 = 2_000;
const BEAT: Duration = Duration::from_millis(10);

/// The kernel thread that receives what arrives at an interface.
///
/// Its run time is the interface's receive work, from the driver up to the socket, and little else.
#[derive(Debug, Clone, Copy)]
pub struct Receiver {
    thread: Pid,
}

impl Receiver {
    /// Gives the interface a thread of its own, which sleeps then for want of work. The interface has to
    /// have one receive queue, a name that no other interface of the machine has, and GRO or XDP on: a
    /// veth polls only then, and only for packets of a peer without [TCP segmentation]; others it hands
    /// to the processor that sends them (`veth_skb_is_eligible_for_gro` in drivers/net/veth.c). XDP at
    /// this end takes segmentation from the peer.
    ///
    /// [TCP segmentation]: crate::Offload::TcpSegmentation
    pub(crate) fn of(namespace: &Namespace, link: &str) -> Result<Self> {
        let path = format!("/sys/class/net/{}/threaded", link);
        // Sysfs shows the namespace of who mounted it. The mount goes with the thread that `run` makes.
        namespace.run(|| -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
            fs::write(&path, "1").with_context(|| path.clone())
        })??;
        let mut wanted = format!("napi/{}-", link);
        wanted.truncate(COMM);
        for _ in 0..PATIENCE {
            let found = threads(&wanted)?;
            match found[..] {
                // What it runs before its first sleep is no receive work.
                [thread] if sleeps(thread)? => return Ok(Self { thread }),
                [] | [_] => thread::sleep(BEAT),
                _ => bail!("{} has {} receiving threads, and should have one", link, found.len()),
            }
        }
        bail!("{} has no receiving thread that comes to rest: is GRO on?", link)
    }

    /// Keeps the thread on one processor.
    pub fn occupy(&self, processor: usize, right: Right) -> Result<()> {
        occupy(self.thread, processor, right)
    }

    /// How long the thread has run. The kernel brings the figure up to date when the thread sleeps.
    pub fn run_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/schedstat", self.thread);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
        Ok(Duration::from_nanos(nanoseconds.with_context(|| format!("{path} has no run time"))?))
    }
}

/// Who goes first on a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Everybody in turn.
    Ordinary,
    /// This thread, before all that run by ordinary right: they disturb a measurement less.
    First,
}

/// Keeps a thread on one processor; 0 is the calling thread.
pub fn occupy(thread: Pid, processor: usize, right: Right) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(thread, &set).with_context(|| format!("keeping thread {thread} on {processor}"))?;
    let (policy, sched_priority) = match right {
        Right::Ordinary => (libc::SCHED_OTHER, 0),
        Right::First => (libc::SCHED_FIFO, 1),
    };
    let priority = libc::sched_param { sched_priority };
    // SAFETY: the call reads the one parameter block, which outlives it.
    let result = unsafe { libc::sched_setscheduler(thread.as_raw(), policy, &raw const priority) };
    Errno::result(result).map(drop).with_context(|| format!("scheduling thread {thread}"))
}

/// Whether a thread waits for work, as opposed to running, or to never having run.
fn sleeps(thread: Pid) -> Result<bool> {
    let path = format!("/proc/{thread}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
}

/// The threads whose name begins so.
fn threads(name: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the two looks.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(name) {
            found.push(Pid::from_raw(number));
        }
    }
    Ok(found)
}
