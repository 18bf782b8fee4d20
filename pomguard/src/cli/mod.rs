//! To be described.

pub mod stats;
