//! Asynchronous tasks inside a namespace.

use std::{future::Future, panic, thread};

use anyhow::{Context as _, Result};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

use crate::namespace::Namespace;

/// One thread inside a namespace with a runtime: any number of listeners and clients of one host cost one
/// thread. Dropping the station cancels its tasks.
#[derive(Debug)]
pub struct Station {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Station {
    pub(crate) fn start(namespace: &Namespace) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (entered, inside) = std::sync::mpsc::sync_channel(1);
        let own = namespace.try_clone()?;
        let thread = thread::Builder::new().name(format!("at-{}", own.name())).spawn(move || {
            let moved = own.enter();
            let ready = moved.is_ok();
            // The function that starts the station waits for this message, so the receiver exists.
            let _ = entered.send(moved);
            if ready {
                // Ends at the message, or when the sender is dropped.
                let _ = runtime.block_on(stopped);
            }
        })?;
        inside.recv().context("a station's thread ended early")??;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Starts a task in the namespace. The result can be awaited on any runtime.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.runtime.spawn(task)
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && let Err(panicked) = thread.join()
            && !thread::panicking()
        {
            panic::resume_unwind(panicked);
        }
    }
}

impl Namespace {
    /// Runs asynchronous tasks inside the namespace until the station is dropped.
    pub fn station(&self) -> Result<Station> {
        Station::start(self)
    }
}
