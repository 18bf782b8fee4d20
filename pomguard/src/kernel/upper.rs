//! Makes room for a program on a device that has other devices above.
//!
//! The kernel accepts no XDP program on a device while a device directly above (a bridge, a bond, a VLAN or
//! macvlan device) has one. So pomguard detaches the program from the devices above for a moment and drops
//! every packet that arrives on them until the program is attached again.

use anyhow::anyhow;
use aya::programs::{Xdp, XdpMode};
use log::warn;
use pomguard_common::names::PROGRAM_INGRESS;

use super::{KernelError, attached::note_generic, bridge::Bridge, interface, link_pin, machine, pins::Pins};
use crate::policy::machine::Machine;

/// The devices above a device, closed and without their programs. If dropped before [`Self::end`], the devices
/// stay closed.
pub(super) struct Lifted<'a> {
    pins: &'a Pins,
    above: Vec<Above<'a>>,
}

struct Above<'a> {
    name: String,
    index: u32,
    native: bool,
    bridge: Bridge<'a>,
}

impl<'a> Lifted<'a> {
    /// Detaches pomguard's program from each device directly above `name`.
    ///
    /// # Errors
    /// If one of them has a foreign program; then nothing has changed.
    pub(super) fn begin(pins: &'a Pins, name: &str) -> Result<Self, KernelError> {
        let mut lifted = Self { pins, above: Vec::new() };
        let machine = machine::devices().unwrap_or_else(|error| {
            warn!("{name}: devices above it are not known: {:#}", anyhow!(error));
            Machine::default()
        });
        let Some(device) = machine.device(name) else { return Ok(lifted) };
        let mut ours = Vec::new();
        for above in machine.above(device) {
            let Some(state) = interface::xdp(above.index)? else { continue };
            if !link_pin::pinned_on(&pins.link(link_pin::XDP, &above.name), above.index) {
                return Err(KernelError::ForeignAbove {
                    interface: name.to_owned(),
                    above: above.name.clone(),
                    program: state.program,
                });
            }
            ours.push((above.name.clone(), above.index, state.native));
        }
        for (name, index, native) in ours {
            let bridge = Bridge::begin(pins, &name)?;
            link_pin::take_off(&pins.link(link_pin::XDP, &name))?;
            lifted.above.push(Above { name, index, native, bridge });
        }
        Ok(lifted)
    }

    /// Attaches the program to each of the devices again, in the former mode.
    ///
    /// # Errors
    /// If the kernel refuses; the device stays closed then.
    pub(super) fn end(self, program: &mut Xdp) -> Result<(), KernelError> {
        for Above { name, index, native, bridge } in self.above {
            let mode = if native { XdpMode::Driver } else { XdpMode::Skb };
            let back = match program.attach_to_if_index(index, mode) {
                // A bond accepts no native program while a member has one.
                Err(_) if native => program.attach_to_if_index(index, XdpMode::Skb),
                back => back,
            };
            let id = back.map_err(KernelError::program(PROGRAM_INGRESS))?;
            link_pin::pin_xdp(program, id, &name, self.pins)?;
            note_generic(self.pins)?;
            let closed = bridge.end()?.as_millis();
            warn!(
                "{name}: a device below it was attached to; for {closed} ms everything that came in was dropped"
            );
        }
        Ok(())
    }
}
