//! Output for people. Printers write into any [`std::io::Write`], so that the command line, a failing test
//! and a golden file show the same text; JSON is the same structure.

pub mod check;
pub mod doctor;
pub mod drops;
pub mod explain;
pub mod flows;
pub(crate) mod grid;
pub mod matrix;
pub mod plan;
pub mod quantity;
pub mod stats;
pub mod status;
pub mod suggest;
pub mod table;
pub(crate) mod text;
#[cfg(test)]
mod width_tests;
