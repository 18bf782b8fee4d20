//! Asks the daemon, for the command line.

use std::{
    env,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use serde::de::DeserializeOwned;

use super::{
    frame::Lines,
    protocol::{Message, Reply, Request, VERSION},
    socket,
};

/// Longest reply: a metrics page of 8,192 rows is a few megabytes.
const REPLY: usize = 64 << 20;
/// How long the daemon may take. Compiling 100,000 tuples takes it about a second.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes taken at a time.
const CHUNK: usize = 64 << 10;

/// No daemon answers at the socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "no daemon answers at {path}: {source} (`systemctl status pomguard` says why; what is in force stays in force without it)"
)]
pub struct NoDaemon {
    /// The socket.
    path: String,
    /// Why.
    source: io::Error,
}

/// Sends one request and waits for its reply.
///
/// # Errors
/// [`NoDaemon`] when nobody listens; the daemon's own words when it refuses.
pub fn ask<T: DeserializeOwned>(runtime: &Path, request: Request, why: Option<&str>) -> anyhow::Result<T> {
    let path = socket(runtime);
    let mut stream =
        UnixStream::connect(&path).map_err(|source| NoDaemon { path: path.display().to_string(), source })?;
    is_daemon(&stream).with_context(|| format!("ask {}", path.display()))?;
    stream.set_read_timeout(Some(PATIENCE)).context("bound the wait for an answer")?;
    let message = Message { version: VERSION, why: why.map(str::to_owned), claimed: claimed_name(), request };
    let mut line = serde_json::to_vec(&message)?;
    line.push(b'\n');
    // A daemon that turns us away closes at once; what it said is still there to be read.
    let sent = stream.write_all(&line);
    let mut lines = Lines::new(REPLY);
    let mut chunk = vec![0; CHUNK];
    loop {
        if let Some(line) = lines.next_line()? {
            return serde_json::from_slice::<Reply>(&line).context("read the daemon's answer")?.into_result();
        }
        match stream.read(&mut chunk) {
            Ok(0) => {
                sent.context("ask the daemon")?;
                bail!("the daemon closed the connection without an answer: its log says more");
            }
            Ok(length) => lines.feed(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                sent.context("ask the daemon")?;
                return Err(error).context("wait for the daemon's answer");
            }
        }
    }
}

/// Refuses a socket that somebody else than root, or this user, listens on: the settings that name it may be in
/// other hands.
fn is_daemon(stream: &UnixStream) -> anyhow::Result<()> {
    let listener = getsockopt(stream, PeerCredentials).context("ask the kernel who listens")?.uid();
    if listener != 0 && listener != geteuid().as_raw() {
        bail!(
            "uid {listener} listens there, and not the daemon: `chown root` the settings that name this socket"
        );
    }
    Ok(())
}

/// Who the environment says is at the keyboard; for the record only.
fn claimed_name() -> Option<String> {
    ["SUDO_USER", "LOGNAME", "USER"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .map(|name| name.chars().take(64).collect())
}
