//! The first start on a host with live traffic.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use pomguard_netlab::Namespace;
use pomguard_tests::daemon::{
    Connection, Daemon, LISTED, LISTED_OUT, Lab, PEER, PEER6, SERVER, SERVER6, STRANGER, STRANGER6, UNLISTED,
    is_shut, opens,
};

/// The number of connections of each kind.
const EACH: usize = 26;

/// Two connected UDP sockets, which can test the exchange in both directions.
struct Datagrams(UdpSocket, UdpSocket);

impl Datagrams {
    fn between(here: (&Namespace, IpAddr), there: (&Namespace, IpAddr)) -> Self {
        let bound = |(namespace, address): (&Namespace, IpAddr)| {
            namespace.run(|| UdpSocket::bind(SocketAddr::new(address, 0))).unwrap().unwrap()
        };
        let (here, there) = (bound(here), bound(there));
        here.connect(there.local_addr().unwrap()).unwrap();
        there.connect(here.local_addr().unwrap()).unwrap();
        for socket in [&here, &there] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Self(here, there)
    }

    fn hear_each_other(&self) -> bool {
        let heard =
            |from: &UdpSocket, to: &UdpSocket| from.send(b"word").is_ok() && to.recv(&mut [0; 8]).is_ok();
        // From outside first: no packet that leaves has opened a flow yet.
        heard(&self.1, &self.0) && heard(&self.0, &self.1)
    }
}

#[test]
fn lc_20_live_flows_survive_a_first_start_into_enforce() {
    let name = "lc_20_live_flows_survive_a_first_start_into_enforce";
    let Some(lab) = Lab::new(name) else { return };
    let (mut idle, mut streaming, mut datagrams) = (Vec::new(), Vec::new(), Vec::new());
    // No row allows any of these connections except the last two kinds. A few of each kind stream.
    let sorts: [(&Namespace, IpAddr, u16); 12] = [
        (&lab.peer, SERVER.into(), UNLISTED),
        (&lab.peer, SERVER6.into(), UNLISTED),
        (&lab.stranger, SERVER.into(), LISTED),
        (&lab.stranger, SERVER.into(), UNLISTED),
        (&lab.stranger, SERVER6.into(), UNLISTED),
        (&lab.server, PEER.into(), UNLISTED),
        (&lab.server, PEER6.into(), UNLISTED),
        (&lab.server, STRANGER.into(), LISTED_OUT),
        (&lab.server, STRANGER.into(), UNLISTED),
        (&lab.server, STRANGER6.into(), UNLISTED),
        (&lab.peer, SERVER.into(), LISTED),
        (&lab.server, PEER.into(), LISTED_OUT),
    ];
    for (from, to, port) in sorts {
        for number in 0..EACH {
            let connection = Connection::open(from, to, port);
            if number < 2 { streaming.push(connection) } else { idle.push(connection) }
        }
    }
    for (here, there) in [(IpAddr::from(SERVER), IpAddr::from(STRANGER)), (SERVER6.into(), STRANGER6.into())]
    {
        datagrams.push(Datagrams::between((&lab.server, here), (&lab.stranger, there)));
    }
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let cut = thread::scope(|scope| {
        let streams: Vec<_> = streaming
            .iter_mut()
            .map(|stream| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if !stream.carries(&[0x55; 16_384], Duration::from_secs(10)) {
                            return true;
                        }
                        rounds.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(5));
                    }
                    false
                })
            })
            .collect();
        let daemon = Daemon::start(&lab);
        let before = rounds.load(Ordering::Relaxed);
        println!("{}", daemon.log().lines().filter(|line| line.contains("live conv")).collect::<String>());
        assert!(opens(&lab.peer, SERVER, LISTED), "listed");
        for (from, to, port) in sorts.iter().take(10) {
            assert!(is_shut(from, *to, *port), "{to} {port}: a new one is refused");
        }
        let idle_cut = idle.iter_mut().filter_map(|it| (!it.answers()).then_some(())).count();
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        let streams_cut = streams.into_iter().filter_map(|it| it.join().unwrap().then_some(())).count();
        assert!(rounds.load(Ordering::Relaxed) > before, "they stream with it in force");
        daemon.kill();
        (idle_cut, streams_cut)
    });
    let deaf = datagrams.iter().filter(|it| !it.hear_each_other()).count();
    println!(
        "{} idle, {} streaming, {} UDP; cut: {cut:?}, {deaf}",
        idle.len(),
        streaming.len(),
        datagrams.len()
    );
    assert!(idle.len() + streaming.len() >= 300);
    assert_eq!((cut, deaf), ((0, 0), 0));
}
