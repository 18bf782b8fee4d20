//! The compiled programs, embedded in the binary.

/// The eBPF object that `build.rs` chose, aligned as the loader's ELF reader requires.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("POMGUARD_OBJECT"));
