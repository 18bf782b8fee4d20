//! Flows between the machines.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use pomguard_netlab::{Namespace, Station};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream as Stream},
};

use super::{LISTED, LISTED_OUT, Lab, PEER, REMOVABLE, SERVER, UNLISTED, emulated, files::METRICS, patience};

/// Ports that every machine echoes at.
const ECHOING: [u16; 4] = [LISTED, REMOVABLE, UNLISTED, LISTED_OUT];

/// How long an answer is waited for that shall not come: one SYN, not its repetition.
fn long_enough() -> Duration {
    Duration::from_millis(if emulated() { 4_000 } else { 400 })
}

impl Lab {
    /// Has every machine echo at every port, listed or not, IPv4 and IPv6.
    pub(super) fn serve(&mut self) {
        for station in [&self.server, &self.peer, &self.stranger].map(|it| it.station().unwrap()) {
            echo_everywhere(&station);
            self.keep(station);
        }
    }
}

impl Lab {
    /// Asserts that packets get through which the fast programs decide none of: address resolution, and what
    /// opens a flow of the server's.
    pub fn assert_general(&self, when: &str) {
        for namespace in [&self.server, &self.peer] {
            let flushed = namespace.command("ip").unwrap().args(["neigh", "flush", "all"]).status().unwrap();
            assert!(flushed.success(), "{when}: {}", namespace.name());
        }
        assert!(opens(&self.peer, SERVER, LISTED), "{when}: the server is not found or does not answer");
        assert!(opens(&self.server, PEER, LISTED_OUT), "{when}: the server cannot open what it may");
    }
}

fn echo_everywhere(station: &Station) {
    let (message, bound) = std::sync::mpsc::channel();
    station.spawn(async move {
        for port in ECHOING {
            let socket = TcpSocket::new_v6().unwrap();
            socket.bind((Ipv6Addr::UNSPECIFIED, port).into()).unwrap();
            tokio::spawn(accept(socket.listen(1024).unwrap()));
        }
        message.send(()).unwrap();
    });
    bound.recv().expect("every port can be bound");
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(echo(stream));
    }
}

async fn echo(mut stream: Stream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Whether a machine can open a port of another. A refusal counts as neither: it panics.
pub fn opens(from: &Namespace, to: impl Into<IpAddr>, port: u16) -> bool {
    attempt(from, to.into(), port, patience(5)).is_some_and(|mut connection| connection.answers())
}

/// Whether nothing answers when a machine opens a port of another.
pub fn is_shut(from: &Namespace, to: impl Into<IpAddr>, port: u16) -> bool {
    attempt(from, to.into(), port, long_enough()).is_none()
}

fn attempt(from: &Namespace, to: IpAddr, port: u16, within: Duration) -> Option<Connection> {
    let address = SocketAddr::new(to, port);
    match from.run(|| TcpStream::connect_timeout(&address, within)).unwrap() {
        Ok(stream) => Some(Connection(stream)),
        Err(error) if is_silence(&error) => None,
        Err(error) => panic!("{} to {address}: {error}", from.name()),
    }
}

/// Nothing came back. What may not leave is refused to the sender at once on some kernels.
fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | PermissionDenied)
}

/// An established connection to an echo.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Opens one; it must succeed.
    pub fn open(from: &Namespace, to: impl Into<IpAddr>, port: u16) -> Self {
        let to = to.into();
        attempt(from, to, port, patience(5)).unwrap_or_else(|| panic!("{to} does not answer at {port}"))
    }

    /// Its near end.
    pub fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Its far end.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer_addr().unwrap()
    }

    /// Whether a word comes back.
    pub fn answers(&mut self) -> bool {
        self.carries(b"still there?", patience(5))
    }

    /// Whether nothing comes back: what is sent is lost, one way or the other.
    pub fn is_cut(&mut self) -> bool {
        !self.carries(b"anybody?", long_enough())
    }

    /// Sends this and reads it back.
    pub fn carries(&mut self, words: &[u8], within: Duration) -> bool {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut heard = vec![0; words.len()];
        match self.0.write_all(words).and_then(|()| self.0.read_exact(&mut heard)) {
            Ok(()) => heard == words,
            Err(error) if is_silence(&error) => false,
            Err(error) => panic!("an established connection broke: {error}"),
        }
    }
}

/// What the metrics page of the machine says whose namespace the thread is in.
pub fn scrape() -> String {
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS));
    let mut stream = TcpStream::connect_timeout(&from, patience(5)).unwrap();
    stream.set_read_timeout(Some(patience(5))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
