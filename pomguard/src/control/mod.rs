//! The control socket, on which a running daemon receives requests.
//!
//! One line of JSON in each direction over a UNIX stream socket. The rights of a client depend on the
//! credentials that the kernel reports, never on the client's own words.
//!
//! | module | contents |
//! | --- | --- |
//! | [`frame`] | cuts lines of bounded length out of a stream |
//! | [`protocol`] | the requests and replies, and their form |
//! | [`peer`] | the identity and the rights of the client |
//! | [`server`] | listens, reads and hands requests to the daemon |
//! | [`client`] | sends requests, for the command line |

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
