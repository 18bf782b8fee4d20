//! Reads the facts that identify this machine.

use std::{fs, io};

use log::debug;
use netlink_packet_route::link::LinkAttribute;

use super::interface;
use crate::state::identity::Identity;

/// The id of the installation, see machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";
/// The UUID of the board or of the virtual machine. Only root can read it.
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";
/// UUIDs that firmware has if the vendor wrote none: many machines have the same.
const NO_UUID: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];

/// Returns the identity of this machine. `guarded` are the names of the guarded interfaces. A fact that cannot
/// be read is missing.
#[must_use]
pub fn identity(guarded: &[String]) -> Identity {
    let text = |path: &str| match fs::read_to_string(path) {
        Ok(text) => Some(text.trim().to_ascii_lowercase()),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                debug!("{path}: {error}");
            }
            None
        }
    };
    // Before the first boot is complete the file is empty, or says "uninitialized".
    let machine_id = text(MACHINE_ID).filter(|id| !id.is_empty() && id != "uninitialized");
    let product_uuid = text(PRODUCT_UUID).filter(|id| !id.is_empty() && !NO_UUID.contains(&id.as_str()));
    let indexes = guarded.iter().filter_map(|name| interface::index(name).ok());
    let attributes = indexes.filter_map(|index| interface::attributes(index).ok()).flatten();
    let macs = attributes.filter_map(|attribute| match attribute {
        LinkAttribute::Address(mac) | LinkAttribute::PermAddress(mac) => Some(mac),
        _ => None,
    });
    let macs = macs.filter(|mac| mac.iter().any(|byte| *byte != 0));
    let written = |mac: Vec<u8>| mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    Identity { machine_id, product_uuid, macs: macs.map(written).collect() }
}
