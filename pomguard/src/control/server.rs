//! Listens on the control socket and hands each request to the daemon.
//!
//! Bounded in every way: connections at once, bytes of a request, time for one. When all places are
//! taken, the connection that has waited longest without a whole request makes room.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use log::{debug, info, warn};
use nix::unistd::Group;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{
    frame::{Lines, REQUEST},
    peer::{Access, Peer},
    protocol::{Message, Reply, read},
};
use crate::observe::printable::printable;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// How long a request may take to come, and a reply to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes taken from a connection at a time.
const CHUNK: usize = 4_096;

/// A request on its way to the daemon.
#[derive(Debug)]
pub struct Command {
    /// What is wanted, and what for.
    pub message: Message,
    /// By whom.
    pub peer: Peer,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

/// Makes the socket. One that an earlier daemon left is replaced; anything else in its place is not.
///
/// The caller holds the lock that only one daemon has.
///
/// # Errors
/// When the folder or what lies there could have been prepared by somebody else.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let own = nix::unistd::geteuid().as_raw();
    let refuse = |what: &Path, problem: &str| {
        Err(io::Error::other(format!("{} is not safe to use: {problem}", what.display())))
    };
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let facts = fs::symlink_metadata(folder)?;
    if !facts.is_dir() || facts.uid() != own || facts.mode() & 0o022 != 0 {
        return refuse(folder, "it is no folder of ours that only we can write to");
    }
    match fs::symlink_metadata(path) {
        Ok(facts) if facts.file_type().is_socket() && facts.uid() == own => fs::remove_file(path)?,
        Ok(_) => return refuse(path, "something that is no socket of ours is in its place; remove it"),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
        Err(fault) => return Err(fault),
    }
    let listener = UnixListener::bind(path)?;
    // Who may say what goes by the credentials of each connection, so anybody may connect.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// A connection that is being served.
struct Served {
    task: AbortHandle,
    /// Its request is with the daemon: it is not in anybody's way.
    busy: Arc<AtomicBool>,
}

/// Serves until it is dropped; `readers` is the group whose members may ask.
pub async fn serve(listener: UnixListener, readers: String, commands: mpsc::Sender<Command>) {
    let mut served: VecDeque<Served> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(fault) => {
                // Out of descriptors, most likely: make room rather than spin.
                warn!("a connection to the control socket was lost: {fault}");
                make_room(&mut served, 0);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some((peer, access)) = admit(&stream, &readers) else {
            turn_away(&stream);
            continue;
        };
        if !make_room(&mut served, CONNECTIONS - 1) {
            continue;
        }
        let busy = Arc::new(AtomicBool::new(false));
        let conversation = converse(stream, peer, access, commands.clone(), Arc::clone(&busy));
        let task = tokio::spawn(async move {
            if let Err(fault) = conversation.await {
                debug!("a control connection ended: {fault}");
            }
        });
        served.push_back(Served { task: task.abort_handle(), busy });
    }
}

/// Brings the number of connections down to `most`: those that are over, then those that have waited
/// longest. False when all that are left wait for the daemon.
fn make_room(served: &mut VecDeque<Served>, most: usize) -> bool {
    served.retain(|connection| !connection.task.is_finished());
    while served.len() > most {
        let Some(idle) = served.iter().position(|it| !it.busy.load(Ordering::Relaxed)) else { return false };
        if let Some(connection) = served.remove(idle) {
            connection.task.abort();
        }
    }
    true
}

/// Who connected and what they may; none when that is nothing.
fn admit(stream: &UnixStream, readers: &str) -> Option<(Peer, Access)> {
    let peer = match Peer::of(stream) {
        Ok(peer) => peer,
        Err(fault) => {
            warn!("the kernel does not say who connected to the control socket: {fault}");
            return None;
        }
    };
    let group = if peer.uid == 0 { None } else { group(readers) };
    let access = peer.access(group);
    if access.is_none() {
        debug!("{peer} may not use the control socket");
    }
    access.map(|access| (peer, access))
}

/// The number of a group; none when there is no such group, which is what most machines have.
fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// Says no without waiting: the reply fits the socket's buffer, or is lost.
fn turn_away(stream: &UnixStream) {
    let told = Reply::Refused(
        "only root, and members of the group that `[control] group` names, may use this socket".to_owned(),
    );
    let _ = stream.try_write(&told.line());
}

/// Takes requests one after the other and answers each, until one side has enough.
async fn converse(
    mut stream: UnixStream,
    peer: Peer,
    access: Access,
    commands: mpsc::Sender<Command>,
    busy: Arc<AtomicBool>,
) -> io::Result<()> {
    let mut lines = Lines::new(REQUEST);
    loop {
        let line = match next_request(&mut stream, &mut lines).await? {
            Some(Ok(line)) => line,
            Some(Err(told)) => return send(&mut stream, &Reply::Refused(told)).await,
            None => return Ok(()),
        };
        busy.store(true, Ordering::Relaxed);
        let reply = match read(&line) {
            Ok(message) => ask(message, &peer, access, &commands).await,
            Err(told) => Reply::Refused(told),
        };
        busy.store(false, Ordering::Relaxed);
        send(&mut stream, &reply).await?;
    }
}

/// The next line; what to say where it is too long; none at the end.
async fn next_request(
    stream: &mut UnixStream,
    lines: &mut Lines,
) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let until = Instant::now() + PATIENCE;
    let mut chunk = [0; CHUNK];
    loop {
        match lines.next_line() {
            Ok(Some(line)) => return Ok(Some(Ok(line))),
            Ok(None) => {}
            Err(fault) => return Ok(Some(Err(fault.to_string()))),
        }
        match timeout_at(until, stream.read(&mut chunk)).await?? {
            0 => return Ok(None),
            length => lines.feed(chunk.get(..length).unwrap_or_default()),
        }
    }
}

/// Hands a request to the daemon and waits for what it says.
async fn ask(message: Message, peer: &Peer, access: Access, commands: &mpsc::Sender<Command>) -> Reply {
    let verb = message.request.verb();
    if message.request.changes() {
        if access != Access::Full {
            warn!("{peer}: {verb} refused, only root may change anything");
            return Reply::Refused(format!("only root may `{verb}`; you may ask for status and metrics"));
        }
        let claimed = message.claimed.as_deref().map_or("nobody", |name| name);
        let why = message.why.as_deref().unwrap_or("none given");
        info!("{peer} (claims to be {}): {verb}; reason: {}", printable(claimed), printable(why));
    }
    let (answer, answered) = oneshot::channel();
    let command = Command { message, peer: peer.clone(), answer };
    if commands.send(command).await.is_err() {
        return Reply::Refused("the daemon is stopping".to_owned());
    }
    answered.await.unwrap_or_else(|_| Reply::Refused("the daemon is stopping".to_owned()))
}

async fn send(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    timeout_at(Instant::now() + PATIENCE, stream.write_all(&reply.line())).await?
}

#[cfg(test)]
mod tests;
