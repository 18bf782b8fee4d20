//! Allowed connections in a mix of which half is denied.

use std::{
    net::{IpAddr, SocketAddr},
    sync::mpsc,
    time::Duration,
};

use pomguard_netlab::Namespace;
use pomguard_tests::{
    daemon::{Daemon, LISTED, LISTED_OUT, Lab, PEER, PEER6, SERVER, SERVER6, STRANGER, STRANGER6, UNLISTED},
    faults::{report, times},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// The number of connections of each kind; allowed connections are opened one after another.
const EACH: usize = 250;
/// The number of attempts at once of each denied kind: each waits for an answer that does not come.
const AT_ONCE: usize = 16;
/// The timeout of an allowed connection on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time to wait for a denied connection.
const LONG_ENOUGH: Duration = Duration::from_millis(300);
/// The bytes that one side sends and the other side echoes.
const WORD: &[u8] = b"is anybody there?";

/// The opening machine, the address and port, and true if the connection is allowed.
type Kind<'a> = (&'a Namespace, IpAddr, u16, bool);

/// Returns true if a connection can be opened and an echo comes back.
async fn exchanged(to: SocketAddr, within: Duration) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(WORD).await?;
        let mut heard = vec![0; WORD.len()];
        stream.read_exact(&mut heard).await?;
        Ok::<_, std::io::Error>(heard == WORD)
    };
    matches!(timeout(within, exchange).await, Ok(Ok(true)))
}

#[test]
fn fl_10_mixed_load_makes_every_legal_connection_and_no_other() {
    let name = "fl_10_mixed_load_makes_every_legal_connection_and_no_other";
    let Some(lab) = Lab::new(name) else { return };
    let each = EACH * times("POMGUARD_FAULT_FLOOD", 10) / 10;
    let _daemon = Daemon::start(&lab);
    let kinds: [Kind<'_>; 8] = [
        (&lab.peer, SERVER.into(), LISTED, true),
        (&lab.peer, SERVER6.into(), LISTED, true),
        (&lab.server, PEER.into(), LISTED_OUT, true),
        (&lab.server, PEER6.into(), LISTED_OUT, true),
        (&lab.stranger, SERVER.into(), LISTED, false),
        (&lab.peer, SERVER6.into(), UNLISTED, false),
        (&lab.server, STRANGER.into(), LISTED_OUT, false),
        (&lab.server, STRANGER6.into(), UNLISTED, false),
    ];
    let (message, all) = mpsc::channel();
    let stations: Vec<_> = kinds
        .iter()
        .map(|&(from, to, port, legal)| {
            let station = from.station().unwrap();
            let (tasks, within) = if legal { (1, PATIENCE) } else { (AT_ONCE, LONG_ENOUGH) };
            for task in 0..tasks {
                let message = message.clone();
                station.spawn(async move {
                    let mut made = 0;
                    let share = each / tasks + usize::from(task < each % tasks);
                    for _ in 0..share {
                        made += usize::from(exchanged((to, port).into(), within).await);
                    }
                    // The receiver waits for all results.
                    let _ = message.send((legal, share, made));
                });
            }
            station
        })
        .collect();
    drop(message);
    let (mut legal, mut illegal) = ((0, 0), (0, 0));
    for (allowed, tried, made) in all {
        let of = if allowed { &mut legal } else { &mut illegal };
        *of = (of.0 + tried, of.1 + made);
    }
    drop(stations);
    assert_eq!((legal.0, illegal.0), (4 * each, 4 * each), "FL-10: all were tried");
    assert_eq!(legal.1, legal.0, "FL-10: legal connections made");
    assert_eq!(illegal.1, 0, "FL-10: illegal connections made");

    let stats = lab.stats();
    for (direction, expected) in [("inbound", ["source", "port-known"]), ("outbound", ["destination", ""])] {
        for (reason, packets) in stats.drops(direction) {
            let said = "of a legal connection, which TCP would have sent again";
            assert!(expected.contains(&reason.as_str()), "{packets} dropped as {reason}, {said}: {stats}");
        }
    }
    let connections = |row, direction| stats.row(row, direction, "connections");
    assert_eq!(connections("pom-4.0/15", "inbound"), 2 * each as u64, "each is counted once: {stats}");
    assert_eq!(connections("pom-4.0/6", "outbound"), 2 * each as u64, "each is counted once: {stats}");
    report(&format!(
        "{} legal and {} illegal connections: {} and {} made, no packet of a legal one dropped",
        legal.0, illegal.0, legal.1, illegal.1
    ));
}
