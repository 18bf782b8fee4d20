//! The control socket: how a running daemon is told and asked.
//!
//! One line of JSON each way over a UNIX stream socket. Who may say what goes by the credentials
//! that the kernel gives of the other side, never by what it says.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`frame`] | cuts lines of bounded length out of a stream |
//! | [`protocol`] | what can be said, and how it is written |
//! | [`peer`] | who is on the other side, and what they may |
//! | [`server`] | listens, reads and hands requests to the daemon |
//! | [`client`] | asks, for the command line |

use std::path::{Path, PathBuf};

pub mod client;
pub mod frame;
pub mod peer;
pub mod protocol;
pub mod server;

/// The socket below the runtime folder.
#[must_use]
pub fn socket(runtime: &Path) -> PathBuf {
    runtime.join("control.sock")
}
