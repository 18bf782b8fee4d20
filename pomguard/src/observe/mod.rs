//! What the maps say, for people and programs.

pub mod snapshot;
