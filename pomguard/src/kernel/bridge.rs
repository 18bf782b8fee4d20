//! Bridges a change of the XDP mode. Native and generic mode exclude each other, so the old program is detached
//! before the new one is attached. In between, a TC ingress program drops every packet.
//!
//! On a kernel with TCX, the attachment waits until no packet is in the hook, which takes as long as the rest of
//! a change. So a program that lets every packet go on is attached first, and an update of the link, which does
//! not wait, closes the interface. The link of that program is pinned. If the daemon is killed during the change, the
//! interface stays closed, and the next start removes the program.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{self, NlOptions, TcAttachOptions, TcHandle},
};
use aya_obj::generated::bpf_prog_type;

use super::{KernelError, interface, link_pin, pins::Pins, raw};

/// Name of the program, as the kernel shows it.
const PROGRAM: &str = "pomguard_bridge";
/// Name of the pin of the link.
const LINK: &str = "bridge";
/// Priority before every other filter of the ingress hook.
const FIRST: u16 = 1;
/// Handle of the filter, which distinguishes this filter from others.
const HANDLE: u32 = 0x706f_6d62;
/// `r0 = TC_ACT_SHOT; exit`.
const DROP_ALL: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
/// `r0 = TC_ACT_UNSPEC; exit`: the packet goes on to the next program.
const GO_ON: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

/// An active bridge. If dropped before [`Self::end`], the bridge stays: the interface fails closed.
pub(super) struct Bridge<'a> {
    pins: &'a Pins,
    interface: String,
    begun: Instant,
}

impl<'a> Bridge<'a> {
    /// Attaches the program that drops every packet that arrives on an interface.
    pub(super) fn begin(pins: &'a Pins, interface: &str) -> Result<Self, KernelError> {
        end(pins, interface)?;
        let drop_all = load(&DROP_ALL)?;
        let mut go_on = own_program(pins, &load(&GO_ON)?)?;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        if let Ok(id) = go_on.attach_with_options(interface, TcAttachType::Ingress, first) {
            let link = go_on.take_link(id).map_err(KernelError::program(PROGRAM))?;
            let link = FdLink::try_from(link).map_err(|error| link_pin::odd_link(interface, error))?;
            let path = pins.link(LINK, interface);
            link_pin::pin(link, &path)?;
            let failed = |call| KernelError::system(call, path.display().to_string());
            let link = raw::open_pin(&path).map_err(failed("BPF_OBJ_GET"))?;
            let begun = Instant::now();
            raw::update_link(link.as_fd(), drop_all.as_fd()).map_err(failed("BPF_LINK_UPDATE"))?;
            return Ok(Self { pins, interface: interface.to_owned(), begun });
        }
        let mut program = own_program(pins, &drop_all)?;
        let begun = Instant::now();
        let _ = tc::qdisc_add_clsact(interface);
        let options = NlOptions {
            priority: FIRST,
            handle: TcHandle::new((HANDLE >> 16) as u16, HANDLE as u16),
            ..NlOptions::default()
        };
        let id = program
            .attach_with_options(interface, TcAttachType::Ingress, TcAttachOptions::Netlink(options))
            .map_err(KernelError::program(PROGRAM))?;
        // The filter stays until deleted.
        std::mem::forget(program.take_link(id).map_err(KernelError::program(PROGRAM))?);
        Ok(Self { pins, interface: interface.to_owned(), begun })
    }

    /// Removes the bridge and returns how long the bridge was active. The kernel detaches the program first and
    /// then waits until no packet can be in the program.
    pub(super) fn end(self) -> Result<Duration, KernelError> {
        let stood = self.begun.elapsed();
        end(self.pins, &self.interface)?;
        Ok(stood)
    }
}

fn load(instructions: &[u64]) -> Result<OwnedFd, KernelError> {
    raw::load_program(bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0, PROGRAM, instructions)
        .map_err(KernelError::system("BPF_PROG_LOAD", "of the program that bridges a change of mode"))
}

/// Returns a loaded program as a program that can be attached, by way of a pin.
fn own_program(pins: &Pins, program: &OwnedFd) -> Result<SchedClassifier, KernelError> {
    pins.prepare_minimal()?;
    let path = pins.minimal(PROGRAM);
    link_pin::unpin(&path)?;
    raw::pin(program.as_fd(), &path)
        .map_err(KernelError::system("BPF_OBJ_PIN", path.display().to_string()))?;
    let program = SchedClassifier::from_pin(&path).map_err(KernelError::program(PROGRAM))?;
    link_pin::unpin(&path)?;
    pins.remove_minimal_if_empty();
    Ok(program)
}

/// Removes a bridge that an earlier process may have left.
pub(super) fn end(pins: &Pins, name: &str) -> Result<(), KernelError> {
    link_pin::take_off(&pins.link(LINK, name))?;
    let Ok(ifindex) = interface::index(name) else { return Ok(()) };
    if interface::ingress_filter(ifindex, HANDLE, FIRST)?.is_some() {
        tc::qdisc_detach_program(name, TcAttachType::Ingress, PROGRAM)
            .map_err(std::io::Error::other)
            .map_err(KernelError::system("RTM_DELTFILTER", name))?;
    }
    Ok(())
}
