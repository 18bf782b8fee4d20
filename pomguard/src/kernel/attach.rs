//! Attaches the programs to interfaces: XDP on ingress, TCX or clsact on egress, with pinned links.

use std::{collections::BTreeSet, io, os::fd::AsFd as _, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};
use log::{info, warn};
use pomguard_common::names::{PROGRAM_EGRESS, PROGRAM_INGRESS};

pub use super::attached::{AttachInfo, attached, clsact_program, describe, note_generic};
pub(super) use super::link_pin::{TCX, XDP};
use super::{
    KernelError,
    attached::{CLSACT_HANDLE, CLSACT_PRIORITY},
    bridge::{self, Bridge},
    driver, interface,
    link_pin::{odd_link, pin, pin_xdp, pinned_on, take_off, unpin},
    load::Loaded,
    pins::Pins,
    raw, refusal,
    upper::Lifted,
};
use crate::input::settings::{Attach, AttachMode, TcMode};

/// Attaches both programs to an interface, or takes over the links that an earlier daemon left.
///
/// # Errors
/// If the interface is no Ethernet interface, a foreign program occupies the hook, the driver has no native XDP
/// and generic mode is not wanted, or the kernel refuses.
pub fn attach(
    loaded: &mut Loaded,
    pins: &Pins,
    interface: &str,
    how: Attach,
) -> Result<AttachInfo, KernelError> {
    let ifindex = interface::index(interface)?;
    interface::refuse_other_links(interface, ifindex)?;
    attach_xdp(loaded, pins, interface, ifindex, how)?;
    attach_tc(loaded, pins, interface, ifindex, how.tc)?;
    note_generic(pins)?;
    // Remove a bridge that an earlier process left: the programs judge the packets now.
    bridge::end(pins, interface)?;
    let info = describe(pins, interface);
    info!("{interface}: XDP {}, TC {}", info.xdp, info.tc);
    Ok(info)
}

/// Checks whether an attachment would be refused, without changing anything.
///
/// # Errors
/// If the interface does not exist or is no Ethernet interface, or a foreign program occupies the hook.
pub fn check(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    let ifindex = interface::index(interface)?;
    interface::refuse_other_links(interface, ifindex)?;
    if pinned_on(&pins.link(XDP, interface), ifindex) {
        return Ok(());
    }
    refuse_foreign(interface, ifindex)
}

/// Describes the programs on the egress hook that run before pomguard's program and may send packets that
/// pomguard would drop. Pomguard's program is the TCX program `tcx`, or else the clsact filter.
///
/// # Errors
/// If the kernel does not answer.
pub(super) fn before_ours(ifindex: u32, tcx: Option<u32>) -> Result<Vec<String>, KernelError> {
    let programs =
        raw::tcx_egress(ifindex).map_err(KernelError::system("BPF_PROG_QUERY", "of the egress hook"))?;
    // TCX runs before clsact.
    let first = programs.into_iter().take_while(|program| tcx != Some(*program));
    let mut found: Vec<String> = first.map(|program| format!("TCX program {program}")).collect();
    if tcx.is_some() {
        return Ok(found);
    }
    let filters = interface::clsact_filters(ifindex)?;
    let before = filters.iter().take_while(|it| it.handle != CLSACT_HANDLE || it.priority != CLSACT_PRIORITY);
    for filter in before.filter(|filter| filter.handle != 0 && filter.priority <= CLSACT_PRIORITY) {
        found.push(format!("clsact filter {:#x} of priority {}", filter.handle, filter.priority));
    }
    Ok(found)
}

/// Returns the ids of the programs that pomguard's hooks run: those of the pinned links and of the clsact
/// filters.
///
/// # Errors
/// If the kernel does not answer.
pub(super) fn running(pins: &Pins) -> Result<BTreeSet<u32>, KernelError> {
    let mut running = BTreeSet::new();
    for hook in [XDP, TCX] {
        for interface in pins.linked(hook) {
            let path = pins.link(hook, &interface);
            let failed = |call| KernelError::system(call, path.display().to_string());
            let link = raw::open_pin(&path).map_err(failed("BPF_OBJ_GET"))?;
            let facts = raw::link_facts(link.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
            // A link without an interface: the interface was deleted.
            if facts.ifindex != 0 {
                running.insert(facts.program);
            }
            if let Ok(ifindex) = interface::index(&interface) {
                running.extend(clsact_program(ifindex)?);
            }
        }
    }
    Ok(running)
}

/// Removes the programs from an interface, even if a daemon holds the links.
///
/// # Errors
/// If the kernel refuses, or a pin cannot be removed.
pub fn detach(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    take_off(&pins.link(XDP, interface))?;
    detach_egress(pins, interface)?;
    bridge::end(pins, interface)
}

/// Removes the egress program from an interface, whether attached by TCX or by clsact.
///
/// # Errors
/// If the kernel refuses, or a pin cannot be removed.
pub(super) fn detach_egress(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    take_off(&pins.link(TCX, interface))?;
    // This fails if the interface has no clsact or no filter of pomguard; then there is nothing to remove.
    let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, PROGRAM_EGRESS);
    Ok(())
}

/// Restores the pinned egress program as the clsact filter of an interface, and removes the TCX link that
/// replaced the filter.
///
/// # Errors
/// If the kernel refuses, or a pin cannot be read or removed.
pub(super) fn restore_clsact(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    let mut program = SchedClassifier::from_pin(pins.program(PROGRAM_EGRESS))
        .map_err(KernelError::program(PROGRAM_EGRESS))?;
    attach_clsact(&mut program, interface, interface::index(interface)?)?;
    take_off(&pins.link(TCX, interface))
}

/// Returns the pinned link if the link is still attached to this interface. Removes the pin of a link that is
/// not. Keeps a link that cannot be examined: that link may be the one that enforces.
pub(super) fn adopt(path: &Path, interface: &str, ifindex: u32) -> Result<Option<FdLink>, KernelError> {
    let failed = |call| KernelError::system(call, path.display().to_string());
    if !path.try_exists().map_err(failed("stat"))? {
        return Ok(None);
    }
    let link = raw::open_pin(path).map_err(failed("BPF_OBJ_GET"))?;
    let facts = raw::link_facts(link.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
    if facts.ifindex != ifindex {
        warn!("{interface}: the interface was made anew since it was attached; attaching again");
        unpin(path)?;
        return Ok(None);
    }
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(error)) => Err(failed("BPF_OBJ_GET")(error.io_error)),
        Err(error) => Err(failed("BPF_OBJ_GET")(io::Error::other(error))),
    }
}

fn attach_xdp(
    loaded: &mut Loaded,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    how: Attach,
) -> Result<(), KernelError> {
    let path = pins.link(XDP, interface);
    let mode = mode(interface, how);
    let program = loaded.xdp()?;
    let fail = || KernelError::program(PROGRAM_INGRESS);
    if let Some(link) = adopt(&path, interface, ifindex)? {
        let native = interface::xdp(ifindex)?.is_some_and(|state| state.native);
        let wanted = match mode {
            // The caller wants another attempt at native mode in place of the present generic mode.
            AttachMode::Auto if how.leave_generic => true,
            AttachMode::Auto => native,
            AttachMode::Native => true,
            AttachMode::Generic => false,
        };
        if wanted != native {
            return match change_mode(program, pins, interface, ifindex, wanted) {
                Err(KernelError::NoNative { reason, .. }) if mode == AttachMode::Auto => {
                    info!("{interface}: no native XDP ({reason}), generic as before");
                    Ok(())
                }
                changed => changed,
            };
        }
        // The kernel exchanges the program behind the link in one step: every packet is judged.
        let id = program
            .attach_to_link(XdpLink::try_from(link).map_err(|error| odd_link(interface, error))?)
            .map_err(fail())?;
        program.take_link(id).map_err(fail())?;
        return Ok(());
    }
    refuse_foreign(interface, ifindex)?;
    let lifted = Lifted::begin(pins, interface)?;
    let attached = attach_fresh(program, pins, interface, ifindex, mode);
    lifted.end(program)?;
    attached
}

/// Attaches the XDP program to an interface that has none.
fn attach_fresh(
    program: &mut Xdp,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    mode: AttachMode,
) -> Result<(), KernelError> {
    let attempt = if mode == AttachMode::Generic {
        program.attach_to_if_index(ifindex, XdpMode::Skb)
    } else {
        match program.attach_to_if_index(ifindex, XdpMode::Driver) {
            Err(error) if mode == AttachMode::Native => {
                return Err(KernelError::NoNative {
                    interface: interface.to_owned(),
                    reason: not_native(program, interface, ifindex, &error),
                });
            }
            Err(error) => {
                let why = not_native(program, interface, ifindex, &error);
                warn!("{interface}: no native XDP ({why}), falling back to generic");
                program.attach_to_if_index(ifindex, XdpMode::Skb)
            }
            Ok(id) => Ok(id),
        }
    };
    let id = attempt.map_err(KernelError::program(PROGRAM_INGRESS))?;
    pin_xdp(program, id, interface, pins)
}

/// Drivers that lose a native program when the card is reset (a change of the MTU, link down and up) and still
/// report the program as attached.
const LOSES_NATIVE: [&str; 1] = ["vmxnet3"];

/// Returns the mode that the settings mean for an interface.
pub(super) fn mode(interface: &str, how: Attach) -> AttachMode {
    if how.require_native {
        return AttachMode::Native;
    }
    let loses = || driver::name(interface).is_some_and(|name| LOSES_NATIVE.contains(&name.as_str()));
    if how.mode == AttachMode::Auto && loses() { AttachMode::Generic } else { how.mode }
}

/// Changes the XDP mode of an interface that has pomguard's program. Native and generic mode exclude each
/// other, so every incoming packet is dropped until the new mode is attached. If the driver refuses, the mode
/// stays.
fn change_mode(
    program: &mut Xdp,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    native: bool,
) -> Result<(), KernelError> {
    let lifted = Lifted::begin(pins, interface)?;
    let changed = exchange_mode(program, pins, interface, ifindex, native);
    lifted.end(program)?;
    changed
}

/// Detaches the program in one mode and attaches the program in the other.
fn exchange_mode(
    program: &mut Xdp,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    native: bool,
) -> Result<(), KernelError> {
    let flags = |native| if native { XdpMode::Driver } else { XdpMode::Skb };
    let bridge = Bridge::begin(pins, interface)?;
    take_off(&pins.link(XDP, interface))?;
    let mut refused = None;
    let id = match program.attach_to_if_index(ifindex, flags(native)) {
        Ok(id) => id,
        Err(error) => {
            refused = Some(not_native(program, interface, ifindex, &error));
            program
                .attach_to_if_index(ifindex, flags(!native))
                .map_err(KernelError::program(PROGRAM_INGRESS))?
        }
    };
    pin_xdp(program, id, interface, pins)?;
    // Before the bridge is removed: the programs parse a frame according to the mode that the control words
    // give.
    note_generic(pins)?;
    let closed = bridge.end()?.as_millis();
    if let Some(reason) = refused {
        return Err(KernelError::NoNative { interface: interface.to_owned(), reason });
    }
    let mode = if native { "native" } else { "generic" };
    warn!("{interface}: changed to {mode} mode; for {closed} ms everything that came in was dropped");
    Ok(())
}

/// Attaches the program to the XDP link of an interface again, or changes the interface to generic mode.
///
/// # Errors
/// If the kernel refuses.
pub fn revive(loaded: &mut Loaded, pins: &Pins, interface: &str, generic: bool) -> Result<(), KernelError> {
    let ifindex = interface::index(interface)?;
    let program = loaded.xdp()?;
    if generic {
        return change_mode(program, pins, interface, ifindex, false);
    }
    let fail = || KernelError::program(PROGRAM_INGRESS);
    let Some(link) = adopt(&pins.link(XDP, interface), interface, ifindex)? else { return Ok(()) };
    let id = program
        .attach_to_link(XdpLink::try_from(link).map_err(|error| odd_link(interface, error))?)
        .map_err(fail())?;
    program.take_link(id).map(drop).map_err(fail())
}

/// Returns an error if the XDP hook has a program. The callers have no link of pomguard there, so the program
/// is foreign, and pomguard never replaces a foreign program.
pub(super) fn refuse_foreign(interface: &str, ifindex: u32) -> Result<(), KernelError> {
    match interface::xdp(ifindex)? {
        Some(state) => Err(KernelError::Foreign {
            interface: interface.to_owned(),
            hook: "an XDP",
            program: state.program,
        }),
        None => Ok(()),
    }
}

/// MTU in bytes that every driver with native XDP accepts. Above this value a driver may refuse with an error
/// number that does not mention the MTU. For most drivers the limit is the room in a page (about 3,500 bytes)
/// for a program that does not support frames in several buffers.
const ANY_DRIVER: u32 = 1_500;

/// Returns the reason why a driver refused native XDP: the kernel's message, and the MTU if that may be the
/// cause.
fn not_native(program: &Xdp, interface: &str, ifindex: u32, error: &ProgramError) -> String {
    let words = reason(error);
    if let Some(said) = program.fd().ok().and_then(|fd| refusal::words(ifindex, fd.as_fd())) {
        return format!("{words}: the driver says \"{said}\"; `{}`", refusal::remedy(interface, &said));
    }
    match interface::mtu(ifindex) {
        Ok(Some(mtu)) if mtu > ANY_DRIVER => {
            format!("{words}; the MTU is {mtu}, and most drivers take native XDP up to some 3,500 bytes")
        }
        _ => words,
    }
}

/// Returns the kernel's message from an error of aya.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => error.io_error.to_string(),
        other => other.to_string(),
    }
}

fn attach_tc(
    loaded: &mut Loaded,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    mode: TcMode,
) -> Result<(), KernelError> {
    let program = loaded.tc()?;
    let fail = || KernelError::program(PROGRAM_EGRESS);
    if let Some(link) = adopt(&pins.link(TCX, interface), interface, ifindex)? {
        let link = SchedClassifierLink::try_from(link).map_err(|error| odd_link(interface, error))?;
        let id = program.attach_to_link(link).map_err(fail())?;
        program.take_link(id).map_err(fail())?;
        if mode == TcMode::Clsact {
            // Attach the filter before the link is removed: every outgoing packet is judged.
            attach_clsact(program, interface, ifindex)?;
            take_off(&pins.link(TCX, interface))?;
        }
        return Ok(());
    }
    attach_egress(program, pins, interface, ifindex, mode)
}

/// Attaches an egress program to an interface without a TCX link of pomguard.
pub(super) fn attach_egress(
    program: &mut SchedClassifier,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    mode: TcMode,
) -> Result<(), KernelError> {
    let path = pins.link(TCX, interface);
    let fail = || KernelError::program(PROGRAM_EGRESS);
    if mode == TcMode::Clsact {
        return attach_clsact(program, interface, ifindex);
    }
    // The attempt shows if the kernel has TCX. The version does not: RHEL 9.4 has TCX and reports 5.14.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    match program.attach_with_options(interface, TcAttachType::Egress, options) {
        Ok(id) => {
            let link = program.take_link(id).map_err(fail())?;
            let link = FdLink::try_from(link).map_err(|error| odd_link(interface, error))?;
            pin(link, &path)?;
            // One program per hook: a packet is judged and counted once.
            if clsact_program(ifindex)?.is_some() {
                tc::qdisc_detach_program(interface, TcAttachType::Egress, PROGRAM_EGRESS)
                    .map_err(io::Error::other)
                    .map_err(KernelError::system("RTM_DELTFILTER", interface))?;
            }
            Ok(())
        }
        Err(error) if scarce(&error) => Err(fail()(error)),
        Err(error) => {
            info!("{interface}: no TCX ({}), using clsact", reason(&error));
            attach_clsact(program, interface, ifindex)
        }
    }
}

/// Returns true if the kernel lacked memory or another resource. Such an error says nothing about the features
/// of the kernel.
fn scarce(error: &ProgramError) -> bool {
    const NO_ROOM: [i32; 5] = [libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::EINTR];
    matches!(error, ProgramError::SyscallError(error) if error.io_error.raw_os_error().is_some_and(|it| NO_ROOM.contains(&it)))
}

/// Returns the handle of the clsact filter in aya's type.
const fn handle() -> tc::TcHandle {
    tc::TcHandle::new((CLSACT_HANDLE >> 16) as u16, CLSACT_HANDLE as u16)
}

fn attach_clsact(program: &mut SchedClassifier, interface: &str, ifindex: u32) -> Result<(), KernelError> {
    let fail = || KernelError::program(PROGRAM_EGRESS);
    let id = if clsact_program(ifindex)?.is_some() {
        let ours =
            SchedClassifierLink::attached(interface, TcAttachType::Egress, CLSACT_PRIORITY, handle(), None)
                .map_err(KernelError::system("if_nametoindex", interface))?;
        program.attach_to_link(ours).map_err(fail())?
    } else {
        // The qdisc exists already if another program uses clsact; a real error shows when the filter is added.
        let _ = tc::qdisc_add_clsact(interface);
        let options = NlOptions { priority: CLSACT_PRIORITY, handle: handle(), ..NlOptions::default() };
        program
            .attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::Netlink(options))
            .map_err(fail())?
    };
    // A filter has no link to pin: the filter stays until deleted, and the drop of this value would delete the
    // filter.
    std::mem::forget(program.take_link(id).map_err(fail())?);
    Ok(())
}
