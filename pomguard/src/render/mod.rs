//! Printers: each writes into anything that takes bytes, and its JSON is the same structure.

pub mod check;
pub mod explain;
pub mod matrix;
pub mod table;
