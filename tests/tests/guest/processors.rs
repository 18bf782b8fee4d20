//! A machine with room for many processors, as hypervisors announce them, and one that is added at run time.
//!
//! The kernel keeps counters for each possible processor, and charges them to the memory of the service.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use pomguard_common::{
    counter::{Counters, set},
    names::MAP_COUNTERS,
};
use pomguard_netlab::outside::{PLUGGED, Request};
use pomguard_tests::daemon::binary;

use crate::{machine::Machine, ways::Kernel};

/// The cgroup of the daemon.
const CGROUP: &str = "/sys/fs/cgroup/pomguard";
/// The limit of the cgroup: programs, maps and process.
const LIMIT: &str = "256M";
/// The least number of possible processors for which the limit is tried.
const MANY: usize = 128;
const PROCESSORS: &str = "/sys/devices/system/cpu";
/// The longest time until the kernel has an added processor. Emulation is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the words that start the daemon within the limit.
pub(crate) fn within_limit() -> Vec<OsString> {
    // The controller is on already at the second start.
    let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
    fs::create_dir_all(CGROUP).unwrap();
    fs::write(format!("{CGROUP}/memory.max"), LIMIT).unwrap();
    let enter = format!("echo $$ >{CGROUP}/cgroup.procs && exec \"$@\"");
    ["sh", "-c", &enter, "sh"].map(OsString::from).into_iter().chain([binary().into()]).collect()
}

/// Returns a note about the memory that the daemon takes, and the number of possible processors.
pub(crate) fn memory() -> String {
    let bytes: f64 = fs::read_to_string(format!("{CGROUP}/memory.current")).unwrap().trim().parse().unwrap();
    format!("{:.0} MiB of {LIMIT} for {} processors", bytes / f64::from(1 << 20), possible())
}

/// Returns the number of possible processors.
fn possible() -> usize {
    aya::util::nr_cpus().unwrap()
}

/// Adds a processor while packets come, has it judge all packets, and checks that it judges and counts as the others
/// do.
pub(crate) fn plug(machine: &Machine, kernel: &Kernel) -> Result<String> {
    if possible() < MANY {
        ensure!(!kernel.has_room(), "the machine has room for {} processors only", possible());
        return Ok(format!("this kernel sees room for {} processors only", possible()));
    }
    let added =
        (0..possible()).find(|number| !folder(*number).exists()).context("no processor is missing")?;
    machine.watch_all(|| {
        let answer = machine.outside(&Request::Plug)?;
        ensure!(answer == PLUGGED, "{answer}");
        let (online, begun) = (folder(added).join("online"), Instant::now());
        while !online.exists() {
            ensure!(begun.elapsed() < PATIENCE, "the kernel does not see the processor");
        }
        fs::write(online, "1").context("use the processor")?;
        Ok(String::new())
    })?;
    let end = machine.first().next().context("no interface")?;
    let before = counted(machine, added)?;
    run_on(&[added])?;
    let guarded = machine.is_guarded(end);
    let counted = counted(machine, added)? - before;
    run_on(&(0..=added).collect::<Vec<_>>())?;
    let guarded = guarded?;
    ensure!(counted > 0, "processor {added} judged nothing: {guarded}");
    Ok(format!("processor {added} judged {counted} packets"))
}

/// Returns the folder of a processor, which exists if the processor does.
fn folder(number: usize) -> PathBuf {
    Path::new(PROCESSORS).join(format!("cpu{number}"))
}

/// Has all threads of this process run on these processors alone: a veth pair judges where the packet was sent.
fn run_on(numbers: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    numbers.iter().try_for_each(|number| set.set(*number))?;
    for thread in fs::read_dir("/proc/self/task").context("the threads")? {
        let thread = thread?.file_name().to_string_lossy().parse().context("the number of a thread")?;
        // A thread may have ended.
        let _ = sched_setaffinity(Pid::from_raw(thread), &set);
    }
    Ok(())
}

/// Returns the number of packets that this processor has seen.
fn counted(machine: &Machine, processor: usize) -> Result<u64> {
    let data = MapData::from_pin(machine.lab.pins().join("maps").join(MAP_COUNTERS))?;
    let map: PerCpuArray<MapData, Counters> = PerCpuArray::try_from(Map::PerCpuArray(data))?;
    let counters = map.get(&set::TRAFFIC, 0)?;
    Ok(counters[processor].direction.iter().map(|of| of.seen.packets).sum())
}
