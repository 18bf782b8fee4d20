//! Listens on the control socket and hands each request to the daemon.
//!
//! Everything is bounded: the number of connections, the bytes of a request, the time for a request. If all
//! places are taken, the connection that has waited longest without a complete request is closed.
//!
//! Root has separate places and a separate queue. Other users cannot take a place that root needs, regardless
//! of their number, and the daemon serves requests of root first.

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
    sync::{Mutex, mpsc, oneshot},
    task::{AbortHandle, spawn_blocking},
    time::{Instant, timeout_at},
};

use super::{
    frame::{Lines, REQUEST},
    peer::{Access, Client},
    protocol::{Message, Reply, read},
};
use crate::observe::printable::printable;

/// The most connections of root at once.
const OF_ROOT: usize = 16;
/// The most connections of other users at once.
const OF_OTHERS: usize = 48;
/// The most requests of each kind that may wait for the daemon.
const WAITING: usize = 16;
/// The age at which the number of the group is looked up again. The look-up may ask a server in the network.
const GROUP_AGE: Duration = Duration::from_secs(2);
/// The time within which a request must arrive, and the client must read a reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of bytes per read.
const CHUNK: usize = 4_096;

/// A request on its way to the daemon.
#[derive(Debug)]
pub struct Command {
    /// The request and the reason.
    pub message: Message,
    /// The client.
    pub peer: Client,
    /// The channel for the answer.
    pub answer: oneshot::Sender<Reply>,
}

/// The daemon's end: requests of root, and requests of other users.
#[derive(Debug)]
pub struct Requests {
    of_root: mpsc::Receiver<Command>,
    of_others: mpsc::Receiver<Command>,
}

/// The server's end of [`Requests`].
#[derive(Clone, Debug)]
pub struct Queues {
    of_root: mpsc::Sender<Command>,
    of_others: mpsc::Sender<Command>,
}

/// Returns both ends.
#[must_use]
pub fn queues() -> (Queues, Requests) {
    let (to_root, of_root) = mpsc::channel(WAITING);
    let (to_others, of_others) = mpsc::channel(WAITING);
    (Queues { of_root: to_root, of_others: to_others }, Requests { of_root, of_others })
}

impl Requests {
    /// Waits for a request; requests of root come first. Returns `None` if the server has ended.
    pub async fn next(&mut self) -> Option<Command> {
        tokio::select! {
            biased;
            Some(command) = self.of_root.recv() => Some(command),
            Some(command) = self.of_others.recv() => Some(command),
            else => None,
        }
    }
}

impl Queues {
    const fn of(&self, access: Access) -> &mpsc::Sender<Command> {
        match access {
            Access::Full => &self.of_root,
            Access::Read => &self.of_others,
        }
    }
}

/// The group whose members may read.
struct Readers {
    name: String,
    known: Mutex<Option<Known>>,
}

/// The result of a look-up.
#[derive(Clone, Copy)]
struct Known {
    at: Instant,
    /// The number of the group; `None` if the group does not exist, as on most machines.
    group: Option<u32>,
}

impl Readers {
    fn new(name: String) -> Self {
        Self { name, known: Mutex::new(None) }
    }

    /// Returns the result of a recent look-up.
    fn fresh(&self) -> Option<Known> {
        let known = *self.known.try_lock().ok()?;
        known.filter(|known| known.at.elapsed() < GROUP_AGE)
    }

    /// Looks up the number of the group, one look-up at a time and never on the thread that serves root.
    async fn group(&self) -> Option<u32> {
        let mut known = self.known.lock().await;
        if let Some(Known { at, group }) = *known
            && at.elapsed() < GROUP_AGE
        {
            return group;
        }
        let name = self.name.clone();
        let found = spawn_blocking(move || Group::from_name(&name).ok().flatten()).await.ok().flatten();
        let group = found.map(|group| group.gid.as_raw());
        *known = Some(Known { at: Instant::now(), group });
        group
    }
}

/// Makes the socket. Replaces a socket that an earlier daemon left, and nothing else.
///
/// The caller holds the lock that only one daemon has.
///
/// # Errors
/// If somebody else could have prepared the folder, or the file in the place of the socket.
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // The rights of a client depend on the credentials of each connection, so anybody may connect.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// A connection that is being served.
struct Served {
    task: AbortHandle,
    /// True if the request of this connection is with the daemon: then the connection is not closed to make
    /// room.
    busy: Arc<AtomicBool>,
}

/// Connections that are being served, oldest first.
#[derive(Default)]
struct Places(VecDeque<Served>);

/// A callback for each request that was denied, with the client and, if there was one, the verb.
pub type OnDenied = Arc<dyn Fn(&Client, Option<&str>) + Send + Sync>;

/// Serves until the future is dropped; `readers` is the group whose members may read.
pub async fn serve(listener: UnixListener, readers: String, queues: Queues, denied: OnDenied) {
    let readers = Arc::new(Readers::new(readers));
    let (mut of_root, mut of_others) = (Places::default(), Places::default());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Probably out of descriptors: make room instead of spinning. The places of root come last.
                warn!("a connection to the control socket was lost: {error}");
                if of_others.is_empty() {
                    of_root.make_room(0);
                }
                of_others.make_room(0);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = match Client::from_stream(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                warn!("the kernel does not say who connected to the control socket: {error}");
                continue;
            }
        };
        let root = peer.access(None).is_some();
        // While the number of the group is known, a client without rights takes no place.
        if !root && readers.fresh().is_some_and(|known| peer.access(known.group).is_none()) {
            turn_away(&stream, &peer, &denied);
            continue;
        }
        let (places, most) = if root { (&mut of_root, OF_ROOT) } else { (&mut of_others, OF_OTHERS) };
        if !places.make_room(most - 1) {
            continue;
        }
        let busy = Arc::new(AtomicBool::new(false));
        let state = (Arc::clone(&readers), queues.clone(), Arc::clone(&denied));
        let exchange = admit(stream, peer, state, Arc::clone(&busy));
        let task = tokio::spawn(async move {
            if let Err(error) = exchange.await {
                debug!("a control connection ended: {error}");
            }
        });
        places.0.push_back(Served { task: task.abort_handle(), busy });
    }
}

impl Places {
    /// Returns true if no connection is being served.
    fn is_empty(&mut self) -> bool {
        self.0.retain(|connection| !connection.task.is_finished());
        self.0.is_empty()
    }

    /// Reduces the number of connections to `most`: closes connections that are over, then the ones that have
    /// waited longest. Returns false if all remaining connections wait for the daemon.
    fn make_room(&mut self, most: usize) -> bool {
        self.0.retain(|connection| !connection.task.is_finished());
        while self.0.len() > most {
            let Some(idle) = self.0.iter().position(|it| !it.busy.load(Ordering::Relaxed)) else {
                return false;
            };
            if let Some(connection) = self.0.remove(idle) {
                connection.task.abort();
            }
        }
        true
    }
}

/// Serves a client, if the client has any rights.
async fn admit(
    stream: UnixStream,
    peer: Client,
    (readers, queues, denied): (Arc<Readers>, Queues, OnDenied),
    busy: Arc<AtomicBool>,
) -> io::Result<()> {
    let access = match peer.access(None) {
        Some(access) => Some(access),
        None => peer.access(readers.group().await),
    };
    if let Some(access) = access {
        return converse(stream, peer, access, (queues.of(access).clone(), denied), busy).await;
    }
    turn_away(&stream, &peer, &denied);
    Ok(())
}

/// Refuses without waiting: the reply fits the socket's buffer, or is lost.
fn turn_away(stream: &UnixStream, peer: &Client, denied: &OnDenied) {
    debug!("{peer} may not use the control socket");
    denied(peer, None);
    let message = Reply::Refused(
        "only root, and members of the group that `[control] group` names, may use this socket: type it with sudo".to_owned(),
    );
    let _ = stream.try_write(&message.line());
}

/// Reads requests one after the other and answers each, until one side ends the connection.
async fn converse(
    mut stream: UnixStream,
    peer: Client,
    access: Access,
    (commands, denied): (mpsc::Sender<Command>, OnDenied),
    busy: Arc<AtomicBool>,
) -> io::Result<()> {
    let mut lines = Lines::new(REQUEST);
    loop {
        let line = match next_request(&mut stream, &mut lines).await? {
            Some(Ok(line)) => line,
            Some(Err(message)) => return send(&mut stream, &Reply::Refused(message)).await,
            None => return Ok(()),
        };
        busy.store(true, Ordering::Relaxed);
        let reply = match read(&line) {
            Ok(message) => ask(message, &peer, access, &commands, &denied).await,
            Err(message) => Reply::Refused(message),
        };
        busy.store(false, Ordering::Relaxed);
        send(&mut stream, &reply).await?;
    }
}

/// Returns the next line; a message for the client if the line is too long; `None` at the end.
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
            Err(error) => return Ok(Some(Err(error.to_string()))),
        }
        match timeout_at(until, stream.read(&mut chunk)).await?? {
            0 => return Ok(None),
            length => lines.feed(chunk.get(..length).unwrap_or_default()),
        }
    }
}

/// Hands a request to the daemon and waits for the reply.
async fn ask(
    message: Message,
    peer: &Client,
    access: Access,
    commands: &mpsc::Sender<Command>,
    denied: &OnDenied,
) -> Reply {
    let verb = message.request.verb();
    if message.request.changes() {
        if access != Access::Full {
            warn!("{peer}: {verb} refused, only root may change anything");
            denied(peer, Some(verb));
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
