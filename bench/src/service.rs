//! The effects that an application notices: throughput and latency of TCP with each filter.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use pomguard_netlab::{Namespace, Port, Veth};
use pomguard_record as record;
use pomguard_workspace as workspace;

use super::{
    Setting,
    figures::{ServiceFigure, Spread},
    filter::Filter,
    guard::{Guard, Order},
    policy::{Family, HOST, Policy},
    sender::Sender,
};

/// Address of the client.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 77));
const INTERFACE: &str = "eth0";
const TUPLES: usize = 10_000;
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 3;
/// Duration of one transfer.
const TRANSFER: Duration = Duration::from_millis(400);
/// Requests on one connection.
const REQUESTS: u32 = 4_000;
/// Connections opened one after another.
const CONNECTIONS: u32 = 400;
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(5);

const FILTERS: [Filter; 5] =
    [Filter::Nothing, Filter::Floor, Filter::Pomguard, Filter::NftStateless, Filter::NftStateful];

/// A server with a filter, and its client.
struct Pair {
    filter: Filter,
    server: Namespace,
    client: Namespace,
    _guard: Option<Guard>,
}

/// Measures each filter in turn.
pub(super) fn run(setting: &Setting) -> Result<Vec<ServiceFigure>> {
    let mut sender = Sender::new(&workspace::root().join(record::BENCH_OBJECT))?;
    let mut policy = Policy::random(Family::V4, TUPLES)?;
    let port = policy.admit(CLIENT.into()).context("the policy has no port")?;
    setting.say("throughput and latency");
    let mut pairs = Vec::new();
    for filter in FILTERS {
        pairs.push(Pair::new(setting, &mut sender, filter, &policy).context(filter.name())?);
    }
    let rounds = if setting.quick { QUICK_ROUNDS } else { ROUNDS };
    let mut samples: Vec<[Vec<f64>; 3]> = pairs.iter().map(|_| Default::default()).collect();
    for _ in 0..rounds {
        for (pair, [throughput, request, connection]) in pairs.iter().zip(&mut samples) {
            throughput.push(pair.throughput(port)?);
            request.push(pair.requests(port)?);
            connection.push(pair.connections(port)?);
        }
    }
    let figure = |(pair, [throughput, request, connection]): (&Pair, [Vec<f64>; 3])| {
        Some(ServiceFigure {
            filter: pair.filter.name().to_owned(),
            throughput: Spread::of(throughput)?,
            request: Spread::of(request)?,
            connection: Spread::of(connection)?,
        })
    };
    Ok(pairs.iter().zip(samples).filter_map(figure).collect())
}

impl Pair {
    fn new(setting: &Setting, sender: &mut Sender, filter: Filter, policy: &Policy) -> Result<Self> {
        let (server, client) = (Namespace::new("server")?, Namespace::new("client")?);
        let near = Port::new(INTERFACE).address(IpNet::new(HOST[0], 16)?);
        let far = Port::new("eth1").address(IpNet::new(CLIENT, 16)?);
        Veth::connect((&server, &near), (&client, &far))?;
        let mut guard = None;
        if filter == Filter::Pomguard {
            let site = policy.site_file()?;
            guard = Some(Guard::on(setting, &server, INTERFACE, &Order::enforce("service", &site))?);
        } else {
            filter.enforce(sender, &server, INTERFACE, policy)?;
        }
        Ok(Self { filter, server, client, _guard: guard })
    }

    /// Runs `serve` on the server, at one port, and `ask` on the client.
    fn between<T: Send>(
        &self,
        port: u16,
        serve: impl Fn(TcpListener) -> Result<()> + Send,
        ask: impl FnOnce(SocketAddr) -> Result<T> + Send,
    ) -> Result<T> {
        let address = SocketAddr::new(HOST[0], port);
        let listener = self.server.run(|| TcpListener::bind(address))??;
        thread::scope(|scope| {
            let server = scope.spawn(move || serve(listener));
            let answer = self.client.run(|| ask(address))?;
            // If the client fails, the server may wait for ever: its threads end with the process.
            let answer = answer?;
            server.join().map_err(|_| anyhow!("the server panicked"))??;
            Ok(answer)
        })
    }

    /// Measures the throughput of one connection in Gbit/s.
    fn throughput(&self, port: u16) -> Result<f64> {
        let serve = |listener: TcpListener| {
            let (mut stream, _) = listener.accept()?;
            let (mut buffer, mut all) = (vec![0; 256 * 1024], 0_u64);
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    length => all += length as u64,
                }
            }
            // The client's clock stops when everything has arrived.
            Ok(stream.write_all(&all.to_be_bytes())?)
        };
        self.between(port, serve, |address| {
            let mut stream = connect(address)?;
            let block = vec![0; 256 * 1024];
            let begin = Instant::now();
            while begin.elapsed() < TRANSFER {
                stream.write_all(&block)?;
            }
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut all = [0; 8];
            stream.read_exact(&mut all)?;
            Ok(u64::from_be_bytes(all) as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9)
        })
    }

    /// Measures the microseconds per request on an open connection.
    fn requests(&self, port: u16) -> Result<f64> {
        let serve = |listener: TcpListener| echo(listener.accept()?.0);
        self.between(port, serve, |address| {
            let mut stream = connect(address)?;
            let begin = Instant::now();
            for _ in 0..REQUESTS {
                ask(&mut stream)?;
            }
            Ok(begin.elapsed().as_secs_f64() * 1e6 / f64::from(REQUESTS))
        })
    }

    /// Measures the microseconds per connection with one request.
    fn connections(&self, port: u16) -> Result<f64> {
        let serve = |listener: TcpListener| {
            for _ in 0..CONNECTIONS {
                echo(listener.accept()?.0)?;
            }
            Ok(())
        };
        self.between(port, serve, |address| {
            let begin = Instant::now();
            for _ in 0..CONNECTIONS {
                ask(&mut connect(address)?)?;
            }
            Ok(begin.elapsed().as_secs_f64() * 1e6 / f64::from(CONNECTIONS))
        })
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [1];
    stream.write_all(&byte)?;
    Ok(stream.read_exact(&mut byte)?)
}

/// Sends every byte back until the client closes.
fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0; 1];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}
