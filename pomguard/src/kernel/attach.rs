//! The programs on the interfaces: XDP on ingress, TCX or clsact on egress, by links that are pinned.

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

/// Attaches both programs to an interface, or takes over what an earlier daemon attached there.
///
/// # Errors
/// When the interface is none of Ethernet, somebody else's program is in the way, the driver has no native XDP and generic is not
/// wanted, or the kernel refuses.
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
    // One that an earlier process left: the programs judge now.
    bridge::end(pins, interface)?;
    let info = describe(pins, interface);
    info!("{interface}: XDP {}, TC {}", info.xdp, info.tc);
    Ok(info)
}

/// Finds out whether attaching would be refused, without touching anything.
///
/// # Errors
/// When the interface does not exist or is none of Ethernet, or somebody else's program is in the way.
pub fn check(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    let ifindex = interface::index(interface)?;
    interface::refuse_other_links(interface, ifindex)?;
    if pinned_on(&pins.link(XDP, interface), ifindex) {
        return Ok(());
    }
    refuse_foreign(interface, ifindex)
}

/// What runs on the egress hook before our program, and may let out what that would drop: in words. Ours
/// is the TCX program `tcx`, or else the clsact filter.
///
/// # Errors
/// When the kernel does not answer.
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

/// Ids of the programs that the hooks of ours run: those behind pinned links, and in our clsact filters.
///
/// # Errors
/// When the kernel does not answer.
pub(super) fn running(pins: &Pins) -> Result<BTreeSet<u32>, KernelError> {
    let mut running = BTreeSet::new();
    for hook in [XDP, TCX] {
        for interface in pins.linked(hook) {
            let path = pins.link(hook, &interface);
            let failed = |call| KernelError::system(call, path.display().to_string());
            let link = raw::open_pin(&path).map_err(failed("BPF_OBJ_GET"))?;
            let facts = raw::link_facts(link.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
            // The interface of a link that is on none has gone.
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

/// Takes the programs off an interface, also where a daemon holds the links.
///
/// # Errors
/// When the kernel refuses, or a pin cannot be removed.
pub fn detach(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    take_off(&pins.link(XDP, interface))?;
    detach_egress(pins, interface)?;
    bridge::end(pins, interface)
}

/// Takes the egress program off an interface, be it there by TCX or by clsact.
///
/// # Errors
/// When the kernel refuses, or a pin cannot be removed.
pub(super) fn detach_egress(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    take_off(&pins.link(TCX, interface))?;
    // Fails where there is no clsact, or nothing of ours on it: then there is nothing to take off.
    let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, PROGRAM_EGRESS);
    Ok(())
}

/// Puts the pinned egress program back as our clsact filter of an interface, and takes away what took the
/// place of that: a TCX link.
///
/// # Errors
/// When the kernel refuses, or a pin cannot be read or removed.
pub(super) fn restore_clsact(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    let mut program = SchedClassifier::from_pin(pins.program(PROGRAM_EGRESS))
        .map_err(KernelError::program(PROGRAM_EGRESS))?;
    attach_clsact(&mut program, interface, interface::index(interface)?)?;
    take_off(&pins.link(TCX, interface))
}

/// A pinned link that is still on this interface; one that is not is taken away. One that cannot be looked
/// at stays: it may be what enforces.
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
            // Asked for anew, and not what generic mode stands in for.
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
        // The program behind the link is exchanged in one step: no packet goes unjudged.
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

/// Attaches where no program is.
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

/// Drivers whose native mode loses the program when the card is reset (a change of MTU, link down and up) and
/// says that it is attached.
const LOSES_NATIVE: [&str; 1] = ["vmxnet3"];

/// The mode that the settings come to at an interface.
pub(super) fn mode(interface: &str, how: Attach) -> AttachMode {
    if how.require_native {
        return AttachMode::Native;
    }
    let loses = || driver::name(interface).is_some_and(|name| LOSES_NATIVE.contains(&name.as_str()));
    if how.mode == AttachMode::Auto && loses() { AttachMode::Generic } else { how.mode }
}

/// Changes the mode of an interface that has our program. Both modes exclude each other: everything that comes
/// in is dropped until the other one has taken over. Where the driver refuses, the mode stays.
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

/// Takes the program off in one mode and puts it on in the other.
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
    // Before anything comes in: the programs read a frame by the mode that they are in.
    note_generic(pins)?;
    let closed = bridge.end()?.as_millis();
    if let Some(reason) = refused {
        return Err(KernelError::NoNative { interface: interface.to_owned(), reason });
    }
    let mode = if native { "native" } else { "generic" };
    warn!("{interface}: changed to {mode} mode; for {closed} ms everything that came in was dropped");
    Ok(())
}

/// Puts our program behind the link of an interface once more, or changes the interface to generic mode.
///
/// # Errors
/// When the kernel refuses.
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

/// A program on the XDP hook that no pinned link of ours put there is never replaced.
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

/// MTU that every driver with native XDP takes, in bytes. Beyond it a driver refuses with an error number that
/// does not speak of the MTU: what a page holds is the limit of most (some 3,500 bytes), for programs that
/// do not ask for frames in several buffers.
const ANY_DRIVER: u32 = 1_500;

/// Why a driver did not take native XDP: the kernel's own words, and the MTU if that may be why.
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

/// The kernel's own words, out of aya's.
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
            // The filter before the link leaves: nothing goes out unjudged.
            attach_clsact(program, interface, ifindex)?;
            take_off(&pins.link(TCX, interface))?;
        }
        return Ok(());
    }
    attach_egress(program, pins, interface, ifindex, mode)
}

/// Attaches an egress program where no TCX link of ours is.
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
    // Whether the kernel has TCX is found out by asking for it; RHEL 9.4 has it and says 5.14.
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

/// Whether the kernel had no room, which says nothing of what it can do.
fn scarce(error: &ProgramError) -> bool {
    const NO_ROOM: [i32; 5] = [libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::EINTR];
    matches!(error, ProgramError::SyscallError(error) if error.io_error.raw_os_error().is_some_and(|it| NO_ROOM.contains(&it)))
}

/// Our handle in aya's form.
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
        // There already where somebody else uses it; a real fault shows when the filter is added.
        let _ = tc::qdisc_add_clsact(interface);
        let options = NlOptions { priority: CLSACT_PRIORITY, handle: handle(), ..NlOptions::default() };
        program
            .attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::Netlink(options))
            .map_err(fail())?
    };
    // A filter has no link to pin: it stays until it is deleted, and must not be when this is dropped.
    std::mem::forget(program.take_link(id).map_err(fail())?);
    Ok(())
}
