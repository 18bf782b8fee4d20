//! What people read. Printers write into any [`std::io::Write`], so that the command line, a failing
//! test and a golden file show the same text.

mod grid;
pub mod quantity;
pub mod stats;
