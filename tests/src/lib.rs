//! Packets, namespaces and a loaded program, for tests that need root and a kernel.

pub mod daemon;
