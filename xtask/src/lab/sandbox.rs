//! What a run needs around it, arranged so that nothing stays when it ends, however it ends.

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

/// Where bpffs is mounted, everywhere.
const BPFFS: &str = "/sys/fs/bpf";
/// A folder that every machine has and no program here uses: a tmpfs covers it.
const FILES: &str = "/dev/shm";
/// Two listeners per machine and port are 3,500; a thousand connections under way have two ends each.
const OPEN_FILES: u64 = 16_384;

/// Where a run keeps things; both vanish with the last process that sees them.
pub(crate) struct Sandbox {
    /// Under which the daemons pin.
    pub(crate) pins: PathBuf,
    /// For configuration, state and logs.
    pub(crate) files: PathBuf,
}

/// Fails unless this process may make namespaces, mounts and BPF programs.
pub(crate) fn require_root() -> Result<()> {
    if !geteuid().is_root() {
        bail!("this makes network namespaces and loads BPF programs: run it as root");
    }
    Ok(())
}

/// Gives this thread, and what it starts, a bpffs and a tmpfs that nobody else sees. Call it before any
/// thread or child that is to see them is started.
///
/// This is all the cleaning up there is: when the process ends, by a signal or otherwise, the kernel
/// kills the daemons, and takes down the namespaces and file systems that nobody holds any more.
pub(crate) fn enter() -> Result<Sandbox> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making the mounts private")?;
    for (kind, place) in [("bpf", BPFFS), ("tmpfs", FILES)] {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), Some("mode=0700"))
            .with_context(|| format!("mounting a {kind} at {place}"))?;
    }
    allow_open_files()?;
    let pins = Path::new(BPFFS).join(format!("pomguard-{}", process::id()));
    Ok(Sandbox { pins, files: FILES.into() })
}

/// Lets this process open as many files as the listeners and connections need.
pub(crate) fn allow_open_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < OPEN_FILES {
        // Within the hard limit anyone may raise it; beyond, only who has CAP_SYS_RESOURCE.
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard.max(OPEN_FILES)).with_context(|| {
            format!("a run opens {OPEN_FILES} files at most, and the limit is {hard} here (ulimit -Hn)")
        })?;
    }
    Ok(())
}
