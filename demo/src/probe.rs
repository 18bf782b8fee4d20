//! Opens real connections between the machines and returns their outcomes.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::{StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, UdpSocket},
    time::timeout,
};

use super::{
    layout::{Family, Machine},
    plan::Attempt,
    progress::Progress,
    site::Site,
};

/// The timeout of an attempt, and the number of attempts at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) patience: Duration,
    pub(super) at_once: usize,
}

impl Pace {
    /// For allowed attempts: long enough to send a lost packet again twice.
    pub(super) const LISTED: Self = Self { patience: Duration::from_secs(4), at_once: 128 };
    /// For denied attempts: a drop is silent, so every attempt takes this long. The drop counters show that
    /// the packet was dropped and is not late.
    pub(super) const DENIED: Self = Self { patience: Duration::from_millis(300), at_once: 1024 };
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The connection opened, and the sent data came back.
    Answered,
    /// The machine answered that nobody listens: packets passed in both directions.
    Refused,
    /// No answer.
    Silent,
    /// Another error.
    Failed(String),
}

impl Outcome {
    /// Returns true if a packet arrived and an answer came back.
    pub(super) fn reached(&self) -> bool {
        matches!(self, Self::Answered | Self::Refused)
    }
}

/// Tries TCP connections and returns their outcomes, in the order of the attempts.
pub(super) async fn connect_all(
    site: &Site,
    machines: &[Machine],
    attempts: &[Attempt],
    pace: Pace,
    progress: &Progress,
) -> Result<Vec<Outcome>> {
    let mut outcomes = stream::iter(attempts)
        .map(|attempt| {
            let local = SocketAddr::new(
                machines[attempt.from].address(attempt.family),
                attempt.source_port.unwrap_or(0),
            );
            let remote = SocketAddr::new(machines[attempt.to].address(attempt.family), attempt.port);
            site.station(attempt.from).spawn(connect(local, remote, pace.patience))
        })
        .buffered(pace.at_once);
    let mut results = Vec::with_capacity(attempts.len());
    while let Some(outcome) = outcomes.next().await {
        results.push(outcome?);
        progress.count(results.len(), attempts.len());
    }
    Ok(results)
}

/// Sends one datagram per attempt. The site records the arrivals.
pub(super) async fn send_all(site: &Site, machines: &[Machine], attempts: &[Attempt]) -> Result<()> {
    let mut senders = Vec::new();
    for (from, sender) in machines.iter().enumerate() {
        let own: Vec<(SocketAddr, String)> = attempts
            .iter()
            .filter(|attempt| attempt.from == from)
            .map(|attempt| {
                let receiver = &machines[attempt.to];
                let text = format!("{} → {} at UDP {}", sender.name, receiver.name, attempt.port);
                (SocketAddr::new(receiver.address(attempt.family), attempt.port), text)
            })
            .collect();
        let local = Family::BOTH.map(|family| SocketAddr::new(sender.address(family), 0));
        senders.push(site.station(from).spawn(send(local, own)));
    }
    for sender in senders {
        sender.await??;
    }
    tokio::time::sleep(Pace::DENIED.patience).await;
    Ok(())
}

async fn connect(local: SocketAddr, remote: SocketAddr, patience: Duration) -> Outcome {
    let started = Instant::now();
    let stream = match timeout(patience, open(local, remote)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return read(&error),
        Err(_) => return Outcome::Silent,
    };
    match timeout(patience.max(Duration::from_secs(1)), converse(stream, remote)).await {
        Ok(Ok(())) => Outcome::Answered,
        Ok(Err(error)) => Outcome::Failed(format!("connected, then {error}")),
        Err(_) => Outcome::Failed(format!("connected, then silent for {:?}", started.elapsed())),
    }
}

async fn open(local: SocketAddr, remote: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if local.port() != 0 {
        // Many attempts share the port; each has another destination.
        socket.set_reuseaddr(true)?;
        socket.bind(local)?;
    }
    socket.connect(remote).await
}

async fn converse(mut stream: tokio::net::TcpStream, remote: SocketAddr) -> io::Result<()> {
    let said = format!("is this {remote}?");
    stream.write_all(said.as_bytes()).await?;
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard).await?;
    if heard == said.as_bytes() { Ok(()) } else { Err(io::Error::other("another text came back")) }
}

fn read(error: &io::Error) -> Outcome {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut,
    };
    match error.kind() {
        ConnectionRefused | ConnectionReset => Outcome::Refused,
        HostUnreachable | NetworkUnreachable | PermissionDenied | TimedOut => Outcome::Silent,
        _ => Outcome::Failed(error.to_string()),
    }
}

async fn send(local: [SocketAddr; 2], messages: Vec<(SocketAddr, String)>) -> io::Result<()> {
    let [v4, v6] = local;
    let (v4, v6) = (UdpSocket::bind(v4).await?, UdpSocket::bind(v6).await?);
    for (number, (to, text)) in messages.into_iter().enumerate() {
        let socket = if to.is_ipv4() { &v4 } else { &v6 };
        // Some drops on its own machine are reported to the sender. Such an error is not an arrival.
        let _ = socket.send_to(text.as_bytes(), to).await;
        if number % 64 == 0 {
            // The receivers share two cores with the senders. The pause lets them empty their queues.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}
