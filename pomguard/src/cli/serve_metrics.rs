//! `pomguard serve-metrics`: the metrics page over HTTP, from a process without any power.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use log::info;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    control::{client, protocol::Request},
    observe::http,
    paths,
};

/// Options of `serve-metrics`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9843")]
    pub listen: SocketAddr,
    /// The folder of the daemon's control socket (`[paths] runtime`)
    #[arg(long, value_name = "PATH", default_value = paths::RUNTIME)]
    pub runtime: PathBuf,
}

/// Runs until SIGTERM or SIGINT. A daemon that is not there shows as a failed scrape.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    super::run::start_log();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
        info!("metrics at http://{}/metrics", args.listen);
        let folder = args.runtime.clone();
        let source: http::Source = Arc::new(move || client::ask(&folder, Request::Metrics, None));
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
