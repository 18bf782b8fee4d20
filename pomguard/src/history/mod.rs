//! Every change of policy, kept: when, by whom, why, what changed, what became of it, and the texts
//! of the files, so that returning to it takes nothing else.
//!
//! One folder each under `history/` in the state folder, named by its number. It appears whole or
//! not at all, and is checked by digest whenever it is read.

mod durable;
mod event;
mod record;
mod store;

pub use durable::replace;
pub use event::Event;
pub use record::{By, Cause, Existing, Outcome, Pending, Record, Summary, in_force, pending, refused};
pub use store::{Damaged, History, HistoryError};
