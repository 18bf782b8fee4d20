//! Packets, namespaces and a loaded program, for tests that need root and a Linux kernel.

pub mod harness;
pub mod packet;
pub mod reference;
