//! pomguard: enforces a published port matrix on a server's network interfaces, counts every
//! packet, and can always say why.
//!
//! # Layout: the way of the data
//!
//! | station | module | type |
//! | --- | --- | --- |
//! | text files, every value with file and line | [`input`] | `Draft` |
//! | names resolved, this host's rows chosen | [`policy`] | `Policy` |
//! | the bytes of the maps | [`compile`] | `Image` |
//! | in force, read back | [`kernel`] | `Installed` |
//! | what the maps say | [`observe`] | `Snapshot` |
//! | kept in step with the files | [`daemon`] | |
//! | every change of it kept | [`history`] | |
//! | told and asked | [`control`] | |
//! | what outlives it on disk | [`state`] | |
//! | for people and programs | [`cli`], [`render`] | |
//!
//! Everything before [`kernel`] is pure and tested without root.

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
