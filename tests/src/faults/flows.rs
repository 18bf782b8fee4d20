//! Allowed flows that must survive, whatever else happens.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pomguard_netlab::{Namespace, Station};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    daemon::{LISTED, LISTED_OUT, Lab, PEER, PEER6, REMOVABLE, SERVER, SERVER6},
    random::Random,
};

/// The number of bytes that one side sends and the other side echoes.
const WORD: usize = 200;
/// The longest time for an answer before its flow counts as lost. TCP repeats a packet that was dropped once
/// sooner than that; the counters show that none was dropped.
const PATIENCE: Duration = Duration::from_secs(20);

/// Live connections to the echo servers of the laboratory, each with an exchange every 50 to 250 ms.
#[derive(Debug)]
pub struct Flows {
    stations: Vec<Station>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
    stop: Arc<AtomicBool>,
    said: Arc<AtomicU64>,
}

/// The results of the flows.
#[derive(Debug)]
pub struct Fared {
    /// The number of flows.
    pub flows: usize,
    /// The number of exchanges that were answered.
    pub words: u64,
    /// The errors that ended flows.
    pub lost: Vec<String>,
}

impl Flows {
    /// Opens `count` flows: half from the peer to the server, half from the server to the peer, half of each
    /// over IPv6.
    pub fn open(lab: &Lab, count: usize) -> Self {
        let inbound: [(IpAddr, u16); 4] = [
            (SERVER.into(), LISTED),
            (SERVER6.into(), LISTED),
            (SERVER.into(), REMOVABLE),
            (SERVER6.into(), LISTED),
        ];
        let outbound: [(IpAddr, u16); 2] = [(PEER.into(), LISTED_OUT), (PEER6.into(), LISTED_OUT)];
        let mut flows = Self {
            stations: Vec::new(),
            tasks: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            said: Arc::new(AtomicU64::new(0)),
        };
        flows.add(&lab.peer, &inbound, count / 2);
        flows.add(&lab.server, &outbound, count - count / 2);
        flows
    }

    fn add(&mut self, from: &Namespace, to: &[(IpAddr, u16)], count: usize) {
        let station = from.station().unwrap();
        let (opened, all) = std::sync::mpsc::channel();
        for (number, to) in (0..count).zip(to.iter().cycle()) {
            let (to, stop, said) = (SocketAddr::from(*to), Arc::clone(&self.stop), Arc::clone(&self.said));
            let opened = opened.clone();
            self.tasks.push(station.spawn(async move {
                let stream = timeout(PATIENCE, TcpStream::connect(to)).await;
                let mut stream =
                    stream.map_err(|_| format!("{to} does not answer"))?.map_err(|it| it.to_string())?;
                // The receiver waits long enough.
                let _ = opened.send(());
                let mut random = Random(number as u64);
                while !stop.load(Ordering::Relaxed) {
                    exchange(&mut stream, to).await?;
                    said.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(50 + random.below(200) as u64)).await;
                }
                exchange(&mut stream, to).await
            }));
        }
        for _ in 0..count {
            all.recv_timeout(PATIENCE).expect("every flow opens");
        }
        self.stations.push(station);
    }

    /// Makes one more exchange on each flow, and returns the results of all of them.
    pub fn close(self) -> Fared {
        self.stop.store(true, Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let flows = self.tasks.len();
        let lost = runtime.block_on(async {
            let mut lost = Vec::new();
            for task in self.tasks {
                lost.extend(task.await.unwrap().err());
            }
            lost
        });
        Fared { flows, words: self.said.load(Ordering::Relaxed), lost }
    }
}

async fn exchange(stream: &mut TcpStream, to: SocketAddr) -> Result<(), String> {
    let (word, mut heard) = ([0x5a; WORD], [0; WORD]);
    let exchanged = timeout(PATIENCE, async {
        stream.write_all(&word).await?;
        stream.read_exact(&mut heard).await
    });
    match exchanged.await {
        Err(_) => Err(format!("{to} fell silent")),
        Ok(Err(error)) => Err(format!("{to}: {error}")),
        Ok(Ok(_)) if heard != word => Err(format!("{to} said something else")),
        Ok(Ok(_)) => Ok(()),
    }
}
