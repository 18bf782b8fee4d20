//! Pins of links: made, taken away, and the link behind one detached.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use aya::programs::links::{FdLink, LinkError};

use super::{KernelError, raw};

/// Detaches a pinned link, also where somebody else holds it, and removes the pin.
pub(super) fn take_off(path: &Path) -> Result<(), KernelError> {
    if let Ok(link) = raw::open_pin(path) {
        raw::detach_link(link.as_fd())
            .map_err(KernelError::system("BPF_LINK_DETACH", path.display().to_string()))?;
    }
    unpin(path)
}

/// Removes a pin, if there is one.
pub(super) fn unpin(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::system("unlink", path.display().to_string())(error))
        }
        _ => Ok(()),
    }
}

/// Pins a link.
pub(super) fn pin(link: FdLink, path: &Path) -> Result<(), KernelError> {
    link.pin(path)
        .map(|_| ())
        .map_err(|source| KernelError::Pin { path: path.to_owned(), source: Box::new(source) })
}

/// A link that is not one: the kernel attached, but cannot pin it (XDP links came with Linux 5.9).
pub(super) fn odd_link(interface: &str, error: LinkError) -> KernelError {
    KernelError::System {
        call: "bpf_link_create",
        what: format!("on {interface}: a kernel without links for this hook"),
        source: io::Error::other(error),
    }
}
