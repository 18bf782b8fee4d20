//! How interfaces are attached now, as the kernel says.

use serde::{Deserialize, Serialize};

use super::{
    KernelError, control, interface,
    link_pin::{TCX, XDP, pinned_on},
    pins::Pins,
    sight::Seen,
};

/// Priority of our clsact filter: before filters that nobody gave a priority (those start at 49152).
pub(super) const CLSACT_PRIORITY: u16 = 50;
/// Its handle, so that it can be told from others and replaced in place.
pub(super) const CLSACT_HANDLE: u32 = 0x706f_6d67;

/// How one interface is attached.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct AttachInfo {
    /// Interface name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// `native`, `generic` or `none`.
    pub xdp: String,
    /// `tcx`, `clsact` or `none`.
    pub tc: String,
    /// Packets that the XDP program saw come in; of a bond, by all members.
    #[serde(default)]
    pub seen: u64,
}

/// Every interface that has one of our links pinned.
#[must_use]
pub fn attached(pins: &Pins) -> Vec<AttachInfo> {
    pins.linked(XDP).iter().map(|interface| describe(pins, interface)).collect()
}

/// How an interface is attached, as the kernel says.
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

/// The program of our clsact filter on an interface, if that filter is there.
///
/// # Errors
/// When the kernel does not answer.
pub fn clsact_program(ifindex: u32) -> Result<Option<u32>, KernelError> {
    interface::clsact_filter(ifindex, CLSACT_HANDLE, CLSACT_PRIORITY)
}

/// Tells the programs at which interfaces this host may hear its own multicast: those in generic mode, as the kernel
/// says. A port of a bridge or bond is none of them: the address of the host is not there, and a bridge would hand a
/// frame of the wire on, whatever its EtherType.
///
/// # Errors
/// When the kernel does not answer, or the pinned words cannot be written.
pub fn note_generic(pins: &Pins) -> Result<(), KernelError> {
    let mut generic = Vec::new();
    for info in attached(pins) {
        if info.xdp == "generic" && !interface::has_controller(info.ifindex)? {
            generic.push(info.ifindex);
        }
    }
    control::set_generic(pins, &generic)
}
