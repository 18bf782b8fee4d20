//! What the daemon keeps outside the kernel: files that survive a reboot, and marks that do not.
//!
//! | what | module | folder |
//! | --- | --- | --- |
//! | who may change what is in force, and whether it was taken off on purpose | [`runtime`] | `paths.runtime` |

pub mod runtime;
