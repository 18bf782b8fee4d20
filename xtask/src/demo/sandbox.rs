//! What the demo needs around it, arranged so that nothing stays when it ends, however it ends.

use std::{
    path::{Path, PathBuf},
    process, thread,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};
use tokio::signal::unix::{SignalKind, signal};

/// Where bpffs is mounted, everywhere.
const BPFFS: &str = "/sys/fs/bpf";
/// Two listeners per machine and port are 3,500; a thousand connections under way have two ends each.
const OPEN_FILES: u64 = 16_384;

/// Gives this thread, and what it starts, a bpffs of their own: pins vanish with the last process that
/// sees them. Call it before any thread or child that is to see them is started.
pub(super) fn enter() -> Result<()> {
    if !geteuid().is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run it as root");
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making the mounts private")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("mounting a bpffs at {BPFFS}"))?;
    allow_open_files()
}

/// The folder under which the daemons pin.
pub(super) fn pins() -> PathBuf {
    Path::new(BPFFS).join(format!("pomguard-demo-{}", process::id()))
}

/// Removes `directory` and ends the process at SIGINT, SIGTERM or SIGHUP. Everything else is the kernel's
/// to clear: it kills the daemons with us, and takes down the namespaces and the bpffs that nobody holds.
pub(super) fn end_at_signals(directory: &Path) -> Result<()> {
    let directory = directory.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => libc::SIGINT,
                _ = terminate.recv() => libc::SIGTERM,
                _ = hangup.recv() => libc::SIGHUP,
            }
        });
        let _ = std::fs::remove_dir_all(directory);
        eprintln!("\ninterrupted");
        process::exit(128 + number);
    })?;
    Ok(())
}

/// Lets this process open as many files as the listeners and connections need.
pub(super) fn allow_open_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < OPEN_FILES {
        // Within the hard limit anyone may raise it; beyond, only who has CAP_SYS_RESOURCE.
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard.max(OPEN_FILES)).with_context(|| {
            format!("the demo opens {OPEN_FILES} files at most, and the limit is {hard} here (ulimit -Hn)")
        })?;
    }
    Ok(())
}
