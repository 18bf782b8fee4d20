//! Sends requests to the daemon, for the command line.

use std::{
    env,
    io::{self, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, getsockopt,
        socket as make_socket, sockopt::PeerCredentials,
    },
    unistd::geteuid,
};
use serde::de::DeserializeOwned;

use super::{
    frame::Lines,
    protocol::{Message, Reply, Request, Until, VERSION},
    socket,
};

/// The longest reply, in bytes: a metrics page of 8,192 rows is a few megabytes.
const REPLY: usize = 64 << 20;
/// The longest time for an answer. The daemon takes about a second to compile 100,000 tuples.
const PATIENCE: Duration = Duration::from_secs(120);
/// The shortest timeout: a socket takes 0 as no timeout at all.
const SHORTEST: Duration = Duration::from_millis(1);
/// The number of bytes per read.
const CHUNK: usize = 64 << 10;

/// No daemon answers at the socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "no daemon answers at {path}: {cause} (`systemctl status pomguard` says why; what is in force stays in force without it)"
)]
pub struct NoDaemon {
    /// The socket.
    path: String,
    /// The error of the connection. The message has it, so it is no source: a chain would repeat it.
    cause: io::Error,
}

/// A process listens on the socket and does not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the daemon does not answer within {} s", within.as_secs())]
pub struct NoAnswer {
    /// The time that the client waited.
    within: Duration,
}

/// Sends one request and waits for the reply.
///
/// # Errors
/// [`NoDaemon`] if nobody listens; the daemon's message if the daemon refuses.
pub fn ask<T: DeserializeOwned>(runtime: &Path, request: Request, why: Option<&str>) -> anyhow::Result<T> {
    exchange(runtime, request, why, None)
}

/// Sends one request, which becomes void if nobody answers within this time.
///
/// # Errors
/// The errors of [`ask`], and [`NoAnswer`].
pub fn ask_within<T: DeserializeOwned>(
    runtime: &Path,
    request: Request,
    why: Option<&str>,
    within: Duration,
) -> anyhow::Result<T> {
    exchange(runtime, request, why, Some(within))
}

/// Connects. If the queue of the socket is full because the daemon accepts no connections, waits at most
/// `patience`.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = make_socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(patience))?;
    connect_to(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

fn exchange<T: DeserializeOwned>(
    runtime: &Path,
    request: Request,
    why: Option<&str>,
    within: Option<Duration>,
) -> anyhow::Result<T> {
    let path = socket(runtime);
    let patience = within.unwrap_or(PATIENCE).max(SHORTEST);
    let begun = Instant::now();
    let mut stream = match connect(&path, patience) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!(NoAnswer { within: patience }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
            "{}: permission denied: whether a daemon answers cannot be told; type it with sudo",
            path.display()
        ),
        connected => connected.map_err(|cause| NoDaemon { path: path.display().to_string(), cause })?,
    };
    is_daemon(&stream).with_context(|| format!("ask {}", path.display()))?;
    let until = within.map(Until::after);
    let message =
        Message { version: VERSION, why: why.map(str::to_owned), claimed: claimed_name(), until, request };
    let mut line = serde_json::to_vec(&message)?;
    line.push(b'\n');
    // A daemon that refuses the client closes at once; the reply can still be read.
    let sent = stream.write_all(&line);
    let mut lines = Lines::new(REPLY);
    let mut chunk = vec![0; CHUNK];
    loop {
        if let Some(line) = lines.next_line()? {
            return serde_json::from_slice::<Reply>(&line).context("read the daemon's answer")?.into_result();
        }
        let left = patience.saturating_sub(begun.elapsed()).max(SHORTEST);
        stream.set_read_timeout(Some(left)).context("bound the wait for an answer")?;
        match stream.read(&mut chunk) {
            Ok(0) => {
                sent.context("ask the daemon")?;
                bail!("the daemon closed the connection without an answer: its log says more");
            }
            Ok(length) => lines.feed(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && within.is_some() => {
                bail!(NoAnswer { within: patience });
            }
            Err(error) => {
                sent.context("ask the daemon")?;
                return Err(error).context("wait for the daemon's answer");
            }
        }
    }
}

/// Refuses a socket on which another user than root or this user listens: the settings that name the socket
/// may be under the control of somebody else.
fn is_daemon(stream: &UnixStream) -> anyhow::Result<()> {
    let listener = getsockopt(stream, PeerCredentials).context("ask the kernel who listens")?.uid();
    if listener != 0 && listener != geteuid().as_raw() {
        bail!(
            "uid {listener} listens there, and not the daemon: `chown root` the settings that name this socket"
        );
    }
    Ok(())
}

/// Returns the login name that the environment claims; for the record only.
pub fn claimed_name() -> Option<String> {
    ["SUDO_USER", "LOGNAME", "USER"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .map(|name| name.chars().take(64).collect())
}
