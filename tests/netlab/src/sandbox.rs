//! The environment of a run, arranged such that nothing is left when the run ends, however it ends.

use std::{
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};

/// The mount point of bpffs on every machine.
pub const BPFFS: &str = "/sys/fs/bpf";
/// A folder that every machine has and no program here uses. The sandbox mounts a tmpfs there.
const FILES: &str = "/dev/shm";
/// Two listeners per machine and port are 3,500 files; a thousand connections at once have two ends each.
const OPEN_FILES: u64 = 16_384;

/// The folders of a run. Both disappear with the last process that sees them.
pub struct Sandbox {
    /// The folder of the daemons' pins.
    pub pins: PathBuf,
    /// The folder of configuration, state and logs.
    pub files: PathBuf,
}

/// Fails unless this process may make namespaces, mounts and BPF programs.
pub fn require_root() -> Result<()> {
    if !geteuid().is_root() {
        bail!("this makes network namespaces and loads BPF programs: run it as root");
    }
    Ok(())
}

/// Gives this thread, and its later children, a bpffs and a tmpfs that nobody else sees. Call this function
/// before you start any thread or child that must see them.
///
/// No other clean-up is needed: when the process ends, by a signal or otherwise, the kernel kills the
/// daemons, and removes the namespaces and file systems that nobody holds any more.
pub fn enter() -> Result<Sandbox> {
    own_bpffs()?;
    mount_own("tmpfs", FILES)?;
    allow_open_files()?;
    let pins = Path::new(BPFFS).join(format!("pomguard-{}", process::id()));
    Ok(Sandbox { pins, files: FILES.into() })
}

/// Gives this thread, and its later children, a bpffs that nobody else sees.
pub fn own_bpffs() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making the mounts private")?;
    mount_own("bpf", BPFFS)
}

fn mount_own(kind: &str, place: &str) -> Result<()> {
    mount(Some(kind), place, Some(kind), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("mounting a {kind} at {place}"))
}

/// Raises the limit of open files to the number that the listeners and connections need.
pub fn allow_open_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < OPEN_FILES {
        // Any process may raise the soft limit up to the hard limit; beyond that the process needs
        // CAP_SYS_RESOURCE.
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard.max(OPEN_FILES)).with_context(|| {
            format!("a run opens {OPEN_FILES} files at most, and the limit is {hard} here (ulimit -Hn)")
        })?;
    }
    Ok(())
}
