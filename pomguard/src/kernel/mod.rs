//! To be described.

pub mod object;
