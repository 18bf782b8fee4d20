//! The listener that serves the metrics page: read-only, and bounded in everything.
//!
//! One connection gets one answer and ends. That makes the bounds simple: a slot, a time and a number of
//! bytes per connection (`bounded`) cover slow readers, headers without end and clients that keep idle
//! connections, and no body is ever read.

mod bounded;
mod cache;

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use self::{bounded::BoundedListener, cache::Cache};
use super::exposition::{CLASSIC, OPENMETRICS, wants_openmetrics};

/// Makes the page, in OpenMetrics text. Runs on a thread that may block.
pub type PageSource = Arc<dyn Fn() -> anyhow::Result<String> + Send + Sync>;

/// The limits of the listener.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// The most connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// The time within which a request must arrive.
    pub request: Duration,
    /// The longest duration of a connection.
    pub connection: Duration,
    /// The longest request, in bytes.
    pub request_bytes: usize,
    /// The longest age of a page.
    pub page_age: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            request: Duration::from_secs(5),
            // Prometheus itself gives up after ten seconds, unless told otherwise.
            connection: Duration::from_secs(10),
            request_bytes: 16 * 1024,
            page_age: Duration::from_millis(250),
        }
    }
}

/// The time that answers have to end after `shutdown` completed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves `GET /metrics`, `GET /healthz` and `GET /` until `shutdown` completes.
pub async fn serve(
    listener: TcpListener,
    source: PageSource,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_within(ConnectionLimits::default(), listener, source, shutdown).await
}

/// Does the same as [`serve`], with other limits.
pub async fn serve_within(
    limits: ConnectionLimits,
    listener: TcpListener,
    source: PageSource,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (announce, mut announced) = tokio::sync::watch::channel(());
    let shutdown = async move {
        shutdown.await;
        drop(announce);
    };
    let server =
        axum::serve(BoundedListener::new(listener, limits), router(Cache::new(source, limits.page_age)))
            .with_graceful_shutdown(shutdown);
    // A client that reads slowly must not delay the end of the daemon.
    let farewell = async move {
        while announced.changed().await.is_ok() {}
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        ended = server => ended,
        () = farewell => Ok(()),
    }
}

fn router(cache: Cache) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/", get(async || "pomguard: the metrics are at /metrics\n"))
        .fallback(nothing_here)
        .with_state(cache)
        .layer(axum::middleware::map_response(finish))
}

async fn metrics(State(cache): State<Cache>, headers: HeaderMap) -> Response {
    let page = match cache.page().await {
        Ok(page) => page,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let accept = headers.get_all(header::ACCEPT);
    let openmetrics = accept.iter().filter_map(|value| value.to_str().ok()).any(wants_openmetrics);
    let (kind, text) = if openmetrics { (OPENMETRICS, &page.openmetrics) } else { (CLASSIC, &page.classic) };
    ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], text.clone()).into_response()
}

/// The reply does not repeat the path: bytes from a client could control the terminal that shows them.
async fn nothing_here() -> Response {
    (StatusCode::NOT_FOUND, "pomguard: the metrics are at /metrics\n").into_response()
}

/// Sets the headers of every answer.
async fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
