//! Flows that have ended, which the daemon removes after a look-up in the socket table.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use etherparse::PacketBuilder;
use nix::sys::socket::{setsockopt, sockopt};
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, Lab, PEER, PEER6, SERVER, Wire, scrape},
    packet::flag::{ACK, FIN, RST},
};

const PORT: u16 = 8_443;
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for three sweeps on a busy machine.
const SWEPT: Duration = Duration::from_secs(45);

/// Both ends of a connection from the server to the peer.
struct Pair {
    server: TcpStream,
    peer: TcpStream,
}

impl Pair {
    fn open(lab: &Lab, listener: &TcpListener, to: IpAddr) -> Self {
        let to = SocketAddr::new(to, PORT);
        let server = lab.server.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
        let (peer, _) = listener.accept().unwrap();
        Self { server, peer }
    }
}

/// Closes a connection by a RST.
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
    drop(stream);
}

/// Sends frames of the server and of the peer that no socket sends.
struct Forger<'a>(&'a Lab);

impl Forger<'_> {
    fn mac(&self) -> [[u8; 6]; 2] {
        [&self.0.server, &self.0.peer].map(|it| it.link(INTERFACE).state().unwrap().mac.unwrap())
    }

    /// Sends a segment to a port of the server, outside of every window.
    fn claims(&self, port: u16, flags: u8) {
        let [server, peer] = self.mac();
        let segment = PacketBuilder::ethernet2(peer, server).ipv4(PEER.octets(), SERVER.octets(), 64);
        let mut frame = Vec::new();
        let segment = segment.tcp(PORT, port, 0x1122_3344, 0);
        let segment = if flags & RST != 0 { segment.rst() } else { segment.fin().ack(1) };
        segment.write(&mut frame, &[]).unwrap();
        Wire::of(&self.0.peer).send(&frame);
    }

    /// Sends a SYN of the server, as if the server forwarded or translated the packet. The server's stack
    /// refuses the answer.
    fn opens(&self, port: u16) {
        let [server, peer] = self.mac();
        let segment = PacketBuilder::ethernet2(server, peer).ipv4(SERVER.octets(), PEER.octets(), 64);
        let mut frame = Vec::new();
        segment.tcp(port, PORT, 7, 1_000).syn().write(&mut frame, &[]).unwrap();
        Wire::of(&self.0.server).send(&frame);
    }
}

/// Waits until the flow table holds these numbers of opening, established, suspect and closed flows.
fn until(lab: &Lab, expected: [u64; 4], within: Duration) {
    let start = Instant::now();
    loop {
        let stats = lab.stats();
        let found =
            ["opening", "established", "suspect", "closed"].map(|state| stats.flows(&format!("tcp_{state}")));
        if found == expected {
            return;
        }
        assert!(
            start.elapsed() < within,
            "opening, established, suspect, closed: {found:?}, not {expected:?}"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn tp_11_tp_12_flows_leave_the_table_once_their_socket_is_gone() {
    let Some(lab) = Lab::with_one_cable("tp_11_tp_12_flows_leave_the_table_once_their_socket_is_gone") else {
        return;
    };
    lab.write_site(
        "[[allow]]\nname = \"service\"\nfrom = [\"server\"]\nto = [\"10.77.0.2\", \"fd00:77::2\"]\n\
         ports = \"8443-8444\"\nprotocol = \"tcp\"\n",
    );
    let _daemon = Daemon::start(&lab);
    let listener = lab.peer.run(|| TcpListener::bind(("::", PORT))).unwrap().unwrap();
    let families = [IpAddr::from(PEER), PEER6.into()];
    let open = |to| Pair::open(&lab, &listener, to);
    let mut kept = families.map(open);
    let ended = families.map(open);
    let mut half = open(PEER.into());
    for pair in families.map(open) {
        // The peer resets the connection: the server's stack has closed it, and sends nothing.
        reset(pair.peer);
        drop(pair.server);
    }
    for pair in ended {
        reset(pair.server);
    }
    // Nobody listens at this port.
    for to in families {
        let to = SocketAddr::new(to, PORT + 1);
        lab.server.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap_err();
    }
    let forger = Forger(&lab);
    forger.opens(1_024);
    forger.claims(kept[0].server.local_addr().unwrap().port(), RST);
    half.server.shutdown(Shutdown::Write).unwrap();
    forger.claims(half.server.local_addr().unwrap().port(), FIN | ACK);
    assert_eq!(half.peer.read(&mut [0; 4]).unwrap(), 0, "the server has sent its FIN");
    // The flow that lives stays suspect, the flow that no socket of the server opened keeps its place, and
    // the half-closed flow is open again.
    until(&lab, [0, 2, 1, 1], SWEPT);
    let freed = lab.server.run(scrape).unwrap();
    assert!(freed.contains("\npomguard_flows_freed_total 6\n"), "{freed}");
    for pair in kept.iter_mut().chain([&mut half]) {
        pair.peer.write_all(b"news").unwrap();
        pair.server.set_read_timeout(Some(PATIENCE)).unwrap();
        pair.server.read_exact(&mut [0; 4]).unwrap();
    }
    until(&lab, [0, 3, 0, 1], PATIENCE);
    assert_eq!(lab.stats().drops("inbound"), []);
}
