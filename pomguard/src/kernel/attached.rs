//! How interfaces are attached now, as the kernel says.

use serde::{Deserialize, Serialize};

use super::{
    KernelError, control, interface,
    link_pin::{TCX, XDP, pinned_on},
    pins::Pins,
    sight::Seen,
};

/// Priority of the clsact filter. Lower than 49152, where the kernel starts for filters without a priority:
/// this filter runs before those.
pub(super) const CLSACT_PRIORITY: u16 = 50;
/// Handle of the clsact filter, which distinguishes this filter from others and lets the daemon replace the
/// program in place.
pub(super) const CLSACT_HANDLE: u32 = 0x706f_6d67;

/// The attachment of one interface.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct AttachInfo {
    /// Name of the interface.
    pub interface: String,
    /// Index of the interface.
    pub ifindex: u32,
    /// `native`, `generic` or `none`.
    pub xdp: String,
    /// `tcx`, `clsact` or `none`.
    pub tc: String,
    /// Number of packets that the XDP program received; for a bond, the sum of all members.
    #[serde(default)]
    pub seen: u64,
}

/// Returns the attachment of every interface that has a pinned XDP link of pomguard.
#[must_use]
pub fn attached(pins: &Pins) -> Vec<AttachInfo> {
    pins.linked(XDP).iter().map(|interface| describe(pins, interface)).collect()
}

/// Returns the attachment of an interface, as the kernel reports the state.
#[must_use]
pub fn describe(pins: &Pins, interface: &str) -> AttachInfo {
    let ifindex = interface::index(interface).unwrap_or(0);
    let linked = |hook| pinned_on(&pins.link(hook, interface), ifindex);
    let xdp = match linked(XDP).then(|| interface::xdp(ifindex)) {
        Some(Ok(Some(state))) if state.native => "native",
        Some(Ok(Some(_))) => "generic",
        _ => "none",
    };
    let clsact = || clsact_program(ifindex).is_ok_and(|program| program.is_some());
    let tc = if linked(TCX) {
        "tcx"
    } else if ifindex != 0 && clsact() {
        "clsact"
    } else {
        "none"
    };
    let seen = Seen::open(pins).and_then(|seen| seen.packets(ifindex, xdp == "native")).unwrap_or(0);
    AttachInfo { interface: interface.to_owned(), ifindex, xdp: xdp.to_owned(), tc: tc.to_owned(), seen }
}

/// Returns the id of the program in pomguard's clsact filter of an interface, or `None` if the filter does not
/// exist.
///
/// # Errors
/// If the kernel does not answer.
pub fn clsact_program(ifindex: u32) -> Result<Option<u32>, KernelError> {
    interface::clsact_filter(ifindex, CLSACT_HANDLE, CLSACT_PRIORITY)
}

/// Writes the interfaces in generic mode, as the kernel reports them, into the control words. There this host
/// may receive a copy of the multicast that this host sent. Ports of a bridge or bond are left out: the port
/// has no address of the host, and a bridge forwards every frame of the wire, of any EtherType.
///
/// # Errors
/// If the kernel does not answer, or the pinned words cannot be written.
pub fn note_generic(pins: &Pins) -> Result<(), KernelError> {
    let mut generic = Vec::new();
    for info in attached(pins) {
        if info.xdp == "generic" && !interface::has_controller(info.ifindex)? {
            generic.push(info.ifindex);
        }
    }
    control::set_generic(pins, &generic)
}
