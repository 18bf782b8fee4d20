//! Prepares the parts of the tests that are not built here: packages, other kernels, a small Debian for a
//! container.

use std::process::Command;

use anyhow::Result;
use pomguard_workspace::process;

use super::{other_kernel, outcome::Outcome, run::Run};

/// The release name of the container's Debian.
const SYSTEM: &str = "bookworm";

/// Fetches kernels and makes the container's system, both kept for the next run. The tools were installed
/// before, for all stages at once.
#[expect(clippy::unnecessary_wraps, reason = "a stage's signature")]
pub(super) fn prepare(_: &mut Run) -> Result<Outcome> {
    let script = match other_kernel::script() {
        Ok(script) => script,
        Err(reason) => return Ok(Outcome::NotRun(reason)),
    };
    let mut missing = Vec::new();
    for kernel in other_kernel::KERNELS {
        if !process::succeeds(Command::new(script.with_file_name("fetch-kernel.sh")).arg(kernel)) {
            missing.push(format!("Linux {kernel}"));
        }
    }
    if !process::succeeds(Command::new(script.with_file_name("make-rootfs.sh")).arg(SYSTEM)) {
        missing.push(SYSTEM.to_owned());
    }
    if missing.is_empty() {
        Ok(Outcome::passed())
    } else {
        Ok(Outcome::NotRun(format!("not to be had here: {}", missing.join(", "))))
    }
}
