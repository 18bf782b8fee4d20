//! One network namespace, held by a file descriptor.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    net::IpAddr,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    panic,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Pid, getpid, getppid},
};
use rtnetlink::{Handle, RouteMessageBuilder};

/// A network namespace. The namespace ends with the last handle, socket or process that holds it.
#[derive(Debug)]
pub struct Namespace {
    pub(crate) name: String,
    handle: OwnedFd,
}

impl Namespace {
    /// Creates a namespace with the loopback interface up. `name` is for messages only.
    ///
    /// IPv6 is quiet: no duplicate address detection and no router solicitations, so that a test which counts
    /// packets sees only its own.
    pub fn new(name: &str) -> Result<Self> {
        // The new namespace belongs to the thread that unshared it. The descriptor keeps the namespace when
        // the thread ends.
        let handle = thread::Builder::new()
            .name(format!("netns-{name}"))
            .spawn(|| -> Result<OwnedFd> {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                Ok(File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")?.into())
            })?
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
            .with_context(|| format!("making the network namespace {name}"))?;
        Self { name: name.to_owned(), handle }.made_ready()
    }

    /// Returns the namespace of the calling thread, prepared like a new one. For a machine that belongs to
    /// the test: an emulated one.
    pub fn own(name: &str) -> Result<Self> {
        let handle = File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")?.into();
        Self { name: name.to_owned(), handle }.made_ready()
    }

    fn made_ready(self) -> Result<Self> {
        self.link("lo").up()?;
        if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
            for scope in ["all", "default"] {
                self.set_sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
                self.set_sysctl(&format!("net/ipv6/conf/{scope}/router_solicitations"), "0")?;
            }
        }
        Ok(self)
    }

    /// Returns the name given to [`Namespace::new`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside the namespace, on a thread of its own. A panic in `work` continues in the caller.
    ///
    /// A socket made in `work` stays in the namespace wherever it is used later. A child process started in
    /// `work` with [`die_with_parent`] would die with the thread: use [`Namespace::command`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            thread::Builder::new()
                .name(format!("in-{}", self.name))
                .spawn_scoped(scope, || {
                    self.enter()?;
                    Ok(work())
                })?
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// Returns a command that runs inside the namespace and is killed when the *thread* that spawns it ends.
    /// Spawn the command from a thread that lives long enough.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let handle = self.handle.try_clone()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(setns(handle.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
        die_with_parent(&mut command);
        Ok(command)
    }

    /// Adds a route to `destination` through `gateway`.
    pub fn add_route(&self, destination: IpNet, gateway: IpAddr) -> Result<()> {
        self.netlink(async |netlink| {
            let route = RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(destination.addr(), destination.prefix_len())?
                .gateway(gateway)?
                .build();
            Ok(netlink.route().add(route).execute().await?)
        })
        .with_context(|| format!("adding the route to {destination} in {}", self.name))
    }

    /// Sets a value under `/proc/sys` as this namespace sees it, for example `net/ipv4/ip_forward`.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{path}"), value))?
            .with_context(|| format!("setting {path} in {}", self.name))
    }

    /// Moves the calling thread into the namespace for good.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.handle, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering the network namespace {}", self.name))
    }

    /// Runs an rtnetlink exchange inside the namespace.
    pub(crate) fn netlink<T: Send>(&self, talk: impl AsyncFnOnce(Handle) -> Result<T> + Send) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                talk(handle).await
            })
        })?
    }

    /// Returns the index of an interface.
    pub(crate) fn index(&self, link: &str) -> Result<u32> {
        self.run(|| nix::net::if_::if_nametoindex(link))?
            .map_err(|errno| anyhow!("no interface {link} in {}: {errno}", self.name))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Namespace {
    /// Returns a second handle of the same namespace.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        Ok(Self { name: self.name.clone(), handle: self.handle.try_clone()? })
    }

    /// Returns the descriptor's number, for netlink attributes.
    pub(crate) fn raw(&self) -> i32 {
        self.handle.as_raw_fd()
    }
}

/// Makes the kernel kill the command's process when the thread that spawned it ends, even by SIGKILL.
pub fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // If the parent died before the line above, no signal would ever come. (Inside another PID
            // namespace a living parent can look like 0.)
            let now = getppid();
            if now != parent && now != Pid::from_raw(0) {
                return Err(io::Error::other("the parent is gone"));
            }
            Ok(())
        });
    }
}
