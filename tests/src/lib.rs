//! Packets, namespaces and a loaded program, for tests that need root and a Linux kernel.

pub mod harness;
pub mod oracle;
pub mod packet;
pub mod random;
pub mod reference;
pub mod twin;
