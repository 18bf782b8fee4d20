//! The memory of the daemon at rest.

/// Gives the memory that a change left free back to the system. The C library keeps it for later otherwise: the
/// texts and tables of a change at 100,000 tuples are half of the process, and the next change may be weeks away.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, reads no memory of ours, and frees no block that is in use (malloc_trim(3)).
    let _: libc::c_int = unsafe { libc::malloc_trim(0) };
}
