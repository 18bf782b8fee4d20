//! Pins of links: creates and removes pins, and detaches the link behind a pin.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use aya::programs::{
    Xdp,
    links::{FdLink, LinkError},
    xdp::XdpLinkId,
};
use pomguard_common::names::PROGRAM_INGRESS;

use super::{KernelError, pins::Pins, raw};

/// Names of the pins of the links.
pub(super) const XDP: &str = "xdp";
pub(super) const TCX: &str = "tcx";

/// Detaches a pinned link, even if another process holds the link, and removes the pin.
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

pub(super) fn pin(link: FdLink, path: &Path) -> Result<(), KernelError> {
    link.pin(path)
        .map(|_| ())
        .map_err(|source| KernelError::Pin { path: path.to_owned(), source: Box::new(source) })
}

/// Returns the error for an attachment without a link: the kernel attached the program, but pomguard cannot pin
/// the attachment (XDP links came with Linux 5.9).
pub(super) fn odd_link(interface: &str, error: LinkError) -> KernelError {
    KernelError::System {
        call: "bpf_link_create",
        what: format!("on {interface}: a kernel without links for this hook"),
        source: io::Error::other(error),
    }
}

/// Returns true if a link is pinned at `path` and is attached to this interface.
pub(super) fn pinned_on(path: &Path, ifindex: u32) -> bool {
    ifindex != 0
        && raw::open_pin(path)
            .and_then(|link| raw::link_facts(link.as_fd()))
            .is_ok_and(|facts| facts.ifindex == ifindex)
}

/// Pins a new XDP link of an interface.
pub(super) fn pin_xdp(
    program: &mut Xdp,
    id: XdpLinkId,
    interface: &str,
    pins: &Pins,
) -> Result<(), KernelError> {
    let link = program.take_link(id).map_err(KernelError::program(PROGRAM_INGRESS))?;
    pin(FdLink::try_from(link).map_err(|error| odd_link(interface, error))?, &pins.link(XDP, interface))
}
