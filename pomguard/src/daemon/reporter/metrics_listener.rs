//! Serves the metrics page. An address that is in use never affects enforcement: it becomes a condition, and
//! the daemon tries the address again.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::anyhow;
use log::info;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{input::At, observe::http};

/// The delay after a failure before the address is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The reason for which the page is not served; `None` while it is.
#[derive(Clone, Default)]
pub(in crate::daemon) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The address of the page; `None` if the page is not to be served.
type Address = Option<At<SocketAddr>>;

/// The address at which the page is to be served by the settings in force.
pub(in crate::daemon) struct DesiredAddress(watch::Sender<Address>);

impl DesiredAddress {
    pub(in crate::daemon) fn new(at: Address) -> Self {
        Self(watch::channel(at).0)
    }

    /// Moves the page to another address, or stops serving the page.
    pub(in crate::daemon) fn want(&self, at: Option<&At<SocketAddr>>) {
        self.0.send_if_modified(|current| {
            let same = current.as_ref().map(|it| it.value) == at.map(|it| it.value);
            *current = at.cloned();
            !same
        });
    }

    pub(in crate::daemon) fn subscribe(&self) -> watch::Receiver<Address> {
        self.0.subscribe()
    }
}

/// Starts serving at the address of the settings. The first attempt is over when this function returns: if
/// that attempt succeeded, a daemon that is ready answers scrapes.
pub(in crate::daemon) async fn serve(
    mut desired: watch::Receiver<Address>,
    source: http::PageSource,
    error: Fault,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let at = desired.borrow_and_update().clone();
    let first = match &at {
        Some(at) => bind(at, &error).await,
        None => None,
    };
    tokio::spawn(keep(desired, first, source, error, stopped))
}

/// Serves until the daemon stops. Moves to another address when the settings name one; replaces a listener
/// that fails.
async fn keep(
    mut desired: watch::Receiver<Address>,
    mut listener: Option<TcpListener>,
    source: http::PageSource,
    error: Fault,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let at = desired.borrow().clone();
        if let Some((listener, at)) = listener.take().zip(at.as_ref()) {
            let end = until(stopped.clone(), desired.clone());
            if let Err(ended) = http::serve(listener, Arc::clone(&source), end).await {
                error.set(Some(format!("{}: {:#}", at.value, anyhow!(ended))));
            }
        }
        // If a change or the stop ended the serving above, this wait ends at once.
        tokio::select! {
            biased;
            _ = stopped.wait_for(|&stop| stop) => return,
            changed = desired.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if at.is_some() => {}
        }
        let at = desired.borrow_and_update().clone();
        if let Some(at) = &at {
            listener = bind(at, &error).await;
        } else {
            info!("no metrics any more: the settings say `off`");
            error.set(None);
        }
    }
}

/// Completes when the daemon stops, or the settings name another address.
async fn until(mut stopped: watch::Receiver<bool>, mut desired: watch::Receiver<Address>) {
    // A dropped sender means that the daemon has stopped, too.
    tokio::select! {
        _ = stopped.wait_for(|&stop| stop) => {}
        _ = desired.changed() => {}
    }
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
