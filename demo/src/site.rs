//! The running site: every machine is a network namespace on one switch, and listens.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use pomguard_netlab::{Namespace, Port, Station, Switch};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
};

use super::layout::{Machine, PREFIX_V4, PREFIX_V6};

/// The interface of every machine, which pomguard guards.
pub(super) const INTERFACE: &str = "eth0";

/// Size of the queue of packets that wait for a neighbour's address to be resolved.
const WAITING_BYTES: &str = "8388608";

/// All machines, connected.
pub(super) struct Site {
    // Declared first: stations end before the namespaces they are in.
    stations: Vec<Station>,
    namespaces: Vec<Namespace>,
    switch: Switch,
    heard: Heard,
}

/// Datagrams that arrived, as "sender → receiver".
type Heard = Arc<Mutex<Vec<String>>>;

impl Site {
    /// Builds the machines and cables.
    pub(super) fn build(machines: &[Machine]) -> Result<Self> {
        let switch = Switch::new("switch")?;
        let mut site = Self { stations: Vec::new(), namespaces: Vec::new(), switch, heard: Heard::default() };
        for machine in machines {
            let namespace = Namespace::new(machine.name)?;
            let port = Port::new(INTERFACE)
                .address(ipnet::IpNet::new(machine.v4.into(), PREFIX_V4)?)
                .address(ipnet::IpNet::new(machine.v6.into(), PREFIX_V6)?);
            site.switch.join(&namespace, &port)?;
            // Hundreds of attempts begin before the neighbour is known. None may be lost before pomguard,
            // which must count all of them.
            for family in ["ipv4", "ipv6"] {
                let path = format!("net/{family}/neigh/{INTERFACE}/unres_qlen_bytes");
                namespace.set_sysctl(&path, WAITING_BYTES)?;
            }
            site.stations.push(namespace.station()?);
            site.namespaces.push(namespace);
        }
        Ok(site)
    }

    /// Makes every machine listen at these ports: TCP echoes, UDP records.
    pub(super) async fn listen(&self, ports: &BTreeSet<u16>) -> Result<()> {
        for (station, namespace) in self.stations.iter().zip(&self.namespaces) {
            let (ports, heard) = (ports.clone(), Arc::clone(&self.heard));
            let name = namespace.name().to_owned();
            station
                .spawn(async move {
                    for port in ports {
                        open(port, &heard).with_context(|| format!("{name} cannot listen at port {port}"))?;
                    }
                    Ok::<_, anyhow::Error>(())
                })
                .await??;
        }
        Ok(())
    }

    pub(super) fn namespace(&self, machine: usize) -> &Namespace {
        &self.namespaces[machine]
    }

    pub(super) fn station(&self, machine: usize) -> &Station {
        &self.stations[machine]
    }

    /// Returns the datagrams that arrived since the last call.
    pub(super) fn take_heard(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens both listeners of a port, for both families. Runs on the machine's own runtime.
fn open(port: u16, heard: &Heard) -> Result<()> {
    let any = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
    let tcp = TcpSocket::new_v6()?;
    tcp.bind(any)?;
    tokio::spawn(serve(tcp.listen(1024)?));
    let udp = std::net::UdpSocket::bind(any)?;
    udp.set_nonblocking(true)?;
    tokio::spawn(take_note(UdpSocket::from_std(udp)?, Arc::clone(heard)));
    Ok(())
}

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 128];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn take_note(socket: UdpSocket, heard: Heard) {
    let mut buffer = [0; 128];
    while let Ok((length, _)) = socket.recv_from(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}
