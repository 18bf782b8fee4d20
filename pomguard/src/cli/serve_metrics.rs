//! `pomguard serve-metrics`: serves the metrics page over HTTP, from a process without privileges.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use log::{error, info};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    control::{client, protocol::Request},
    observe::http,
    paths,
    render::quantity::duration,
};

/// Pause before the next attempt to listen on a refused address.
const RETRY: Duration = Duration::from_secs(2);

/// Options of `serve-metrics`.
#[derive(Debug, clap::Args)]
pub struct ServeMetricsArgs {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9843")]
    pub listen: SocketAddr,
    /// The folder of the daemon's control socket (`[paths] runtime`)
    #[arg(long, value_name = "PATH", default_value = paths::RUNTIME)]
    pub runtime: PathBuf,
}

/// Runs until SIGTERM or SIGINT. If the daemon does not run, scrapes fail. If the address is not available now,
/// the process waits: after repeated exits, systemd would stop restarting the unit.
pub fn run(args: &ServeMetricsArgs) -> anyhow::Result<ExitCode> {
    super::run::start_log();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let listener = tokio::select! {
            listener = listen(args.listen) => listener?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        info!("metrics at http://{}/metrics", args.listen);
        let folder = args.runtime.clone();
        let source: http::PageSource = Arc::new(move || client::ask(&folder, Request::Metrics, None));
        let until = async move {
            tokio::select! {
                _ = terminate.recv() => {},
                _ = interrupt.recv() => {},
            }
        };
        http::serve(listener, source, until).await.context("serve metrics")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Listens as soon as the address is available. Logs each obstacle once.
async fn listen(at: SocketAddr) -> anyhow::Result<TcpListener> {
    let mut message = None;
    loop {
        let error = match TcpListener::bind(at).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "somebody else listens there. `ss -ltnp` says who: the daemon itself, where `[metrics] listen` \
                 of pomguard.toml names it?"
            }
            io::ErrorKind::AddrNotAvailable => "this host does not have that address (`ip addr`).",
            _ => {
                return Err(error)
                    .with_context(|| format!("listen on {at}: give another address by --listen"));
            }
        };
        if message.replace(error.kind()) != Some(error.kind()) {
            let every = duration(RETRY.as_secs());
            error!("no metrics on {at}: {why} Or give another address by --listen. Tried every {every}");
        }
        tokio::time::sleep(RETRY).await;
    }
}
