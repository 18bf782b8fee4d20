//! The history of policy changes. A record says when, by whom and why a change was made, the differences, and
//! the outcome. The record keeps the texts of the files, so a rollback needs nothing else.
//!
//! Each change has a folder under `history/` in the state folder, named by the number of the change. The folder
//! appears whole or not at all, and every read checks the digests.

mod durable;
mod event;
mod record;
mod store;

pub use durable::{replace, replace_or_overwrite};
pub use event::Event;
#[cfg(test)]
pub(crate) use record::tests as record_tests;
pub use record::{
    By, Cause, Existing, Outcome, Pending, Record, Summary, in_force, of_start, pending, refused,
};
pub use store::{Damaged, History, HistoryError};
