//! pomguard enforces a published port matrix on a server's network interfaces, counts every packet, and records
//! a reason for every verdict.
//!
//! # Layout: the way of the data
//!
//! | station | module | type |
//! | --- | --- | --- |
//! | text files, every value with file and line | [`input`] | `Draft` |
//! | names resolved, this host's rows chosen | [`policy`] | `Policy` |
//! | the bytes of the maps | [`compile`] | `Image` |
//! | in force, read back | [`kernel`] | `Installed` |
//! | the state of the maps | [`observe`] | `Snapshot` |
//! | the policy in force kept equal to the files | [`daemon`] | |
//! | the record of every change | [`history`] | |
//! | requests and answers over a socket | [`control`] | |
//! | files that outlive the daemon | [`state`] | |
//! | for people and programs | [`cli`], [`render`] | |
//!
//! Every module before [`kernel`] is pure and tested without root.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod compile;
pub mod control;
pub mod daemon;
pub mod digest;
pub mod history;
pub mod input;
pub mod kernel;
pub mod model;
pub mod observe;
pub mod paths;
pub mod policy;
pub mod render;
pub mod state;
mod terminals;
