//! Segments that real stacks exchange outside of the usual sequences: refusals, and answers at the wrong
//! time.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, Lab, SERVER, SERVER6, Wire},
    packet::flag::{ACK, RST, SYN},
};

/// An address on the peer's side of the cable, at which only the test answers.
const GHOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// The port of that address.
const PORT: u16 = 443;
/// The only local port that the server may use, so that the port is used again.
const OURS: u16 = 40_000;
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn tp_25_allowed_port_without_a_server_sends_a_reset() {
    let Some(lab) = Lab::new("tp_25_allowed_port_without_a_server_sends_a_reset") else {
        return;
    };
    lab.write_site(
        "[[allow]]\nname = \"closed\"\nfrom = [\"10.77.0.2\", \"fd00:77::2\"]\nto = [\"server\"]\n\
         ports = \"9100\"\nprotocol = \"tcp\"\n",
    );
    let _daemon = Daemon::start(&lab);
    for server in [IpAddr::from(SERVER), SERVER6.into()] {
        let called = lab.peer.run(|| TcpStream::connect_timeout(&SocketAddr::new(server, 9_100), PATIENCE));
        let refused = called.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{server}");
    }
    let stats = lab.stats();
    assert_eq!(stats.row("site/closed", "inbound", "connections"), 2, "{stats}");
    assert_eq!(stats.reason("peer-flow", "outbound", "pass"), 2, "the resets: {stats}");
    assert_eq!(stats.drops("outbound"), [], "{stats}");
}

/// A segment from the server to the ghost.
#[derive(Clone, Copy, Debug)]
struct Segment {
    port: u16,
    sequence: u32,
}

/// The ghost's side of the cable.
struct Ghost<'a> {
    lab: &'a Lab,
    wire: Wire,
}

impl Ghost<'_> {
    /// Returns the next segment with these flags, and ignores all other frames.
    fn hears(&self, flags: u8) -> Segment {
        loop {
            let frame = self.wire.next(PATIENCE).unwrap_or_else(|| panic!("no segment of {flags:#08b}"));
            let ipv4 = frame.len() >= 54 && frame[12..14] == [8, 0] && frame[23] == 6;
            if !ipv4 || frame[30..34] != GHOST.octets() || frame[47] & (SYN | ACK | RST) != flags {
                continue;
            }
            let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
            return Segment { port: u16::from_be_bytes([frame[34], frame[35]]), sequence };
        }
    }

    /// Sends a SYN-ACK or a reset that acknowledges `acknowledged`.
    fn says(&self, flags: u8, to: u16, sequence: u32, acknowledged: u32) {
        let mac =
            |machine: &pomguard_netlab::Namespace| machine.link(INTERFACE).state().unwrap().mac.unwrap();
        let segment = PacketBuilder::ethernet2(mac(&self.lab.peer), mac(&self.lab.server))
            .ipv4(GHOST.octets(), SERVER.octets(), 64)
            .tcp(PORT, to, sequence, 1_000)
            .ack(acknowledged);
        let segment = if flags & SYN != 0 { segment.syn() } else { segment };
        let segment = if flags & RST != 0 { segment.rst() } else { segment };
        let mut frame = Vec::new();
        segment.write(&mut frame, &[]).unwrap();
        self.wire.send(&frame);
    }
}

#[test]
fn tp_15_old_syn_ack_blocks_no_flow_not_even_with_equal_ports() {
    let name = "tp_15_old_syn_ack_blocks_no_flow_not_even_with_equal_ports";
    let Some(lab) = Lab::with_one_cable(name) else { return };
    lab.write_site(
        "[[allow]]\nname = \"ghost\"\nfrom = [\"server\"]\nto = [\"10.77.0.9\"]\nports = \"443\"\nprotocol = \"tcp\"\n",
    );
    let _daemon = Daemon::start(&lab);
    lab.peer.set_sysctl("net/ipv4/ip_forward", "0").unwrap();
    lab.server.set_sysctl("net/ipv4/ip_local_port_range", &format!("{OURS} {OURS}")).unwrap();
    let peer = lab.peer.link(INTERFACE).state().unwrap().mac.unwrap();
    lab.server.link(INTERFACE).add_neighbour(GHOST.into(), peer).unwrap();
    let ghost = Ghost { lab: &lab, wire: Wire::of(&lab.peer) };
    let mut old = 0x0bad_0bad;
    for round in ["a first flow", "the same ports again"] {
        let calls = || TcpStream::connect_timeout(&SocketAddr::from((GHOST, PORT)), PATIENCE);
        let stream = thread::scope(|scope| {
            let call = scope.spawn(|| lab.server.run(calls).unwrap());
            let syn = ghost.hears(SYN);
            assert_eq!(syn.port, OURS, "{round}: {syn:?}");
            ghost.says(SYN | ACK, syn.port, 5, old);
            let reset = ghost.hears(RST);
            assert_eq!(reset.sequence, old, "{round}: the server refuses what it did not ask for: {reset:?}");
            let again = ghost.hears(SYN);
            assert_eq!(again.sequence, syn.sequence, "{round}: it asks once more: {again:?}");
            ghost.says(SYN | ACK, syn.port, 1_000, syn.sequence.wrapping_add(1));
            let ack = ghost.hears(ACK);
            old = ack.sequence;
            call.join().unwrap()
        });
        assert!(stream.is_ok(), "{round}: {stream:?}");
        ghost.says(RST, OURS, 1_001, old);
    }
    let stats = lab.stats();
    assert_eq!(stats.drops("inbound"), [], "{stats}");
    assert_eq!(stats.drops("outbound"), [], "{stats}");
    assert_eq!(stats.row("site/ghost", "outbound", "connections"), 4, "two SYNs each time: {stats}");
}
