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

/// A server whose daemon answers every request with its verb; it ends with the test's runtime.
struct Server {
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = listen(&path).unwrap();
            let (commands, mut waiting) = mpsc::channel::<Command>(4);
            tokio::spawn(serve(listener, "no such group".to_owned(), commands));
            tokio::spawn(async move {
                while let Some(command) = waiting.recv().await {
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

/// The server serves root; a developer without root has nothing to test here.
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
    for verb in ["status", "confirm", "panic off"] {
        assert_eq!(said(&mut stream), format!("{{\"done\":\"{verb}\"}}\n"));
    }
}

/// CP-02.
#[test]
fn malformed_and_oversized_requests_are_refused_and_others_served() {
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
                assert_eq!(server.asks(Request::Status).unwrap(), "status", "beside {number} others");
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
