//! The package managers.

use std::process::Command;

use anyhow::{Result, bail};
use pomguard_workspace::process;

/// A family of distributions, by its package manager.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Debian and its derivatives.
    Apt,
    /// RHEL, Fedora and their derivatives.
    Dnf,
}

impl Distribution {
    /// Returns this machine's distribution. Fails if nothing can be installed here.
    pub(crate) fn of_this_machine() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("installing packages needs root");
        }
        if process::find("apt-get").is_some() {
            Ok(Self::Apt)
        } else if process::find("dnf").is_some() {
            Ok(Self::Dnf)
        } else {
            bail!("neither apt-get nor dnf is here")
        }
    }

    /// Returns the name of the package manager.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Dnf => "dnf",
        }
    }

    /// Installs packages without questions. The lists are refreshed first, because old lists name files that
    /// are gone.
    pub(crate) fn install(self, packages: &[&str]) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        match self {
            Self::Apt => {
                process::run(apt().args(["--quiet=2", "update"]))?;
                process::run(
                    apt().args(["install", "--quiet=2", "--yes", "--no-install-recommends"]).args(packages),
                )
            }
            Self::Dnf => {
                process::run(Command::new("dnf").args(["install", "--assumeyes", "--quiet"]).args(packages))
            }
        }
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "Acquire::Retries=3",
    ]);
    command.args(["-o", "Dpkg::Use-Pty=0"]);
    command
}
