//! TCP segments that the kernel holds in one packet that is longer than a length field can say (BIG TCP).

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use pomguard_netlab::Namespace;
use pomguard_tests::daemon::{Daemon, INTERFACE, Lab, PEER, PEER6, SERVER, SERVER6, Settings};

/// The largest number of bytes of TCP in one packet.
const IN_ONE: u32 = 200_000;
/// The number of bytes of a transfer.
const BYTES: usize = 32 << 20;
/// The port of the peer's listener.
const OUT: u16 = 5_001;
/// The port of the server's listener.
const IN: u16 = 5_002;
const ROWS: &str = "[[allow]]\nname = \"out\"\nfrom = [\"server\"]\nto = [\"10.77.0.2\", \"fd00:77::2\"]\n\
                    ports = \"5001\"\nprotocol = \"tcp\"\n\n[[allow]]\nname = \"in\"\n\
                    from = [\"10.77.0.2\", \"fd00:77::2\"]\nto = [\"server\"]\nports = \"5002\"\n\
                    protocol = \"tcp\"\n";

/// Sends [`BYTES`] from one machine to another. Returns the number of bytes that arrive.
fn transfer(from: &Namespace, to: &Namespace, address: IpAddr, port: u16) -> usize {
    let listener = to.run(|| TcpListener::bind((address, port))).unwrap().unwrap();
    let taker = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (mut buffer, mut heard) = (vec![0; 1 << 20], 0);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            heard += length;
        }
        heard
    });
    let mut stream = from.run(|| TcpStream::connect((address, port))).unwrap().unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // The other end notices a cut transfer.
    let _ = stream.write_all(&vec![7; BYTES]);
    drop(stream);
    taker.join().unwrap()
}

fn segments_in_one_packet_arrive(test: &str, attach: &'static str) {
    let Some(lab) = Lab::with_one_cable(test) else { return };
    lab.write_site(ROWS);
    lab.write_settings(&Settings { attach, ..Settings::default() });
    for machine in [&lab.server, &lab.peer] {
        if let Err(error) = machine.link(INTERFACE).set_segments_in_one(IN_ONE) {
            println!("{test}: this kernel holds no more than 65,535 bytes in one packet: {error:#}");
            return;
        }
        machine.set_sysctl("net/ipv4/tcp_wmem", "4096 4000000 16000000").unwrap();
        machine.set_sysctl("net/ipv4/tcp_rmem", "4096 4000000 16000000").unwrap();
    }
    let _daemon = Daemon::start(&lab);
    assert_eq!(lab.stats().attached(), [attach]);
    for (server, peer) in [(IpAddr::from(SERVER), IpAddr::from(PEER)), (SERVER6.into(), PEER6.into())] {
        assert_eq!(transfer(&lab.server, &lab.peer, peer, OUT), BYTES, "out, {peer}: {}", lab.stats());
        assert_eq!(transfer(&lab.peer, &lab.server, server, IN), BYTES, "in, {server}: {}", lab.stats());
    }
    let stats = lab.stats();
    for direction in ["inbound", "outbound"] {
        assert_eq!(stats.drops(direction), [], "{stats}");
    }
    // Packets are counted as the programs see them, so the mean size shows how much one packet held.
    let mean = |row, direction| stats.row(row, direction, "bytes") / stats.row(row, direction, "packets");
    let [out, within] = [mean("site/out", "outbound"), mean("site/in", "inbound")];
    println!("{test}: mean bytes: {out} out, {within} in");
    assert!(out > 66_000, "the kernel held segments in one packet: {out}");
    // XDP in the driver runs before the kernel merges segments.
    assert!(attach == "native" || within > 66_000, "{within}");
}

#[test]
fn f07_big_tcp_arrives_in_native_mode() {
    segments_in_one_packet_arrive("f07_big_tcp_arrives_in_native_mode", "native");
}

#[test]
fn f07_big_tcp_arrives_in_generic_mode() {
    segments_in_one_packet_arrive("f07_big_tcp_arrives_in_generic_mode", "generic");
}
