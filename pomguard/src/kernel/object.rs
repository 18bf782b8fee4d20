//! The compiled programs, part of the binary.

/// The eBPF object that `build.rs` chose, aligned as the loader's ELF reader wants it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("POMGUARD_OBJECT"));
