//! One reading of the maps for all clients that ask within a short time.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use tokio::sync::Mutex;

use super::PageSource;
use crate::observe::exposition::classic;

/// The page in both formats; clones share the text.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) openmetrics: Bytes,
    pub(super) classic: Bytes,
}

/// The reason for which there is no page, in words.
pub(super) type Refusal = Arc<str>;

/// The last page, and the time at which the page was made.
type Slot = Option<(Instant, Result<Page, Refusal>)>;

#[derive(Clone)]
pub(super) struct Cache {
    source: PageSource,
    age: Duration,
    slot: Arc<Mutex<Slot>>,
}

impl Cache {
    pub(super) fn new(source: PageSource, age: Duration) -> Self {
        Self { source, age, slot: Arc::default() }
    }

    /// Returns the page, not older than the age. A client that asks while a page is being made waits for that
    /// page.
    pub(super) async fn page(&self) -> Result<Page, Refusal> {
        let mut slot = Arc::clone(&self.slot).lock_owned().await;
        if let Some((made, page)) = &*slot
            && made.elapsed() < self.age
        {
            return page.clone();
        }
        let source = Arc::clone(&self.source);
        // The thread owns the lock: a client that leaves early must not let the next client start a second
        // reading in parallel.
        let made = tokio::task::spawn_blocking(move || {
            let page = source().map(Page::from).map_err(|error| refusal(format_args!("{error:#}")));
            if let Err(error) = &page {
                log::warn!("the metrics page could not be made: {error}");
            }
            *slot = Some((Instant::now(), page.clone()));
            page
        });
        made.await.unwrap_or_else(|error| Err(refusal(error)))
    }
}

impl From<String> for Page {
    fn from(openmetrics: String) -> Self {
        Self { classic: classic(&openmetrics).into(), openmetrics: openmetrics.into() }
    }
}

fn refusal(error: impl fmt::Display) -> Refusal {
    format!("the maps could not be read: {error}").into()
}
