//! Files of the daemon outside the kernel: files that survive a reboot, and marks that do not.
//!
//! | content | module | folder |
//! | --- | --- | --- |
//! | the last confirmed policy, compiled | [`confirmed`] | `paths.state` |
//! | timed exceptions | [`exceptions`] | `paths.state` |
//! | the bypass or lockdown in force | [`mod@panic`] | `paths.runtime` |
//! | the locks for changes, and the mark of a deliberate detach | [`runtime`] | `paths.runtime` |

pub mod confirmed;
pub mod exceptions;
pub mod panic;
pub mod runtime;
