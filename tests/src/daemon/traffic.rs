//! Connections between the machines.

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

/// The ports at which every machine runs an echo server.
const ECHOING: [u16; 4] = [LISTED, REMOVABLE, UNLISTED, LISTED_OUT];

/// Returns the time to wait for an answer that must not come: long enough for one SYN, not for its
/// repetition.
fn long_enough() -> Duration {
    Duration::from_millis(if emulated() { 4_000 } else { 400 })
}

impl Lab {
    /// Starts echo servers on every machine at every port, listed or not, for IPv4 and IPv6.
    pub(super) fn serve(&mut self) {
        for station in [&self.server, &self.peer, &self.stranger].map(|it| it.station().unwrap()) {
            echo_everywhere(&station);
            self.keep(station);
        }
    }
}

impl Lab {
    /// Asserts that packets of the general path get through: address resolution, and the opening of a flow by
    /// the server.
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

/// Returns true if a machine can open a port of another machine. Panics if the port refuses the connection.
pub fn opens(from: &Namespace, to: impl Into<IpAddr>, port: u16) -> bool {
    attempt(from, to.into(), port, patience(5)).is_some_and(|mut connection| connection.answers())
}

/// Returns true if nothing answers when a machine opens a port of another machine.
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

/// Returns true if no answer came. Some kernels refuse a packet that may not leave to the sender at once.
fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | PermissionDenied)
}

/// An established connection to an echo server.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Opens a connection, which must succeed.
    pub fn open(from: &Namespace, to: impl Into<IpAddr>, port: u16) -> Self {
        let to = to.into();
        attempt(from, to, port, patience(5)).unwrap_or_else(|| panic!("{to} does not answer at {port}"))
    }

    /// Address of the near end.
    pub fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Address of the far end.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer_addr().unwrap()
    }

    /// Returns true if the echo of a message comes back.
    pub fn answers(&mut self) -> bool {
        self.carries(b"still there?", patience(5))
    }

    /// Returns true if no echo comes back: the message or its echo was lost.
    pub fn is_cut(&mut self) -> bool {
        !self.carries(b"anybody?", long_enough())
    }

    /// Sends `words` and returns true if they come back.
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

/// Reads the metrics page of the machine in whose namespace the calling thread is.
pub fn scrape() -> String {
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS));
    let mut stream = TcpStream::connect_timeout(&from, patience(5)).unwrap();
    stream.set_read_timeout(Some(patience(5))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
