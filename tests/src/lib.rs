//! Packets, namespaces, a real daemon and a loaded program, for tests that need root and a Linux kernel.

pub mod control_state;
pub mod daemon;
pub mod differential;
pub mod dispositions;
pub mod faults;
pub mod force;
pub mod harness;
pub mod host_datapath;
pub mod operator_state;
pub mod oracle;
pub mod packet;
pub mod questions;
pub mod random;
pub mod reference;
pub mod shapes;
