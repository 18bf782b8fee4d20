use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::*;

const PAGE: &str = "# HELP a A.\n# TYPE a counter\na_total 1\n# EOF\n";

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
}

async fn start(limits: ConnectionLimits, source: PageSource) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(serve_within(limits, listener, source, async move {
        let _ = stopped.await;
    }));
    Server { address, stop, ended }
}

async fn start_plain() -> Server {
    start(ConnectionLimits::default(), Arc::new(|| Ok(PAGE.to_owned()))).await
}

/// Sends `request` unchanged and returns everything up to the end of the connection.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the server ends the connection").unwrap();
    String::from_utf8(answer).unwrap()
}

fn get_with(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

#[tokio::test]
async fn bare_clients_get_the_classic_page_prometheus_openmetrics() {
    let server = start_plain().await;
    let classic = ask(server.address, &get_with("/metrics", "")).await;
    assert!(classic.starts_with("HTTP/1.1 200 OK\r\n"), "{classic}");
    assert!(classic.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(classic.ends_with("# HELP a_total A.\n# TYPE a_total counter\na_total 1\n"));

    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let openmetrics = ask(server.address, &get_with("/metrics", accept)).await;
    assert!(
        openmetrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n")
    );
    assert!(openmetrics.ends_with(PAGE));
}

#[tokio::test]
async fn the_front_page_points_to_the_metrics_and_health_is_one_word() {
    let server = start_plain().await;
    assert!(ask(server.address, &get_with("/", "")).await.contains("/metrics\n"));
    assert!(ask(server.address, &get_with("/healthz", "")).await.ends_with("\r\n\r\nok\n"));
    let lost = ask(server.address, &get_with("/%1b[2J", "")).await;
    assert!(lost.starts_with("HTTP/1.1 404") && !lost.contains("2J"));
}

/// CP-08.
#[tokio::test]
async fn every_verb_that_could_change_something_is_refused() {
    let server = start_plain().await;
    for verb in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/metrics", "/", "/healthz"] {
            let answer = ask(server.address, &format!("{verb} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{verb} {path}: {answer}");
            assert!(answer.contains("allow: GET,HEAD\r\n"), "{verb} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_head_request_gets_the_headers_alone() {
    let server = start_plain().await;
    let answer = ask(server.address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_announced_body_is_not_waited_for() {
    let server = start_plain().await;
    let begun = Instant::now();
    let answer = ask(server.address, &get_with("/metrics", "Content-Length: 1000000000\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn one_connection_gets_one_answer() {
    let server = start_plain().await;
    let two = get_with("/healthz", "") + &get_with("/healthz", "");
    let answer = ask(server.address, &two).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(answer.contains("connection: close\r\n"));
}

#[tokio::test]
async fn nonsense_and_headers_without_end_are_cut_off() {
    let server = start_plain().await;
    assert!(!ask(server.address, "\u{0}\u{1}nonsense\r\n\r\n").await.contains("200 OK"));

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await.unwrap();
    let mut sent = 0;
    // The server stops reading; sooner or later the connection is closed on the server's side.
    while stream.write_all(&[b'a'; 4096]).await.is_ok() {
        sent += 4096;
        assert!(sent < 64 * 1024 * 1024, "somebody reads headers without end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_does_not_arrive_in_time_ends() {
    let limits = ConnectionLimits { request: Duration::from_millis(150), ..ConnectionLimits::default() };
    let server = start(limits, Arc::new(|| Ok(PAGE.to_owned()))).await;
    let begun = Instant::now();
    let answer = ask(server.address, "GET /metrics HTTP/1.1\r\nHost:").await;
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// CP-08.
#[tokio::test]
async fn slow_readers_lose_their_slots_to_those_who_wait() {
    let limits = ConnectionLimits {
        connections: 4,
        request: Duration::from_millis(200),
        connection: Duration::from_millis(600),
        ..ConnectionLimits::default()
    };
    // More than the buffers of the sockets hold, so that an unread answer stays unsent.
    let large = format!("{}# EOF\n", "a_total 1\n".repeat(3_000_000));
    let server = start(limits, Arc::new(move || Ok(large.clone()))).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(get_with("/metrics", "").as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let health = timeout(Duration::from_secs(10), ask(server.address, &get_with("/healthz", ""))).await;
    assert!(health.expect("a slot came free").ends_with("ok\n"));
    drop(slow);
}

/// CP-08.
#[tokio::test]
async fn ten_thousand_scrapes_at_once_cost_one_reading() {
    static READINGS: AtomicUsize = AtomicUsize::new(0);
    let source: PageSource = Arc::new(|| {
        READINGS.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        Ok(PAGE.to_owned())
    });
    let cache = Cache::new(source, Duration::from_secs(60));
    let scrapes: Vec<_> = (0..10_000)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.page().await.is_ok() })
        })
        .collect();
    for scrape in scrapes {
        assert!(scrape.await.unwrap());
    }
    assert_eq!(READINGS.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn hundreds_of_real_clients_at_once_are_all_answered() {
    let server = start_plain().await;
    let clients: Vec<_> = (0..400)
        .map(|_| tokio::spawn(async move { ask(server.address, &get_with("/metrics", "")).await }))
        .collect();
    for client in clients {
        assert!(client.await.unwrap().ends_with("a_total 1\n"));
    }
}

#[tokio::test]
async fn a_page_gets_old_and_is_made_anew() {
    let made = Arc::new(AtomicUsize::new(0));
    let source: PageSource = {
        let made = Arc::clone(&made);
        Arc::new(move || Ok(format!("a_total {}\n", made.fetch_add(1, Ordering::SeqCst))))
    };
    let cache = Cache::new(source, Duration::from_millis(50));
    let first = cache.page().await.unwrap_or_else(|error| panic!("{error}")).classic;
    assert_eq!(first, "a_total 0\n");
    tokio::time::sleep(Duration::from_millis(80)).await;
    let second = cache.page().await.unwrap_or_else(|error| panic!("{error}")).classic;
    assert_eq!(second, "a_total 1\n");
}

#[tokio::test]
async fn failed_reading_reports_its_reason_and_the_next_may_succeed() {
    let tries = AtomicUsize::new(0);
    let source: PageSource = Arc::new(move || match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Err(anyhow::anyhow!("no such file").context("/sys/fs/bpf/pomguard/COUNTERS")),
        _ => Ok(PAGE.to_owned()),
    });
    let server =
        start(ConnectionLimits { page_age: Duration::ZERO, ..ConnectionLimits::default() }, source).await;
    let answer = ask(server.address, &get_with("/metrics", "")).await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.ends_with("/sys/fs/bpf/pomguard/COUNTERS: no such file\n"), "{answer}");
    assert!(ask(server.address, &get_with("/metrics", "")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn shutdown_ends_the_server_even_while_somebody_dawdles() {
    let server = start_plain().await;
    let mut dawdler = TcpStream::connect(server.address).await.unwrap();
    dawdler.write_all(b"GET /metr").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send(()).unwrap();
    timeout(Duration::from_secs(3), server.ended).await.expect("it ends").unwrap().unwrap();
}
