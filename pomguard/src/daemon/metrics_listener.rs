//! Serves the metrics page. An address that is taken never touches enforcement: it is a named state, and
//! tried again.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::anyhow;
use log::info;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::Daemon;
use crate::{
    input::{At, Settings},
    observe::{condition::Condition, http},
};

/// How long after a failure the address is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Why the page is not served, as long as it is not.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts serving, if the settings want it. The first attempt is over when this returns: where it worked,
/// a daemon that is ready answers scrapes.
pub(super) async fn serve(
    settings: &Settings,
    source: http::Source,
    error: Fault,
    stopped: watch::Receiver<bool>,
) -> Option<JoinHandle<()>> {
    let at = settings.metrics.clone()?;
    let first = bind(&at, &error).await;
    Some(tokio::spawn(keep(at, first, source, error, stopped)))
}

impl Daemon {
    /// Names the page that is not served among what is not as it should be.
    pub(super) fn note_unserved(&mut self) {
        match self.unserved.get() {
            Some(error) => self.lasting_conditions.insert(Condition::MetricsUnserved, error),
            None => self.lasting_conditions.remove(&Condition::MetricsUnserved),
        };
    }
}

/// Serves until told to stop; a listener that fails is made anew.
async fn keep(
    at: At<SocketAddr>,
    mut listener: Option<TcpListener>,
    source: http::Source,
    error: Fault,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        if let Some(listener) = listener.take() {
            match http::serve(listener, Arc::clone(&source), until(stopped.clone())).await {
                Ok(()) => return,
                Err(ended) => error.set(Some(format!("{}: {:#}", at.value, anyhow!(ended)))),
            }
        }
        tokio::select! {
            _ = stopped.wait_for(|&stop| stop) => return,
            () = tokio::time::sleep(RETRY) => {}
        }
        listener = bind(&at, &error).await;
    }
}

/// Completes when the daemon stops.
async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone has stopped, too.
    let _ = stopped.wait_for(|&stop| stop).await;
}

async fn bind(at: &At<SocketAddr>, error: &Fault) -> Option<TcpListener> {
    match TcpListener::bind(at.value).await {
        Ok(listener) => {
            info!("metrics at http://{}/metrics", at.value);
            error.set(None);
            Some(listener)
        }
        Err(refused) => {
            error.set(Some(format!("{}: no metrics on {}: {refused}", at.origin, at.value)));
            None
        }
    }
}
