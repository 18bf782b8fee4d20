//! What the daemon keeps outside the kernel: files that survive a reboot, and marks that do not.
//!
//! | what | module | folder |
//! | --- | --- | --- |
//! | the last confirmed policy, compiled | [`confirmed`] | `paths.state` |
//! | what is let through for a while | [`exceptions`] | `paths.state` |
//! | the panic that holds | [`mod@panic`] | `paths.runtime` |
//! | who may change what is in force, and whether it was taken off on purpose | [`runtime`] | `paths.runtime` |

pub mod confirmed;
pub mod exceptions;
pub mod panic;
pub mod runtime;
