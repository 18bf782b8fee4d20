//! Files of the daemon outside the kernel: files that survive a reboot, and marks that do not.
//!
//! | content | module | folder |
//! | --- | --- | --- |
//! | the last confirmed policy, compiled | [`confirmed`] | `paths.state` |
//! | the failsafe rows of that policy, as a policy | [`failsafe`] | |
//! | the machine that saved it | [`identity`] | `paths.state` |
//! | timed exceptions | [`exceptions`] | `paths.state` |
//! | the bypass or lockdown in force | [`suspension`] | `paths.runtime` |
//! | the locks for changes, and the mark of a deliberate detach | [`runtime`] | `paths.runtime` |

pub mod confirmed;
pub mod exceptions;
pub mod failsafe;
pub mod identity;
pub mod runtime;
pub mod suspension;
