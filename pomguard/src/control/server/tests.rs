use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::symlink, net::UnixStream as Plain},
    path::PathBuf,
    thread,
};

use super::*;
use crate::control::{
    client,
    protocol::{Request, VERSION},
    socket,
};

/// A server whose daemon answers every request with the verb; the server ends with the test's runtime.
struct Server {
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        Self::start_for("no such group")
    }

    /// Starts a server whose group of readers is `readers`.
    fn start_for(readers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = listen(&path).unwrap();
            let (queues, mut requests) = queues();
            tokio::spawn(serve(listener, readers.to_owned(), queues, Arc::new(|_, _| {})));
            tokio::spawn(async move {
                while let Some(command) = requests.next().await {
                    let verb = command.message.request.verb();
                    let _ = command.answer.send(Reply::Done(verb.into()));
                }
            });
        });
        Self { folder, _runtime: runtime }
    }

    fn path(&self) -> PathBuf {
        socket(self.folder.path())
    }

    fn connect(&self) -> Plain {
        let stream = Plain::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn asks(&self, request: Request) -> anyhow::Result<String> {
        client::ask(self.folder.path(), request, None)
    }
}

/// Returns true for root. The server serves root; a developer without root has nothing to test here.
fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn said(stream: &mut Plain) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with('\n') && stream.read(&mut byte).unwrap_or(0) == 1 {
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn a_request_gets_its_reply() {
    let server = Server::start();
    if root() {
        assert_eq!(server.asks(Request::Confirm).unwrap(), "confirm");
    } else {
        assert!(server.asks(Request::Confirm).unwrap_err().to_string().contains("only root"));
    }
}

/// CP-02.
#[test]
fn partial_and_pipelined_requests_are_answered_in_order() {
    if !root() {
        return;
    }
    let server = Server::start();
    let mut stream = server.connect();
    let line = |verb: &str| format!("{{\"version\":{VERSION},\"request\":{{\"verb\":\"{verb}\"}}}}\n");
    let all = format!("{}{}{}", line("status"), line("confirm"), line("panic-off"));
    for part in all.as_bytes().chunks(7) {
        stream.write_all(part).unwrap();
    }
    for verb in ["status", "confirm", "end of bypass and lockdown"] {
        assert_eq!(said(&mut stream), format!("{{\"done\":\"{verb}\"}}\n"));
    }
}

/// CP-02.
#[test]
fn malformed_and_oversized_requests_are_refused_alone() {
    if !root() {
        return;
    }
    let server = Server::start();
    let mut malformed = server.connect();
    malformed.write_all(b"\0\xff{]\nGET / HTTP/1.1\n").unwrap();
    assert!(said(&mut malformed).contains("refused"));
    assert!(said(&mut malformed).contains("refused"), "the line after it has a chance of its own");
    let mut oversized = server.connect();
    let _ = oversized.write_all(&vec![b'x'; 2 * REQUEST]);
    assert!(said(&mut oversized).contains("longer than 16384"));
    assert_eq!(said(&mut oversized), "", "and then it is over");
    assert_eq!(server.asks(Request::Status).unwrap(), "status");
}

/// CP-02: 1,000 clients that never finish their request.
#[test]
fn a_thousand_slow_clients_keep_nobody_out() {
    if !root() {
        return;
    }
    let server = Server::start();
    let slow: Vec<Plain> = (0..1_000)
        .map_while(|number| {
            let mut stream = Plain::connect(server.path()).ok()?;
            let _ = stream.write_all(b"{\"version\":");
            if number % 100 == 0 {
                assert_eq!(server.asks(Request::Status).unwrap(), "status", "alongside {number} others");
            }
            Some(stream)
        })
        .collect();
    assert!(slow.len() >= 900, "only {} could connect: the test's own limit of descriptors", slow.len());
    assert_eq!(server.asks(Request::Status).unwrap(), "status");
    let parallel: Vec<_> = (0..16)
        .map(|_| {
            let folder = server.folder.path().to_owned();
            thread::spawn(move || client::ask::<String>(&folder, Request::Status, None).unwrap())
        })
        .collect();
    for client in parallel {
        assert_eq!(client.join().unwrap(), "status");
    }
}

/// A group that all systems have.
const GROUP: &str = "daemon";

/// Calls `act` on a thread of another user, who is a member of [`GROUP`] or of none.
fn as_other<T: Send>(member: bool, act: impl FnOnce() -> T + Send) -> T {
    let group = if member { Group::from_name(GROUP).unwrap().unwrap().gid.as_raw() } else { 65_534 };
    let become_other = move || {
        for (call, id) in [(libc::SYS_setresgid, group), (libc::SYS_setresuid, 65_534)] {
            // SAFETY: the raw system call takes three numbers, and changes only this thread.
            assert_eq!(unsafe { libc::syscall(call, id, id, id) }, 0);
        }
    };
    thread::scope(|scope| {
        scope
            .spawn(|| {
                become_other();
                act()
            })
            .join()
            .unwrap()
    })
}

/// CP-02: any number of members of the group, and of strangers: none takes a place that root has or needs.
#[test]
fn askers_and_strangers_never_take_a_place_of_root() {
    if !root() {
        return;
    }
    for member in [true, false] {
        let server = Server::start_for(GROUP);
        fs::set_permissions(server.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let line = format!("{{\"version\":{VERSION},\"request\":{{\"verb\":\"confirm\"}}}}\n");
        let (first, rest) = line.split_at(20);
        let mut slow = server.connect();
        slow.write_all(first.as_bytes()).unwrap();
        let path = server.path();
        let crowd = as_other(member, move || -> Vec<Plain> {
            let connect = |_| {
                let mut stream = Plain::connect(&path).ok()?;
                let _ = stream.write_all(b"{\"version\":");
                Some(stream)
            };
            (0..800).map_while(connect).collect()
        });
        assert!(crowd.len() >= 400, "only {} could connect", crowd.len());
        assert_eq!(server.asks(Request::Confirm).unwrap(), "confirm", "a new request of root's");
        slow.write_all(rest.as_bytes()).unwrap();
        assert_eq!(said(&mut slow), "{\"done\":\"confirm\"}\n", "one that root had begun: {member}");
    }
}

#[test]
fn members_may_ask_and_strangers_are_told_why_not() {
    if !root() {
        return;
    }
    let server = Server::start_for(GROUP);
    fs::set_permissions(server.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        // Before and after the number of the group is known.
        assert_eq!(as_other(true, || server.asks(Request::Status)).unwrap(), "status");
        let refused = as_other(true, || server.asks(Request::Confirm)).unwrap_err().to_string();
        assert!(refused.contains("only root may `confirm`"), "{refused}");
        let refused = as_other(false, || server.asks(Request::Status)).unwrap_err().to_string();
        assert!(refused.contains("only root, and members"), "{refused}");
    }
}

#[tokio::test]
async fn request_of_root_is_served_before_those_that_waited_longer() {
    let (queues, mut requests) = queues();
    let command = |uid, verb| Command {
        message: Message { version: VERSION, why: None, claimed: None, until: None, request: verb },
        peer: Client { uid, pid: 1, login: None, groups: Vec::new() },
        answer: oneshot::channel().0,
    };
    for _ in 0..WAITING {
        queues.of(Access::Read).send(command(1_000, Request::Status)).await.unwrap();
    }
    queues.of(Access::Full).send(command(0, Request::Resume)).await.unwrap();
    assert_eq!(requests.next().await.unwrap().message.request, Request::Resume);
    for _ in 0..WAITING {
        assert_eq!(requests.next().await.unwrap().peer.uid, 1_000);
    }
    drop(queues);
    assert!(requests.next().await.is_none());
}

/// A client of root trusts only the daemon.
#[test]
fn socket_of_another_user_is_not_asked() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = socket(folder.path());
    let _listener = as_other(false, || std::os::unix::net::UnixListener::bind(&path).unwrap());
    let refused = client::ask::<String>(folder.path(), Request::Status, None).unwrap_err();
    assert!(format!("{refused:#}").contains("uid 65534 listens there"), "{refused:#}");
}

/// CP-03.
#[tokio::test]
async fn a_path_that_somebody_else_prepared_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(folder.path());
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(listen(&path).unwrap_err().to_string().contains("no socket of ours"));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(listen(&path).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(listen(&path).unwrap_err().to_string().contains("only we can write to"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(listen(&path).unwrap());
    listen(&path).expect("a socket that an earlier daemon left is replaced");
}
