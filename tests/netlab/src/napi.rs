//! The place of an interface's receive work: softirqs on any processor, or one kernel thread.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

use crate::namespace::Namespace;

/// The kernel's limit of a name in `/proc`, in bytes. A longer name may be cut.
const COMM: usize = 15;
/// The number of searches for a new thread: a busy machine may not run the thread for seconds.
const PATIENCE: u32 = 2_000;
/// The pause between two searches.
const BEAT: Duration = Duration::from_millis(10);

/// The kernel thread that receives the packets of an interface.
///
/// Its run time is the interface's receive work, from the driver up to the socket, and little else.
#[derive(Debug, Clone, Copy)]
pub struct Receiver {
    thread: Pid,
}

impl Receiver {
    /// Gives the interface a receive thread, and waits until the thread sleeps. The interface must have one
    /// receive queue, a name that no other interface of the machine has, and GRO or XDP on. A veth polls only
    /// then, and only for packets of a peer without [TCP segmentation]; other packets stay on the processor
    /// that sends them (`veth_skb_is_eligible_for_gro` in drivers/net/veth.c). XDP at this end takes
    /// segmentation from the peer.
    ///
    /// [TCP segmentation]: crate::Offload::TcpSegmentation
    pub(crate) fn of(namespace: &Namespace, link: &str) -> Result<Self> {
        let path = format!("/sys/class/net/{link}/threaded");
        // Sysfs shows the namespace of the thread that mounted it. The mount ends with the thread that `run`
        // makes.
        namespace.run(|| -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
            fs::write(&path, "1").with_context(|| path.clone())
        })??;
        let mut wanted = format!("napi/{link}-");
        wanted.truncate(COMM);
        for _ in 0..PATIENCE {
            let found = threads(&wanted)?;
            match found[..] {
                // The thread's work before its first sleep is not receive work.
                [thread] if sleeps(thread)? => return Ok(Self { thread }),
                [] | [_] => thread::sleep(BEAT),
                _ => bail!("{link} has {} receiving threads, and should have one", found.len()),
            }
        }
        bail!("{link} has no receiving thread that comes to rest: is GRO on?")
    }

    /// Keeps the thread on one processor.
    pub fn occupy(&self, processor: usize, right: Right) -> Result<()> {
        occupy(self.thread, processor, right)
    }

    /// Returns the run time of the thread. The kernel updates the figure when the thread sleeps.
    pub fn run_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/schedstat", self.thread);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
        Ok(Duration::from_nanos(nanoseconds.with_context(|| format!("{path} has no run time"))?))
    }
}

/// The scheduling class of a thread on a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Ordinary scheduling, in turn with all other threads.
    Ordinary,
    /// Runs before all threads of ordinary scheduling, which disturb a measurement less this way.
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

/// Returns true if a thread sleeps: it neither runs nor is waiting to run for the first time.
fn sleeps(thread: Pid) -> Result<bool> {
    let path = format!("/proc/{thread}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
}

/// Returns the threads whose name begins with `name`.
fn threads(name: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The process may have ended since the folder was read.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(name) {
            found.push(Pid::from_raw(number));
        }
    }
    Ok(found)
}
